"""Main effects of genes as a heat map of stages and slots."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.resolution import Resolution, resolution_to_json
from ofa.space import Number, Space
from search.front.columns import figures
from search.report.genes import Effect, Effects

__all__ = ["LEVELS", "Cell", "HeatMap", "heat_map"]

LEVELS = 10
"""Number of colour levels; level 0 has no colour."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The cell of one gene.

    Attributes:
        text: size of its effect as text; empty for a gene with only one value.
        level: colour level, 0 to ``LEVELS - 1``.
        title: tooltip with the effect of each of its values.
        size: size of its effect as a number.
    """

    text: str = ""
    level: int = 0
    title: str = ""
    size: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """The main effects on one number.

    Attributes:
        words: name of the number, such as ``accuracy``.
        unit: unit of the effects.
        explained: cross-validated share of the variance explained.
        networks: number of networks.
        columns: column headings: each kind of gene with its number of slots.
        stages: rows of cells by stage, one cell for each column and slot.
        others: cells of genes without stage by name, such as the resolution.
    """

    words: str
    unit: str
    explained: float
    networks: int
    columns: tuple[tuple[str, int], ...]
    stages: tuple[tuple[Cell, ...], ...]
    others: tuple[tuple[str, Cell], ...]

    @property
    def facts(self) -> list[tuple[str, list[str]]]:
        """Every gene in words, with the effect of each of its values."""
        cells = [*(cell for _, cell in self.others), *(cell for row in self.stages for cell in row)]
        lines = [cell.title.split("\n") for cell in cells if cell.title]
        return [(words, values) for words, *values in lines]


def heat_map(space: Space, effects: Effects, *, words: str, unit: str, scale: float) -> HeatMap:
    """Arrange the effects in a heat map.

    Args:
        space: the space of the genes.
        effects: main effects on a number.
        words: name of the number.
        unit: display unit.
        scale: the display unit in the number's own units.
    """
    kinds = tuple(dict.fromkeys(gene.name for stage in space.stages for gene in stage.genes))
    slots = max(stage.depths[-1] for stage in space.stages)
    # All cells have equally many decimals, so that they compare; more if the numbers are small in their unit, so that few become zero.
    largest = effects.largest / scale
    decimals = len(figures(largest, 2 if largest >= 0.1 else 3).partition(".")[2])

    def cell(name: str) -> Cell:
        effect = effects.by_gene.get(name)
        return Cell() if effect is None else _cell(effect, effects.largest, decimals, unit, scale)

    def row(stage: int) -> tuple[Cell, ...]:
        genes = [f"stages.{stage}.{slot}.{kind}" for kind in kinds for slot in range(slots)]
        return tuple(map(cell, [f"stages.{stage}.depth", *genes]))

    named = ["resolution", *(gene.name for gene in space.network)]
    return HeatMap(
        words=words,
        unit=unit,
        explained=effects.explained,
        networks=effects.networks,
        columns=(("depth", 1), *((kind, slots) for kind in kinds)),
        stages=tuple(map(row, range(len(space.stages)))),
        others=tuple((name.replace("_", " "), cell(name)) for name in named),
    )


def _cell(effect: Effect, largest: float, decimals: int, unit: str, scale: float) -> Cell:
    level = round((LEVELS - 1) * effect.size / largest) if largest else 0
    facts = [f"{_text(value)}: {delta / scale:+.3g} {unit}, in {share:.0%} of networks" for value, share, delta in effect.values]
    size = effect.size / scale
    return Cell(text=f"{size:.{decimals}f}", level=level, title="\n".join([_words(effect.gene), *facts]), size=size)


def _text(value: Number | Resolution) -> str:
    return str(resolution_to_json(value)) if isinstance(value, tuple) else f"{value:g}"


def _words(gene: str) -> str:
    parts = gene.split(".")
    if parts[0] != "stages":
        return gene.replace("_", " ")
    stage = f"stage {int(parts[1]) + 1}"
    return f"depth of {stage}" if parts[2] == "depth" else f"{parts[3]} of {stage}, block {int(parts[2]) + 1}"
