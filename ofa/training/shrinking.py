"""Progressive shrinking: the largest network first, then one kind of smaller network after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.errors import RecipeError
from ofa.space import Gene, Number, Space
from ofa.training.phase import Phase

__all__ = ["progressive_shrinking"]

# Epochs of the authors' schedule for ImageNet (Cai et al., ICLR 2020, and their train_ofa_net.py): the first of two steps is brief.
_FULL, _KERNEL, _FIRST_STEP, _LAST_STEP = 180, 120, 25, 120


def progressive_shrinking(
    space: Space,
    *,
    epochs: int,
    learning_rate: float = 0.1,
    shrinking_learning_rate: float = 0.05,
    subnets_per_step: int = 4,
    distillation_weight: float = 1.0,
    warmup_epochs: float = 0.0,
    resolutions: tuple[int, ...] = (),
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
        warmup_epochs: of the first phase.
        resolutions: sides of the input in pixels; empty for all of the space.

    Raises:
        RecipeError: fewer epochs than phases.
    """
    steps = _steps(space)
    lengths = _divide(epochs, [weight for _, weight, _, _ in steps])
    phases = []
    free: dict[str, tuple[Number, ...]] = {}
    for position, ((name, _, share, opened), length) in enumerate(zip(steps, lengths, strict=True)):
        free |= opened
        phases.append(
            Phase(
                name=name,
                epochs=length,
                learning_rate=shrinking_learning_rate if position else learning_rate,
                free=tuple(Gene(gene, values) for gene, values in free.items()),
                resolutions=resolutions,
                subnets_per_step=max(1, round(subnets_per_step * share)) if position else 1,
                reorder_channels=name.startswith("width"),
                distillation_weight=distillation_weight if position else 0.0,
                warmup_epochs=0.0 if position else min(warmup_epochs, length),
            )
        )
    return tuple(phases)


def _steps(space: Space) -> list[tuple[str, int, float, dict[str, tuple[Number, ...]]]]:
    """Each phase's name, weight in epochs, share of the subnets per step, and the values that it opens."""
    genes = {gene.name: gene.values for gene in [*space.network, *(gene for stage in space.stages for gene in stage.genes)]}
    genes["depth"] = tuple(range(max(len(stage.depths) for stage in space.stages)))
    kinds: dict[str, dict[str, tuple[Number, ...]]] = {"kernel": {}, "depth": {}, "width": {}}
    for name, values in genes.items():
        kinds["kernel" if "kernel" in name else "depth" if "depth" in name else "width"][name] = values
    steps: list[tuple[str, int, float, dict[str, tuple[Number, ...]]]] = [("full", _FULL, 0, {})]
    if _choices(kinds["kernel"]) > 1:
        steps.append(("kernel", _KERNEL, 0.25, kinds["kernel"]))
    for kind, share in (("depth", 0.5), ("width", 1.0)):
        if _choices(kinds[kind]) > 2:
            steps.append((f"{kind}-1", _FIRST_STEP, share, {name: values[-2:] for name, values in kinds[kind].items()}))
            steps.append((f"{kind}-2", _LAST_STEP, share, kinds[kind]))
        elif _choices(kinds[kind]) == 2:
            steps.append((kind, _LAST_STEP, share, kinds[kind]))
    return steps


def _choices(genes: dict[str, tuple[Number, ...]]) -> int:
    return max(map(len, genes.values()), default=1)


def _divide(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers of at least 1 that sum to ``total``, in proportion to ``weights`` to rounding."""
    if total < len(weights):
        raise RecipeError(f"progressive shrinking needs an epoch for each of its {len(weights)} phases, but epochs is {total}; raise it")
    shares = [1] * len(weights)
    for _ in range(total - len(weights)):
        # The next epoch goes where it is missed most.
        neediest = max(range(len(weights)), key=lambda i: weights[i] / shares[i])
        shares[neediest] += 1
    return shares
