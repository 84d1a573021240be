"""The page of a latency table: latencies of its blocks, and its accuracy on whole networks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latency_tables import LatencyTable
from latency_tables.table import row_key
from ofa.errors import SpaceError
from ofa.inventory import NOTHING, inventory_of
from ofa.resolution import Resolution, ascending, parse_resolution, pixels, resolution_to_json
from ofa.schema import to_json
from search.front.columns import figures
from search.report.charts import axis, chart, layer
from search.report.measured import calibration_of, classes_of, residuals_of
from search.report.measured_charts import measured_chart, residuals_chart, summary_of
from search.report.page import Page
from search.report.provenance import groups_of

__all__ = ["table_page"]

_SECTIONS = (("blocks", "Blocks"), ("measured", "Whole networks"), ("slowest", "Slowest blocks"), ("provenance", "Provenance"))
_SLOWEST = 15
_STYLES = {1: "grey", 3: "s5", 5: "s0", 7: "s3"}
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A block and its latency."""

    kind: str
    channels: str
    kernel: int
    input_size: Resolution
    median_ms: float
    p90_ms: float

    @property
    def text(self) -> str:
        kernel = f"\nkernel {self.kernel}×{self.kernel}" if self.kernel else ""
        spread = f"\n90 % of calls within {figures(self.p90_ms)} ms" if math.isfinite(self.p90_ms) else ""
        return f"{self.kind} {self.channels} at {pixels(self.input_size)}{kernel}\n{figures(self.median_ms)} ms{spread}"


def table_page(table: LatencyTable, *, title: str | None = None) -> Page:
    """The page of a table.

    Args:
        table: the table.
        title: title of the page; None for its device and spaces.
    """
    blocks, info = _blocks(table), table.info
    spaces = ", ".join(info.spaces)
    compared, left = calibration_of(table), residuals_of(info)
    charts = {"blocks-size": _size_chart(blocks), **_place_charts(table, blocks)}
    if compared is not None:
        charts["measured-0"] = measured_chart(compared)
    if left is not None:
        charts["residuals-0"] = residuals_chart(left)
    groups = groups_of({key: value for key, value in to_json(info).items() if key != "networks"}, "Table")
    return Page(
        template="table.html",
        title=title or f"Latency of {spaces} on {table.device_name}",
        facts=_facts(table, blocks),
        sections=_SECTIONS,
        data={"kind": "table", "charts": charts},
        content={
            "charts": charts,
            "left": left,
            "summaries": [] if compared is None else [summary_of(compared)],
            "slowest": _slowest(blocks),
            "estimated": info.estimated is not None,
            "imported": bool(info.sources),
            "groups": [(heading.capitalize(), rows) for heading, rows in groups],
            "command": None,
        },
    )


def _blocks(table: LatencyTable) -> list[_Block]:
    columns = [table.rows[name].tolist() for name in ("median_ms", "p90_ms")]
    return [
        _block(json.loads(text), parse_resolution(sides), float(median), float(p90))
        for (text, *sides), median, p90 in zip(table.keys, *columns, strict=True)
    ]


def _block(fields: Mapping[str, Any], size: Resolution, median_ms: float, p90_ms: float) -> _Block:
    middle = [fields["mid_channels"]] if "mid_channels" in fields else []
    channels = " → ".join(map(str, [fields["in_channels"], *middle, fields["out_channels"]]))
    kind, kernel = str(fields["kind"]).replace("_", " "), int(fields.get("kernel", 0))
    return _Block(kind=kind, channels=channels, kernel=kernel, input_size=size, median_ms=median_ms, p90_ms=p90_ms)


def _facts(table: LatencyTable, blocks: Sequence[_Block]) -> tuple[tuple[str, str], ...]:
    info, correction = table.info, table.correction
    sizes = ascending(size for each in info.spaces.values() for size in each)
    latencies = [block.median_ms for block in blocks]
    interval = "none yet" if correction is None else f"±{correction.half_width:.1%} from {correction.nets} networks"
    facts = (
        ("blocks", f"{len(blocks):,}"),
        ("a block takes", f"{figures(min(latencies))} .. {figures(max(latencies))} ms" if latencies else ""),
        ("conditions", table.conditions.words),
        ("resolutions", " .. ".join(pixels(size) for size in dict.fromkeys((*sizes[:1], *sizes[-1:])))),
        ("interval", interval),
        ("imported" if info.sources else "measured", (info.date or "")[:10]),
    )
    return tuple((name, text) for name, text in facts if text)


def _by_kernel(placed: Sequence[tuple[int, _Block]]) -> list[Json]:
    """One layer of points for each kernel size, from blocks with their position on the horizontal axis."""
    layers = []
    for kernel in sorted({block.kernel for _, block in placed}):
        own = [(at, block) for at, block in placed if block.kernel == kernel]
        words, style = f"kernel {kernel}×{kernel}" if kernel else "no kernel", _STYLES.get(kernel, "s2")
        x, y, texts = [at for at, _ in own], [block.median_ms for _, block in own], [block.text for _, block in own]
        layers.append(layer("dots", x, y, words=words, style=style, texts=texts))
    return layers


def _size_chart(blocks: Sequence[_Block]) -> Json:
    sizes = ascending(block.input_size for block in blocks)
    x = axis("input size of the block, px", ticks=[(i, str(resolution_to_json(size))) for i, size in enumerate(sizes)])
    y = axis("median latency", "ms", zero=True)
    return chart("By input size and kernel", x, y, _by_kernel([(sizes.index(block.input_size), block) for block in blocks]))


def _place_charts(table: LatencyTable, blocks: Sequence[_Block]) -> dict[str, Json]:
    """For each space at its largest resolution, the latencies of all blocks that are possible at each position."""
    known = dict(zip(table.keys, blocks, strict=True))
    charts = {}
    for number, name in enumerate(table.info.spaces):
        resolutions = table.info.resolutions_of(name)
        try:
            space = table.info.space_of(name, classes_of(table))
        except SpaceError:  # the space's class is not imported, so its positions are unknown
            continue
        if not resolutions:
            continue
        inventory = inventory_of(space.restrict(resolution=[resolutions[-1]]))
        placed = []
        for at, place in enumerate(inventory.places):
            options = [inventory.blocks[i] for i in np.unique(place.blocks).tolist() if i != NOTHING]
            found = [known.get(row_key(each)) for each in options]
            placed += [(at, block) for block in found if block is not None]
        ticks = [(at, place.name.replace("stages.", "")) for at, place in enumerate(inventory.places)]
        x, y = axis("place in the network (stage.block)", ticks=ticks), axis("median latency", "ms", zero=True)
        charts[f"place-{number}"] = chart(f"By place, {name} at {pixels(resolutions[-1])}", x, y, _by_kernel(placed))
    return charts


def _slowest(blocks: Sequence[_Block]) -> list[tuple[str, ...]]:
    rows = sorted(blocks, key=lambda block: -block.median_ms)[:_SLOWEST]
    return [(row.kind, row.channels, _kernel(row), pixels(row.input_size), f"{figures(row.median_ms)} ms") for row in rows]


def _kernel(block: _Block) -> str:
    return f"{block.kernel}×{block.kernel}" if block.kernel else ""
