"""Subnet settings of MIT's once-for-all package: ``{"ks", "e", "d"}``; for ResNets ``{"d", "e", "w"}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any

from ofa.arch import Arch, Genes
from ofa.errors import ArchError
from ofa.families import ResNetSpace
from ofa.interop.mit_keys import mit_class
from ofa.space import Gene, Space

__all__ = ["arch", "config"]

Number = int | float
Settings = Mapping[str, Any]


def arch(space: Space, settings: Settings, resolution: int) -> Arch:
    """The arch that MIT's ``set_active_subnet`` activates for the same settings.

    MobileNetV3 and ProxylessNAS: ``ks`` and ``e`` have one value per slot (20 and 21 slots; values of skipped blocks are ignored).
    ``d`` has one value per stage (5; for ProxylessNAS 5 or 6, as its last stage always has one block).

    ResNets: ``e`` has one value per slot (18). ``d`` is the stem's value, of which the largest keeps all convolutions of the stem, and
    then for each stage the number of blocks above the stage's minimum. ``w`` are indices into the width multipliers: inner stem, stem,
    then the stages.

    A single value instead of a list applies to all slots or stages. Other keys are ignored, as in the package.

    Args:
        space: of the arch.
        settings: MIT's dictionary.
        resolution: side of the square input in pixels.

    Raises:
        ArchError: a key is missing, a list has the wrong length, or a value is not among the space's choices.
        SpaceError: MIT's package has no such family.
    """
    mit_class(space)
    resnet = isinstance(space, ResNetSpace)
    depths = _resnet_depths(space, settings) if resnet else _depths(space, settings)
    slots = sum(stage.depths[-1] for stage in space.stages)
    names = {"expand": "e"} if resnet else {"kernel": "ks", "expand": "e"}
    columns = {gene: iter(_values(settings, key, slots, "a block")) for gene, key in names.items()}
    stages = []
    for s, (stage, depth) in enumerate(zip(space.stages, depths, strict=True)):
        if depth not in stage.depths:
            raise ArchError(
                f"the depth of stages.{s} must be one of {list(stage.depths)} in {space.name}, but got {depth}; choose one of them"
            )
        blocks = [Genes({gene.name: _known(gene, next(columns[gene.name])) for gene in stage.genes}) for _ in range(stage.depths[-1])]
        stages.append(tuple(blocks[:depth]))
    network = _resnet_genes(space, settings) if isinstance(space, ResNetSpace) else Genes()
    chosen = Arch(space.name, int(resolution), tuple(stages), network)
    space.check(chosen)
    return chosen


def config(space: Space, arch: Arch) -> dict[str, list[Number]]:
    """MIT's settings of an arch; ``arch`` converts them back to the same arch.

    Slots of skipped blocks get the largest values, as in MIT's largest network.

    Raises:
        ArchError: ``arch`` is not a point of ``space``.
        SpaceError: MIT's package has no such family.
    """
    mit_class(space)
    space.check(arch)
    settings: dict[str, list[Number]] = {}
    for name, key in (("kernel", "ks"), ("expand", "e")):
        column: list[Number] = []
        for stage, blocks in zip(space.stages, arch.stages, strict=True):
            for gene in (gene for gene in stage.genes if gene.name == name):
                column += [block[name] for block in blocks] + [gene.values[-1]] * (stage.depths[-1] - len(blocks))
        if column:
            settings[key] = column
    settings["d"] = [len(blocks) for blocks in arch.stages]
    if isinstance(space, ResNetSpace):
        stem = _most_added(space) if arch.network["stem_depth"] == 3 else 0
        settings["d"] = [stem, *(len(blocks) - stage.depths[0] for stage, blocks in zip(space.stages, arch.stages, strict=True))]
        settings["w"] = [space.multipliers.index(arch.network[gene.name]) for gene in _width_genes(space)]
    return settings


def _depths(space: Space, settings: Settings) -> list[int]:
    stages, given = space.stages, settings.get("d")
    if isinstance(given, Sized) and not isinstance(given, str) and len(given) == len(stages) - 1 and len(stages[-1].depths) == 1:
        settings = {"d": [*_values(settings, "d", len(stages) - 1, "a stage"), stages[-1].depths[0]]}
    depths = [_whole(value, "d") for value in _values(settings, "d", len(stages), "a stage")]
    deepest = max(stage.depths[-1] for stage in stages)
    # The package limits a depth to the stage's number of blocks, so that one value can apply to all stages.
    return [min(depth, stage.depths[-1]) if depth <= deepest else depth for depth, stage in zip(depths, stages, strict=True)]


def _resnet_depths(space: Space, settings: Settings) -> list[int]:
    added = [_whole(value, "d") for value in _values(settings, "d", len(space.stages) + 1, "the stem and each stage")]
    return [stage.depths[0] + more for stage, more in zip(space.stages, added[1:], strict=True)]


def _resnet_genes(space: ResNetSpace, settings: Settings) -> Genes:
    stem = _whole(_values(settings, "d", len(space.stages) + 1, "the stem and each stage")[0], "d")
    if not 0 <= stem <= _most_added(space):
        raise ArchError(
            f"the stem's d must be within 0..{_most_added(space)} in {space.name}, but is {stem}; the largest keeps all of the stem"
        )
    genes = _width_genes(space)
    network: dict[str, Number] = {"stem_depth": 3 if stem == _most_added(space) else 2}
    for gene, value in zip(genes, _values(settings, "w", len(genes), "the inner stem, the stem and each stage"), strict=True):
        index = _whole(value, "w")
        if not 0 <= index < len(space.multipliers):
            raise ArchError(
                f"w must be indices into the width multipliers {list(space.multipliers)}, but {gene.name} has {index}; count from 0"
            )
        # If several multipliers round to the same channels, the gene has only the smallest of them.
        network[gene.name] = max((value for value in gene.values if value <= space.multipliers[index]), default=gene.values[0])
    return Genes(network)


def _width_genes(space: Space) -> list[Gene]:
    return [gene for gene in space.network if gene.name.endswith("width")]


def _most_added(space: Space) -> int:
    return max(stage.depths[-1] - stage.depths[0] for stage in space.stages)


def _values(settings: Settings, key: str, count: int, each: str) -> list[Any]:
    """The ``count`` values of a key; a single value is repeated."""
    if key not in settings:
        raise ArchError(f"MIT's settings must have the key '{key}', but have {sorted(settings)}; give a value for {each}")
    given = settings[key]
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given] * count
    if len(values) != count:
        raise ArchError(f"'{key}' must have {count} values, one for {each}, but has {len(values)}; fill the slots of skipped blocks too")
    return values


def _known(gene: Gene, value: Any) -> Any:
    """The gene's value that equals ``value``, so that 3.0 or NumPy's 3 becomes 3; an unknown value is returned for the later check."""
    return next((own for own in gene.values if own == value), value)


def _whole(value: Any, key: str) -> int:
    try:
        whole = int(value)
    except (TypeError, ValueError):
        whole = None
    if whole is None or whole != value:
        raise ArchError(f"'{key}' must hold whole numbers, but has {value!r}; give depths and width indices as integers")
    return whole
