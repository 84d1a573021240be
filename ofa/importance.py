"""How much the channels of a network matter, and which of its blocks: criteria by name, for any network.

A criterion knows no kinds of layers. It is given two things:

* a ``Group`` (``ofa.groups``): units (single channels, heads, channels of a convolution's group) that keep one order wherever they
  occur. Each member says what its tensor does to them: weights that *read* them as their input, the *scale* of a norm over them, or
  anything else that only *follows* their order, such as the weights that make them;
* an ``Observation``: the tensors of the network by those names, and what a batch of images adds, which are the gradients of the loss
  by the weights that read, and the mean squares of what these read.

It gives each unit a score of at least 0, or None for a group that has nothing it goes by, which then keeps its order. Whatever can list
its groups can be ordered: ``observe`` looks at any module whose units are read by its convolutions and linear layers, and others make
their own observations.

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
    """What is known of a network, all by the names of its tensors.

    Attributes:
        tensors: the parameters and buffers themselves.
        gradients: of the loss of one batch by each tensor that reads units, of its shape.
        activations: of each tensor that reads units, the square of each channel that its layer is given, [channels]: the mean over the
            images of one batch, and over their pixels or tokens.
    """

    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)


class Score(Protocol):
    """Scores the units of a group: at least 0, shape [U]; None where the group has nothing to go by."""

    def __call__(self, group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None: ...


@dataclass(frozen=True)
class Importance:
    """A criterion of how much units matter.

    Attributes:
        score: of a group's units; for criteria that need images, the mean over batches counts.
        needs_images: whether it goes by gradients or activations.
    """

    score: Score
    needs_images: bool = False


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with labels, for criteria that need some.

    Attributes:
        batches: images [B, C, H, W] where the network lies, with their labels.
        count: number of batches, for progress.
        loss: of outputs and labels, a scalar.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    count: int
    loss: Callable[[Tensor, Tensor], Tensor]


# -- criteria ---------------------------------------------------------------------------------------------------------


def _summed(group: Group, use: str, values: Callable[[Member], Tensor]) -> Tensor | None:
    """By unit the sum of what the members of one use have; None if there are none.

    What one block has is added first: between channels that are nearly equal the order of additions decides, and runs repeat bit for bit.
    """
    places: dict[str, Tensor] = {}
    for member in group.members:
        if member.use == use:
            values_U = group.by_unit(member, values(member))
            places[member.place] = places[member.place] + values_U if member.place in places else values_U
    return torch.stack(list(places.values())).sum(0) if places else None


def _l1(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """The sum of the magnitudes of the weights that read a unit (Cai et al., ICLR 2020, section 3.3)."""
    return _summed(group, "reads", lambda member: seen.tensors[member.tensor].abs())


def _l2(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """The Euclidean norm of the weights that read a unit."""
    squares_U = _summed(group, "reads", lambda member: seen.tensors[member.tensor].square())
    return None if squares_U is None else squares_U.sqrt()


def _batch_norm(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """The magnitudes of the scales of the batch norms over a unit (Liu et al., "Network Slimming", ICCV 2017)."""
    return _summed(group, "scales", lambda member: seen.tensors[member.tensor].abs())


def _taylor(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """How far the loss moves to first order when a unit is taken away (Molchanov et al., CVPR 2019, for whole units).

    A layer is linear in its weights and in its input, so that the sum of weights times gradients over all that reads a unit is the
    unit's value times the gradient by it. Signs count until the end: what readers gain and lose cancels out.
    """
    changes_U = _summed(group, "reads", lambda member: seen.tensors[member.tensor] * seen.gradients[member.tensor])
    return None if changes_U is None else changes_U.abs()


def _activation(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """The root of the mean squares of a unit's values, over all that read it."""
    squares_U = _summed(group, "reads", lambda member: seen.activations[member.tensor])
    return None if squares_U is None else squares_U.sqrt()


def _random(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """Any order: what others are compared with."""
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
"""The criteria by name: L1 and L2 norm of the weights that read a unit, scale of its batch norms, first-order Taylor expansion of the
loss, norm of its activations, and none at all."""


def _no_images() -> DataError:
    return DataError("importance must be seen on at least one batch of images, but there is none; give images that can be read")


# -- networks ---------------------------------------------------------------------------------------------------------


def score_groups(
    groups: Sequence[Group], importance: Importance, observations: Iterable[Observation], generator: torch.Generator | None = None
) -> list[Tensor | None]:
    """The scores [U] of each group, the mean over all observations; None for groups that the criterion can say nothing of.

    Args:
        groups: of one network.
        importance: the criterion.
        observations: of that network, one a batch.
        generator: of criteria that draw, on the CPU; torch's default one if None.

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
    """Look at a network while it computes images, an observation a batch; the network is afterwards what it was.

    Batch norms normalize each batch by itself, because that is what a smaller network will do once it is calibrated. Gradients that
    have been gathered are not touched.

    Args:
        network: maps images to the outputs that the loss takes; its parameters require gradients.
        groups: of its units, which are read by convolutions and linear layers.
        examples: the images.
        progress: told of every batch.
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
    """Note, by the name of its weights, the mean square of each channel that a layer is given."""
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
    """How far the output of a network moves when one of its blocks is left out; the blocks of the lowest scores can be skipped first.

    The score is the length of the change beside that of the whole network's output, the mean over images. Blocks of language models
    were ranked by the change of their own input (Men et al., "ShortGPT", 2024; Gromov et al., "The Unreasonable Ineffectiveness of
    the Deeper Layers", 2024); here the rest of the network is run as well and says how much of that change matters to it. Batch norms
    normalize each batch by itself, as those of the shorter network will once it is calibrated.

    Args:
        pieces: the network, one after the other, as ``Supernet.pieces`` or ``nn.Sequential`` give them.
        images: held-out batches [B, C, H, W] of at least two images.
        progress: told of every piece and batch.

    Returns:
        a score of each piece, at least 0; None where the output is of another shape than the input, which no network can do without.

    Raises:
        DataError: there are no images, or a batch has one alone.
    """
    if not images:
        raise _no_images()
    if min(map(len, images)) < 2:
        raise DataError(
            "importance of blocks must be seen on batches of at least 2 images, which batch norms need, but one has 1; give more"
        )
    whole = nn.Sequential(*pieces)
    scores: list[float | None] = [None] * len(pieces)
    with normalizing_by_batch(whole):
        for done, batch in enumerate(images):
            x, output = batch.clone(), whole(batch.clone()).flatten(1)  # a piece may write over its input
            for number, piece in enumerate(pieces):
                before, x = x, piece(x.clone())
                if before.shape == x.shape:
                    changed = whole[number + 1 :](before).flatten(1)
                    share = (changed - output).norm(dim=1) / output.norm(dim=1).clamp(min=torch.finfo(output.dtype).tiny)
                    scores[number] = (scores[number] or 0.0) + float(share.mean()) / len(images)
                progress(done * len(pieces) + number + 1, len(images) * len(pieces), "importance of blocks")
    return scores
