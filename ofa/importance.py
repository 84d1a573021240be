"""Importance of channels and of blocks: pruning criteria by name, for any network.

A criterion does not depend on kinds of layers. Its inputs are:

* a ``Group`` (``ofa.groups``): coupled units (channels, heads, channels of a grouped convolution) with one order in all tensors. Each
  member states the role of its tensor: weights that *read* the units as input, the *scale* of a norm over them, or any other tensor
  that *follows* their order, such as the weights that produce them;
* an ``Observation``: the network's tensors by name and, from one batch of images, the gradients of the loss with respect to the
  reading weights, and the mean squares of the inputs of these weights.

It returns a score of at least 0 per unit, or None for a group without the tensors that it needs; such a group keeps its order. Any
network that can list its groups can be ordered. ``observe`` handles modules whose units are read by convolutions and linear layers;
other networks build their own observations.

Shapes: B images of a batch, C channels, H W pixels, U units of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ofa.errors import DataError, RecipeError
from ofa.groups import Group, Member
from ofa.modes import normalizing_by_batch
from ofa.progress import Progress, silent
from ofa.registry import Registry

__all__ = [
    "IMPORTANCES",
    "Examples",
    "Importance",
    "Observation",
    "Score",
    "block_importance",
    "observe",
    "score_groups",
]


@dataclass(frozen=True, eq=False)
class Observation:
    """The data that criteria use, keyed by names of tensors.

    Attributes:
        tensors: parameters and buffers of the network.
        gradients: gradient of one batch's loss with respect to each tensor that reads units, of the tensor's shape.
        activations: for each tensor that reads units, the mean square of each input channel of its layer, [channels]: the mean over
            the images of one batch and over their pixels or tokens.
    """

    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)


class Score(Protocol):
    """Function that scores the units of a group: values of at least 0, shape [U]; None if the group lacks the tensors needed."""

    def __call__(self, group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None: ...


@dataclass(frozen=True)
class Importance:
    """A criterion for the importance of units.

    Attributes:
        score: function that scores a group's units; scores of several batches are averaged.
        needs_images: whether it uses gradients or activations.
    """

    score: Score
    needs_images: bool = False


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with labels, for criteria that need images.

    Attributes:
        batches: images [B, C, H, W] on the network's device, with their labels.
        count: number of batches, for progress.
        loss: function of outputs and labels that returns a scalar.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    count: int
    loss: Callable[[Tensor, Tensor], Tensor]


# -- criteria ---------------------------------------------------------------------------------------------------------


def _summed(group: Group, use: str, values: Callable[[Member], Tensor]) -> Tensor | None:
    """Sum per unit of the values of all members with one use [U]; None if there are no such members.

    Sums within a block come first. The order of additions is fixed because it decides between nearly equal channels, and runs must
    repeat bit for bit.
    """
    places: dict[str, Tensor] = {}
    for member in group.members:
        if member.use == use:
            values_U = group.by_unit(member, values(member))
            places[member.place] = places[member.place] + values_U if member.place in places else values_U
    return torch.stack(list(places.values())).sum(0) if places else None


def _l1(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """L1 norm of the weights that read a unit (Cai et al., "Once-for-All", ICLR 2020, section 3.3)."""
    return _summed(group, "reads", lambda member: seen.tensors[member.tensor].abs())


def _l2(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """L2 norm of the weights that read a unit."""
    squares_U = _summed(group, "reads", lambda member: seen.tensors[member.tensor].square())
    return None if squares_U is None else squares_U.sqrt()


def _batch_norm(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """Sum of the magnitudes of a unit's batch-norm scales (Liu et al., "Network Slimming", ICCV 2017)."""
    return _summed(group, "scales", lambda member: seen.tensors[member.tensor].abs())


