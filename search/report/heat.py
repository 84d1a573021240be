"""Effects of genes as a table of stages and slots, with a level of colour for each cell."""

from __future__ import annotations

from dataclasses import dataclass

from ofa.resolution import Resolution, resolution_to_json
from ofa.space import Number, Space
from search.front.columns import figures
from search.report.genes import Effect, Effects

__all__ = ["LEVELS", "Cell", "HeatMap", "heat_map"]

LEVELS = 10
"""Levels of colour; 0 is none."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One gene's place in the table.

    Attributes:
        text: its size; empty where there is nothing to choose.
        level: of colour, 0 to ``LEVELS - 1``.
        title: what each of its values does.
        size: the same as a number.
    """

    text: str = ""
    level: int = 0
    title: str = ""
    size: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """The effects on one number.

    Attributes:
        words: the number, such as ``accuracy``.
        unit: of the sizes.
        explained: share of the variance explained in networks not fitted to.
        networks: how many they are of.
        columns: headings: each kind of gene with the number of its slots.
        stages: by stage one cell a column and slot.
        others: genes of no stage by name, such as the resolution.
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
        """Every gene in words, with what each of its values does."""
        cells = [*(cell for _, cell in self.others), *(cell for row in self.stages for cell in row)]
        lines = [cell.title.split("\n") for cell in cells if cell.title]
        return [(words, values) for words, *values in lines]


def heat_map(space: Space, effects: Effects, *, words: str, unit: str, scale: float) -> HeatMap:
    """Lay the effects out.

    Args:
        space: whose genes they are.
        effects: of a number.
        words: its name.
        unit: in which they are shown.
        scale: how many of the number's own units that is.
    """
    kinds = tuple(dict.fromkeys(gene.name for stage in space.stages for gene in stage.genes))
    slots = max(stage.depths[-1] for stage in space.stages)
    # The same for all cells, which are there to be compared; more for numbers that are small in their unit, so that few become zero.
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
