"""The methods of training a supernet, as phases: progressive shrinking, compound, and a single stage."""

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
"""What gave the best parts of a ResNet and a ConvNeXt on CIFAR-10 (benchmarks/adopted_accuracy.py), whose own rates were 0.1 and 0.002."""

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

    The largest network is trained first and becomes the teacher of all that follow. Then the kernels become elastic, then
    the depth, then the width, with the input's resolution elastic throughout. Depth and width open in two steps where a
    space has three values of them; before each step of the width, channels are put in the order of their importance.
    A space without elastic kernels (ResNet) has no such phase.

    Args:
        space: what the supernet contains.
        epochs: of all phases together, divided among them as in the paper, with at least one each.
        learning_rate: of the first phase.
        shrinking_learning_rate: of each later phase.
        subnets_per_step: in the width phases; a quarter of it while the kernel opens and half of it while the depth does.
        distillation_weight: of the teacher's soft targets, beside the labels' weight of 1.
        first_distillation_weight: the same in the first phase, where only a teacher that the recipe names can know anything.
        warmup_epochs: of the first phase.
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.
        sampling: how each step's subnets are chosen.
        sandwich: whether the largest and the smallest network of a phase are among the subnets of each step, which then are at
            least three. Not in the paper; it helps where steps are few.
        teacher: ``copy``, as in the paper, is the largest network as the first phase left it. After few epochs that knows little:
            ``in-place`` is the largest network as it answers in the same step, where it goes on to learn; it needs ``sandwich``.
        shares: of the epochs, in any unit: for the largest network alone, and for opening kernels, depths and widths. The paper's
            are 180, 120, 145 and 145; where epochs are few most are needed once everything is open.

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
    """The phases of CompOFA (Sahni et al., ICLR 2021, section 3): depth and width open together, and only together.

    A stage's i-th depth goes with the i-th width of all its blocks, and kernels stay at their largest. Far fewer networks need
    far fewer epochs: the largest network is the teacher, as in progressive shrinking, and one phase of two steps follows.
    Search the coupled networks only: the others of the space are not trained.

    Args:
        space: what the supernet contains.
        epochs: of all phases together, divided among them as in the paper, with at least one each.
        learning_rate: of the first phase.
        shrinking_learning_rate: of each later phase.
        subnets_per_step: in the phases after the first.
        distillation_weight: of the teacher's soft targets, beside the labels' weight of 1.
        first_distillation_weight: the same in the first phase, where only a teacher that the recipe names can know anything.
        warmup_epochs: of the first phase.
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.
        sampling: how each step's subnets are chosen.
        sandwich: whether the largest and the smallest network of a phase are among the subnets of each step, which then are at
            least three.
        teacher: ``copy`` is the largest network as the first phase left it, ``in-place`` the largest network as it answers in the same
            step; it needs ``sandwich``.

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

    Each step trains the largest network on the labels, and the smallest and some others on the largest network's answers alone.
    Dropout is for the largest network only. Both papers clip gradients: set ``clip_norm`` in the recipe.

    Args:
        space: what the supernet contains.
        epochs: of the phase.
        learning_rate: at the end of the warm-up.
        subnets_per_step: the largest and the smallest among them.
        warmup_epochs: epochs, or part of one, in which the learning rate rises.
        distillation_weight: of the largest network's answers beside the labels' weight of 1; infinity, as in the papers, leaves the
            labels out. Where steps are few the largest network knows too little for that.
        divergence: between the largest network's answers and the others'.
        sampling: how the subnets between the largest and the smallest are chosen.
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.
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
    """One phase in which all parts of a trained network learn together, for few epochs.

    Channels are put in the order of their importance first, so that the parts keep those that matter. Each step trains the largest
    network on the labels and, with ``teacher = "start"`` in the recipe, on the answers of the network as it came; the smallest and some
    others learn from the labels and from the largest network's answers.

    Args:
        space: what the supernet contains.
        epochs: of the phase.
        learning_rate: at the end of the warm-up; the network is trained already, so a fraction of what it was trained with. By default
            0.1 or 0.001, for SGD or AdamW, whichever suits the space (``suited_optimizer``).
        subnets_per_step: the largest and the smallest among them.
        warmup_epochs: epochs, or part of one, in which the learning rate rises.
        distillation_weight: of the teachers' answers beside the labels' weight of 1.
        features_weight: of the teachers' features before the last block, where a subnet's have the same shape.
        sampling: how the subnets between the largest and the smallest are chosen.
        resolutions: height and width of the input in pixels, such as 224 or "224x160"; empty for all of the space.
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
"""By the name of its table in a recipe: what makes the phases."""


@dataclass(frozen=True)
class _Step:
    """What a phase opens.

    Attributes:
        name: of the phase.
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
    """What the first phase has for itself."""

    learning_rate: float
    warmup_epochs: float
    distillation_weight: float


@dataclass(frozen=True)
class _Later:
    """What all phases after the first have in common."""

    learning_rate: float
    subnets_per_step: int
    distillation_weight: float
    sampling: Literal["uniform", "strata", "best-up"]
    sandwich: bool
    teacher: Literal["copy", "in-place"]
    coupled: bool = False


def _phases(steps: Sequence[_Step], epochs: int, first: _First, later: _Later, resolutions: tuple[Resolution, ...]) -> tuple[Phase, ...]:
    """The largest network's phase, then one for each further step, all that was opened before staying open."""
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
    """The values of every gene, by whether it is about kernels, depths or widths."""
    genes = {gene.name: gene.values for gene in [*space.network, *(gene for stage in space.stages for gene in stage.genes)]}
    genes["depth"] = tuple(range(max((len(stage.depths) for stage in space.stages), default=1)))
    kinds: dict[str, Opened] = {"kernel": {}, "depth": {}, "width": {}}
    for name, values in genes.items():
        kinds["kernel" if "kernel" in name else "depth" if "depth" in name else "width"][name] = values
    return kinds


def _all_free(space: Space) -> tuple[Gene, ...]:
    return tuple(Gene(name, values) for kind in _kinds(space).values() for name, values in kind.items())


def _steps(space: Space, shares: tuple[float, float, float, float]) -> list[_Step]:
    """What each phase of progressive shrinking opens."""
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
    """Whole numbers of at least 1 that sum to ``total``, in proportion to ``weights`` to rounding."""
    if total < len(weights):
        raise RecipeError(f"there must be an epoch for each of the {len(weights)} phases, but epochs is {total}; raise it", key="epochs")
    shares = [1] * len(weights)
    for _ in range(total - len(weights)):
        # The next epoch goes where it is missed most.
        neediest = max(range(len(weights)), key=lambda i: weights[i] / shares[i])
        shares[neediest] += 1
    return shares
