"""Training methods of supernets, as phases: progressive shrinking, compound, single stage, and the adoption of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ofa.errors import RecipeError
from ofa.resolution import Resolution
from ofa.space import Gene, Number, Space
from ofa.training.optimizer import suited_optimizer
from ofa.training.phase import Phase

__all__ = ["METHODS", "adopt", "compound", "progressive_shrinking", "single_stage"]

_ADOPTED_RATES = {"sgd": 0.1, "adamw": 0.001}
"""The rates of the best subnets of a ResNet and a ConvNeXt on CIFAR-10, trained at 0.1 and 0.002 (benchmarks/adopted_accuracy.py)."""

Opened = dict[str, tuple[Number, ...]]

# Epochs of the authors' schedule for ImageNet (Cai et al., ICLR 2020, and their train_ofa_net.py): the first of two steps is brief.
_FULL, _KERNEL, _FIRST_STEP, _LAST_STEP = 180, 120, 25, 120
_SHARES = (_FULL, _KERNEL, _FIRST_STEP + _LAST_STEP, _FIRST_STEP + _LAST_STEP)


def progressive_shrinking(
    space: Space,
    *,
    epochs: int,
    learning_rate: float = 0.1,
    shrinking_learning_rate: float = 0.05,
    subnets_per_step: int = 4,
    distillation_weight: float = 1.0,
    first_distillation_weight: float = 0.0,
    warmup_epochs: float = 0.0,
    resolutions: tuple[Resolution, ...] = (),
    sampling: Literal["uniform", "strata", "best-up"] = "uniform",
    sandwich: bool = False,
    teacher: Literal["copy", "in-place"] = "copy",
    shares: tuple[float, float, float, float] = _SHARES,
) -> tuple[Phase, ...]:
    """The phases of Cai et al., "Once-for-All" (ICLR 2020, section 3.3), scaled to a number of epochs.

    The largest network is trained first and becomes the teacher of all later phases. Then kernels become elastic, then depth, then
    width; the input's resolution is elastic throughout. Depth and width open in two steps each if the space has three values of
    them. Before each width step, channels are sorted by importance. A space without elastic kernels (ResNet) has no kernel phase.

    Args:
        space: the supernet's space.
        epochs: epochs of all phases together, divided among them as in the paper, with at least one each.
        learning_rate: learning rate of the first phase.
        shrinking_learning_rate: learning rate of each later phase.
        subnets_per_step: subnets per step in the width phases; kernel phases take a quarter of it, depth phases half.
        distillation_weight: weight of the teacher's soft targets in the later phases; the labels have weight 1.
        first_distillation_weight: the same in the first phase; useful only with a teacher that the recipe names.
        warmup_epochs: warm-up of the first phase, in epochs.
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.
        sampling: how each step's subnets are chosen (``Phase.sampling``).
        sandwich: whether each step trains the largest and the smallest network of the phase, and at least three subnets. Not in the
            paper; it helps where steps are few.
        teacher: ``copy``, as in the paper, is the largest network as the first phase left it; after few epochs it is a weak teacher.
            ``in-place`` is the step's largest network, which goes on learning; it needs ``sandwich``.
        shares: shares of the epochs, in any unit: for the largest network alone, and for opening kernels, depths and widths. The
            paper's are 180, 120, 145 and 145. Where epochs are few, most are needed after everything is open.

    Returns:
        The phases, in order.

    Raises:
        RecipeError: fewer epochs than phases, or shares that are not above 0.
    """
    if min(shares) <= 0:
        raise RecipeError(f"shares must be above 0, but is {list(shares)}; try {list(_SHARES)}", key="shares")
    later = _Later(shrinking_learning_rate, subnets_per_step, distillation_weight, sampling, sandwich, teacher)
    first = _First(learning_rate, warmup_epochs, first_distillation_weight)
    return _phases(_steps(space, shares), epochs, first, later, resolutions)


def compound(
    space: Space,
    *,
    epochs: int,
    learning_rate: float = 0.1,
    shrinking_learning_rate: float = 0.05,
    subnets_per_step: int = 4,
    distillation_weight: float = 1.0,
    first_distillation_weight: float = 0.0,
    warmup_epochs: float = 0.0,
    resolutions: tuple[Resolution, ...] = (),
    sampling: Literal["uniform", "strata", "best-up"] = "uniform",
    sandwich: bool = False,
    teacher: Literal["copy", "in-place"] = "copy",
) -> tuple[Phase, ...]:
    """The phases of CompOFA (Sahni et al., ICLR 2021, section 3): depth and width are coupled.

    A stage's i-th depth is combined only with the i-th width of all its blocks, and kernels stay at their largest. Far fewer networks
    need far fewer epochs: the largest network is trained first and is the teacher, as in progressive shrinking; then depth and width
    open together, in up to two steps. Search the coupled networks only: other networks of the space are not trained.

    Args:
        space: the supernet's space.
        epochs: epochs of all phases together, divided among them as in the paper, with at least one each.
        learning_rate: learning rate of the first phase.
        shrinking_learning_rate: learning rate of each later phase.
        subnets_per_step: subnets per step in the phases after the first.
        distillation_weight: weight of the teacher's soft targets in the later phases; the labels have weight 1.
        first_distillation_weight: the same in the first phase; useful only with a teacher that the recipe names.
        warmup_epochs: warm-up of the first phase, in epochs.
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.
        sampling: how each step's subnets are chosen (``Phase.sampling``).
        sandwich: whether each step trains the largest and the smallest network of the phase, and at least three subnets.
        teacher: ``copy`` is the largest network as the first phase left it, ``in-place`` the step's largest network; ``in-place`` needs
            ``sandwich``.

    Returns:
        The phases, in order.

    Raises:
        RecipeError: fewer epochs than phases.
    """
    depth, width = (_kinds(space)[kind] for kind in ("depth", "width"))
    opened = {**depth, **width}
    steps = [_Step("full", _FULL, 0, {})]
    if _choices(opened) > 2:
        steps.append(_Step("compound-1", _FIRST_STEP, 1.0, {name: values[-2:] for name, values in opened.items()}, reorder=True))
    steps.append(_Step("compound-2" if len(steps) > 1 else "compound", _LAST_STEP, 1.0, opened, reorder=True))
    later = _Later(shrinking_learning_rate, subnets_per_step, distillation_weight, sampling, sandwich, teacher, coupled=True)
    first = _First(learning_rate, warmup_epochs, first_distillation_weight)
    return _phases(steps, epochs, first, later, resolutions)


def single_stage(
    space: Space,
    *,
    epochs: int,
    learning_rate: float = 0.1,
    subnets_per_step: int = 4,
    warmup_epochs: float = 0.0,
    distillation_weight: float = float("inf"),
    divergence: Literal["kl", "alpha"] = "alpha",
    sampling: Literal["uniform", "strata", "best-up"] = "uniform",
    resolutions: tuple[Resolution, ...] = (),
) -> tuple[Phase, ...]:
    """One phase in which all networks learn together (BigNAS, Yu et al., ECCV 2020; AlphaNet, Wang et al., ICML 2021).

    Each step trains the largest network on the labels. The smallest and some others are trained on the largest network's outputs alone
    (in-place distillation). Only the largest network has dropout. Both papers clip gradients: set ``clip_norm`` in the recipe.

    Args:
        space: the supernet's space.
        epochs: epochs of the phase.
        learning_rate: learning rate at the end of the warm-up.
        subnets_per_step: subnets per step, including the largest and the smallest.
        warmup_epochs: epochs, or part of one, in which the learning rate rises.
        distillation_weight: weight of the largest network's outputs; the labels have weight 1. Infinity, as in the papers, leaves the
            labels out; where steps are few, the largest network is too weak a teacher for that.
        divergence: divergence between the largest network's outputs and the others'.
        sampling: how the subnets between the largest and the smallest are chosen (``Phase.sampling``).
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.

    Returns:
        The phase.
    """
    phase = Phase(
        name="single-stage",
        epochs=epochs,
        learning_rate=learning_rate,
        free=_all_free(space),
        resolutions=resolutions,
        subnets_per_step=subnets_per_step,
        sampling=sampling,
        sandwich=True,
        distillation_weight=distillation_weight,
        teacher="in-place",
        divergence=divergence,
        dropout="largest",
        warmup_epochs=warmup_epochs,
    )
    return (phase,)


def adopt(
    space: Space,
    *,
    epochs: int,
    learning_rate: float | None = None,
    subnets_per_step: int = 4,
    warmup_epochs: float = 0.5,
    distillation_weight: float = 1.0,
    features_weight: float = 0.0,
    sampling: Literal["uniform", "strata", "best-up"] = "uniform",
    resolutions: tuple[Resolution, ...] = (),
) -> tuple[Phase, ...]:
    """One phase of few epochs that trains all subnets of an adopted, trained network together.

    Channels are sorted by importance first, so that narrow subnets keep the important ones. Each step trains the largest network on the
    labels and, with ``teacher = "start"`` in the recipe, on the outputs of the network as it was adopted. The smallest and some others
    learn from the labels and from the largest network's outputs.

    Args:
        space: the supernet's space.
        epochs: epochs of the phase.
        learning_rate: learning rate at the end of the warm-up. The network is trained already, so use a fraction of its own training
            rate. The default is 0.1 for SGD or 0.001 for AdamW, by the optimizer that suits the space (``suited_optimizer``).
        subnets_per_step: subnets per step, including the largest and the smallest.
        warmup_epochs: epochs, or part of one, in which the learning rate rises.
        distillation_weight: weight of the teachers' outputs; the labels have weight 1.
        features_weight: weight of the teachers' features before the last block, where a subnet's features have the same shape.
        sampling: how the subnets between the largest and the smallest are chosen (``Phase.sampling``).
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.

    Returns:
        The phase.
    """
    phase = Phase(
        name="adopt",
        epochs=epochs,
        learning_rate=_ADOPTED_RATES[suited_optimizer(space)] if learning_rate is None else learning_rate,
        free=_all_free(space),
        resolutions=resolutions,
        subnets_per_step=subnets_per_step,
        sampling=sampling,
        sandwich=True,
        reorder_channels=True,
        distillation_weight=distillation_weight,
        features_weight=features_weight,
        teacher="in-place",
        warmup_epochs=min(warmup_epochs, epochs),
    )
    return (phase,)


METHODS: Mapping[str, Callable[..., tuple[Phase, ...]]] = MappingProxyType(
    {method.__name__: method for method in (progressive_shrinking, compound, single_stage, adopt)}
)
"""The methods, by the names of their tables in a recipe."""


@dataclass(frozen=True)
class _Step:
    """A phase of a method, and the genes that it opens.

    Attributes:
        name: name of the phase.
        weight: share of the epochs.
        share: share of the subnets per step.
        opened: the values that become free, by gene.
        reorder: whether channels are sorted first.
    """

    name: str
    weight: float
    share: float
    opened: Opened
    reorder: bool = False


@dataclass(frozen=True)
class _First:
    """Settings of the first phase alone."""

    learning_rate: float
    warmup_epochs: float
    distillation_weight: float


@dataclass(frozen=True)
class _Later:
    """Settings of all phases after the first."""

    learning_rate: float
    subnets_per_step: int
    distillation_weight: float
    sampling: Literal["uniform", "strata", "best-up"]
    sandwich: bool
    teacher: Literal["copy", "in-place"]
    coupled: bool = False


def _phases(steps: Sequence[_Step], epochs: int, first: _First, later: _Later, resolutions: tuple[Resolution, ...]) -> tuple[Phase, ...]:
    """The largest network's phase, then one for each further step; opened genes stay open."""
    lengths = _divide(epochs, [step.weight for step in steps])
    alone = Phase(
        name=steps[0].name,
        epochs=lengths[0],
        learning_rate=first.learning_rate,
        resolutions=resolutions,
        distillation_weight=first.distillation_weight,
        warmup_epochs=min(first.warmup_epochs, lengths[0]),
    )
    phases, free = [alone], Opened()
    for step, length in zip(steps[1:], lengths[1:], strict=True):
        free |= step.opened
        phases.append(
            Phase(
                name=step.name,
                epochs=length,
                learning_rate=later.learning_rate,
                free=tuple(Gene(gene, values) for gene, values in free.items()),
                resolutions=resolutions,
                subnets_per_step=max(3 if later.sandwich else 1, round(later.subnets_per_step * step.share)),
                sampling=later.sampling,
                sandwich=later.sandwich,
                coupled=later.coupled,
                reorder_channels=step.reorder,
                distillation_weight=later.distillation_weight,
                teacher=later.teacher,
            )
        )
    return tuple(phases)