def _taylor(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """First-order Taylor estimate of the change in loss when a unit is removed (Molchanov et al., CVPR 2019, for whole units).

    A layer is linear in its weights and in its input. So the sum of weight times gradient over all weights that read a unit equals the
    unit's value times the gradient with respect to it. The magnitude is taken last, so that contributions of readers can cancel.
    """
    changes_U = _summed(group, "reads", lambda member: seen.tensors[member.tensor] * seen.gradients[member.tensor])
    return None if changes_U is None else changes_U.abs()


def _activation(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """Root of the sum, over all layers that read a unit, of the mean square of the unit's values."""
    squares_U = _summed(group, "reads", lambda member: seen.activations[member.tensor])
    return None if squares_U is None else squares_U.sqrt()


def _random(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """Random scores: the baseline of comparisons."""
    device = next(iter(seen.tensors.values())).device
    return torch.rand(group.units, generator=generator).to(device)


IMPORTANCES: Registry[Importance] = Registry(
    "importance",
    group="ofa.importances",
    error=RecipeError,
    entries={
        "l1": Importance(_l1),
        "l2": Importance(_l2),
        "batch_norm": Importance(_batch_norm),
        "taylor": Importance(_taylor, needs_images=True),
        "activation": Importance(_activation, needs_images=True),
        "random": Importance(_random),
    },
    valid=lambda entry: isinstance(entry, Importance),
    must_be="an ofa.importance.Importance",
)
"""Criteria by name: L1 and L2 norm of the weights that read a unit, batch-norm scale, first-order Taylor expansion of the loss, norm of
the activations, and random scores."""


def _no_images() -> DataError:
    return DataError("importance needs at least one batch of images, but there is none; give images that can be read")


# -- networks ---------------------------------------------------------------------------------------------------------


def score_groups(
    groups: Sequence[Group], importance: Importance, observations: Iterable[Observation], generator: torch.Generator | None = None
) -> list[Tensor | None]:
    """Score the units of each group.

    Args:
        groups: of one network.
        importance: the criterion.
        observations: of the network, one per batch.
        generator: on the CPU, for random criteria; torch's default generator if None.

    Returns:
        Scores [U] for each group, averaged over the observations; None for a group that the criterion cannot score.

    Raises:
        DataError: there is no observation.
    """
    count, totals = 0, list[Tensor | None]()
    for count, seen in enumerate(observations, 1):
        found = [importance.score(group, seen, generator) for group in groups]
        totals = found if count == 1 else [None if a is None or b is None else a + b for a, b in zip(totals, found, strict=True)]
    if not count:
        raise _no_images()
    return [None if total is None else total / count for total in totals]


def observe(network: nn.Module, groups: Sequence[Group], examples: Examples, progress: Progress = silent) -> Iterator[Observation]:
    """Run a network on batches of images and yield one observation per batch; the network ends unchanged.

    Batch norms use batch statistics, as a smaller network will after calibration. Accumulated gradients (``.grad``) are not touched.

    Args:
        network: maps images to the outputs that the loss takes; its parameters require gradients.
        groups: of the network; their units are read by convolutions and linear layers.
        examples: the images.
        progress: called after every batch.
    """
    names = list(dict.fromkeys(member.tensor for group in groups for member in group.members if member.use == "reads"))
    parameters = dict(network.named_parameters(remove_duplicate=False))
    readers = [parameters[name] for name in names]
    tensors = {name: tensor.detach() for name, tensor in (*parameters.items(), *network.named_buffers())}
    with normalizing_by_batch(network), _listening(network, names) as activations:
        for done, (x_BCHW, y_B) in enumerate(examples.batches, 1):
            activations.clear()
            with torch.enable_grad():
                loss = examples.loss(network(x_BCHW), y_B)
            gradients = torch.autograd.grad(loss, readers, allow_unused=True, materialize_grads=True)
            yield Observation(tensors, dict(zip(names, gradients, strict=True)), dict(activations))
            progress(done, examples.count, "importance")


@contextmanager
def _listening(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Record the mean square of each input channel of the layers with the weights ``names``, by these names."""
    noted: dict[str, Tensor] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        square_C = x.movedim(1 if isinstance(layer, _ConvNd) else -1, 0).flatten(1).square().mean(1)
        noted[name] = noted[name] + square_C if name in noted else square_C

    hooks = [network.get_submodule(name.rpartition(".")[0]).register_forward_pre_hook(partial(note, name)) for name in names]
    try:
        yield noted
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def block_importance(pieces: Sequence[nn.Module], images: Sequence[Tensor], progress: Progress = silent) -> list[float | None]:
    """Relative change of a network's output when one block is skipped; skip blocks with the lowest scores first.

    The score is the norm of the output's change divided by the norm of the output, averaged over images. Blocks of language models
    were ranked by the change of their own input (Men et al., "ShortGPT", 2024; Gromov et al., "The Unreasonable Ineffectiveness of
    the Deeper Layers", 2024). Here the rest of the network runs as well, so that only the change that reaches the output counts. Batch
    norms use batch statistics, as the shorter network will after calibration.

    Args:
        pieces: the blocks of the network in order, such as ``Supernet.pieces`` or the modules of an ``nn.Sequential``.
        images: held-out batches [B, C, H, W] of at least two images.
        progress: called after every piece and batch.

    Returns:
        A score of at least 0 for each piece; None if its output differs from its input in shape, so that it cannot be skipped.

    Raises:
        DataError: there are no images, or a batch has a single image.
    """
    if not images:
        raise _no_images()
    if min(map(len, images)) < 2:
        raise DataError("importance of blocks needs batches of at least 2 images, because of batch norm, but one has 1; give more images")
    whole = nn.Sequential(*pieces)
    scores: list[float | None] = [None] * len(pieces)
    with normalizing_by_batch(whole):
        for done, batch in enumerate(images):
            x, output = batch.clone(), whole(batch.clone()).flatten(1)  # a piece may change its input in place
            for number, piece in enumerate(pieces):
                before, x = x, piece(x.clone())
                if before.shape == x.shape:
                    changed = whole[number + 1 :](before).flatten(1)
                    share = (changed - output).norm(dim=1) / output.norm(dim=1).clamp(min=torch.finfo(output.dtype).tiny)
                    scores[number] = (scores[number] or 0.0) + float(share.mean()) / len(images)
                progress(done * len(pieces) + number + 1, len(images) * len(pieces), "importance of blocks")
    return scores
