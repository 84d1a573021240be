"""The space of an adopted model: its traced program in blocks, and its elastic sizes. Created by ``ofa.adopt`` (``ofa.adopting``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ofa.arch import Arch, Genes
from ofa.blocks import PlacedBlock, Shape, TracedBlock
from ofa.blocks.code import parse_code
from ofa.errors import SpaceError
from ofa.families.placing import Placer, input_shape
from ofa.space import Space

__all__ = ["SHARES", "AdoptedBlock", "AdoptedSpace", "ElasticSize"]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Default shares of a model's channels and heads that networks may keep."""

CLASSES = "classes"
"""Name of the size that is the number of classes."""
_PLACE = re.compile(r"(?:stem|head|stages\.(?P<stage>\d{1,9}))\.\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class ElasticSize:
    """An elastic size of the model: a number of channels or heads.

    Attributes:
        name: the first tensor and dimension that have the size; or ``classes``.
        units: number of channels or heads in the original model.
        multiple: smaller networks keep a multiple of this number.
        gene: the gene that chooses the share of units to keep; empty for the classes, and for sizes that every share rounds to the same.
    """

    name: str
    units: int
    multiple: int
    gene: str

    def kept(self, share: float) -> int:
        """The number of units to keep for a share in (0, 1]."""
        if share >= 1:
            return self.units
        return min(self.units, max(self.multiple, round(self.units * share / self.multiple) * self.multiple))


@dataclass(frozen=True)
class AdoptedBlock:
    """A block of the model.

    Attributes:
        place: in networks, such as ``stages.1.0``. In a stage, the last number is the block's rank: the highest rank is skipped first.
        code: index of its code.
        sizes: for each axis of the code, the index of its size.
        origin: prefix of its tensors' names in the model.
    """

    place: str
    code: int
    sizes: tuple[int, ...]
    origin: str

    @property
    def stage(self) -> tuple[int, int] | None:
        """(stage, rank) of the block; None for a block that all networks have."""
        kind, *numbers = self.place.split(".")
        return (int(numbers[0]), int(numbers[1])) if kind == "stages" else None


@dataclass(frozen=True, kw_only=True)
class AdoptedSpace(Space):
    """All networks that can be cut out of an adopted model.

    Attributes:
        codes: code of blocks (``ofa.blocks.code``), as lines; blocks with the same computation share one code.
        sizes: the elastic sizes.
        blocks: in execution order.

    Raises:
        SpaceError: sizes, places or blocks are inconsistent.
    """

    codes: tuple[tuple[str, ...], ...]
    sizes: tuple[ElasticSize, ...]
    blocks: tuple[AdoptedBlock, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        genes = set(self.gene_names)
        for size in self.sizes:
            if size.units < 1 or size.multiple < 1 or size.gene not in genes | {""}:
                raise SpaceError(
                    f"{self.name}: a size must have units and a gene of the space, but {size.name} has {size.units} and '{size.gene}'; "
                    "adopt the model anew"
                )
        self._check_places()
        for block in self.blocks:
            fits = 0 <= block.code < len(self.codes) and all(0 <= number < len(self.sizes) for number in block.sizes)
            if not fits or len(parse_code(self._texts[block.code]).axes) != len(block.sizes):
                raise SpaceError(
                    f"{self.name}: a block must have a code and a size for each of its axes, but {block.place} has not; adopt it anew"
                )

    def _check_places(self) -> None:
        counts = Counter(block.place for block in self.blocks)
        needed = [f"stages.{number}.{rank}" for number, stage in enumerate(self.stages) for rank in range(stage.depths[-1])]
        wrong = [place for place, count in counts.items() if count > 1 or not self._is_place(place)]
        wrong += [place for place in needed if place not in counts]
        if wrong:
            raise SpaceError(
                f"{self.name}: blocks must be in the stem, the head and every place of the stages, one at each place, but this fails at "
                f"'{wrong[0][:60]}'; adopt the model anew"
            )

    def _is_place(self, place: str) -> bool:
        found = _PLACE.fullmatch(place)
        return found is not None and int(found["stage"] or -1) < len(self.stages)

    @cached_property
    def has_constants(self) -> bool:
        """Whether the model has constants: tensors that are neither trained nor running statistics, such as a table of positions."""
        return any(each.kind == "Buffer" for text in self._texts for each in parse_code(text).declared.values())

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple("\n".join(lines) for lines in self.codes)

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        placer, shape = Placer(self, arch), input_shape(self, arch)
        for block in self.blocks:
            genes = self._genes_of(block, arch)
            if genes is not None:
                traced = self._built(block, arch.network, genes, shape)
                placer.place(block.place, traced)
                shape = traced.output(shape)
        return placer.placed

    def _genes_of(self, block: AdoptedBlock, arch: Arch) -> Genes | None:
        """The block's genes; None if the network skips the block."""
        if block.stage is None:
            return Genes()
        stage, rank = block.stage
        return arch.stages[stage][rank] if rank < len(arch.stages[stage]) else None

    def _built(self, block: AdoptedBlock, network: Genes, genes: Genes, shape: Shape) -> TracedBlock:
        lengths = tuple(self._units(self.sizes[number], network, genes) for number in block.sizes)
        key = (block.code, lengths, shape)
        found = self._known.get(key)
        if found is None:
            outline = TracedBlock(in_channels=shape.channels, out_channels=1, code=self._texts[block.code], sizes=lengths)
            channels = outline.output(shape).channels
            found = TracedBlock(in_channels=shape.channels, out_channels=channels, code=self._texts[block.code], sizes=lengths)
            self._known[key] = found
        return found

    @cached_property
    def _known(self) -> dict[tuple[int, tuple[int, ...], Shape], TracedBlock]:
        return {}

    def _units(self, size: ElasticSize, network: Genes, genes: Genes) -> int:
        if size.name == CLASSES:
            return self.num_classes
        return size.kept(genes.get(size.gene, network.get(size.gene, 1.0)))

    def ties(self) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
        """Pairs of (place, axis) with the same channels."""
        first: dict[int, tuple[str, str]] = {}
        for block in self.blocks:
            for axis, number in zip(parse_code(self._texts[block.code]).axes, block.sizes, strict=True):
                member = (block.place, axis)
                yield first.setdefault(number, member), member