def _kinds(space: Space) -> dict[str, Opened]:
    """The values of every gene, by kind: kernel, depth or width."""
    genes = {gene.name: gene.values for gene in [*space.network, *(gene for stage in space.stages for gene in stage.genes)]}
    genes["depth"] = tuple(range(max((len(stage.depths) for stage in space.stages), default=1)))
    kinds: dict[str, Opened] = {"kernel": {}, "depth": {}, "width": {}}
    for name, values in genes.items():
        kinds["kernel" if "kernel" in name else "depth" if "depth" in name else "width"][name] = values
    return kinds


def _all_free(space: Space) -> tuple[Gene, ...]:
    return tuple(Gene(name, values) for kind in _kinds(space).values() for name, values in kind.items())


def _steps(space: Space, shares: tuple[float, float, float, float]) -> list[_Step]:
    """The phases of progressive shrinking, and the genes that each opens."""
    kinds = _kinds(space)
    full, kernel, *later = shares
    steps = [_Step("full", full, 0, {})]
    if _choices(kinds["kernel"]) > 1:
        steps.append(_Step("kernel", kernel, 0.25, kinds["kernel"]))
    for kind, subnets, weight in zip(("depth", "width"), (0.5, 1.0), later, strict=True):
        reorder = kind == "width"
        first = weight * _FIRST_STEP / (_FIRST_STEP + _LAST_STEP)
        if _choices(kinds[kind]) > 2:
            steps.append(_Step(f"{kind}-1", first, subnets, {name: values[-2:] for name, values in kinds[kind].items()}, reorder))
            steps.append(_Step(f"{kind}-2", weight - first, subnets, kinds[kind], reorder))
        elif _choices(kinds[kind]) == 2:
            steps.append(_Step(kind, weight - first, subnets, kinds[kind], reorder))
    return steps


def _choices(genes: Opened) -> int:
    return max(map(len, genes.values()), default=1)


def _divide(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers of at least 1 that sum to ``total``, in proportion to ``weights`` up to rounding."""
    if total < len(weights):
        raise RecipeError(f"there must be an epoch for each of the {len(weights)} phases, but epochs is {total}; raise it", key="epochs")
    shares = [1] * len(weights)
    for _ in range(total - len(weights)):
        # The next epoch goes to the phase that is furthest below its share.
        neediest = max(range(len(weights)), key=lambda i: weights[i] / shares[i])
        shares[neediest] += 1
    return shares
