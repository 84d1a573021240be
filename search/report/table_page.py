"""The page of a latency table: what its blocks take, and how well it knows whole networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from latency_tables import LatencyTable
from latency_tables.inventory import inventory_of
from latency_tables.table import block_key
from ofa.families import get_space, space_names
from search.quantities import figures
from search.report.charts import axis, chart, layer
from search.report.measured import calibration_of, classes_of, residuals_of
from search.report.measured_charts import measured_chart, residuals_chart, summary_of
from search.report.page import Page
from search.report.provenance import command_of, groups_of

__all__ = ["blocks_of_table", "table_page"]

_SECTIONS = (("blocks", "Blocks"), ("measured", "Whole networks"), ("slowest", "Slowest blocks"), ("provenance", "Provenance"))
_SLOWEST = 15
_STYLES = {1: "grey", 3: "s5", 5: "s0", 7: "s3"}
Json = dict[str, Any]


def table_page(table: LatencyTable, *, title: str | None = None) -> Page:
    """The page of a table.

    Args:
        table: of one device.
        title: by default its device and spaces.
    """
    blocks, metadata = blocks_of_table(table), dict(table.metadata)
    spaces = ", ".join(metadata["spaces"])
    compared, left = calibration_of(table), residuals_of(metadata, table.device_name)
    charts = {**_block_charts(blocks), **_place_charts(table)}
    if compared is not None:
        charts["measured-0"] = measured_chart(compared)
    if left is not None:
        charts["residuals-0"] = residuals_chart(left)
    groups = groups_of({key: value for key, value in metadata.items() if key != "networks"}, "Table")
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
            "estimated": "estimated" in metadata,
            "imported": "sources" in metadata,
            "groups": [(heading.capitalize(), rows) for heading, rows in groups],
            "command": command_of(metadata),
        },
    )


def blocks_of_table(table: LatencyTable) -> pd.DataFrame:
    """One row a block: its latency, what it is, and its MACs' drivers: kernel, channels, input size."""
    fields = [json.loads(text) for text in table.rows["block"]]
    frame = pd.DataFrame(
        {
            "kind": [str(each["kind"]).replace("_", " ") for each in fields],
            "kernel": [int(each.get("kernel", 0)) for each in fields],
            "channels": [_channels(each) for each in fields],
        }
    )
    return frame.assign(
        **{name: table.rows[name].to_numpy(dtype=np.float64) for name in ("median_ms", "p90_ms", "std_ms")},
        input_size_px=table.rows["input_size_px"].to_numpy(dtype=np.int64),
    )


def _channels(fields: Mapping[str, Any]) -> str:
    middle = [fields["mid_channels"]] if "mid_channels" in fields else []
    return " → ".join(map(str, [fields["in_channels"], *middle, fields["out_channels"]]))


def _facts(table: LatencyTable, blocks: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    metadata, correction = table.metadata, table.correction
    sizes = sorted({size for each in metadata["spaces"].values() for size in each})
    interval = "none yet" if correction is None else f"±{correction.half_width:.1%} from {correction.nets} networks"
    facts = (
        ("blocks", f"{len(blocks):,}"),
        ("a block takes", f"{figures(blocks['median_ms'].min())} .. {figures(blocks['median_ms'].max())} ms"),
        ("resolutions", f"{sizes[0]} .. {sizes[-1]} px" if len(sizes) > 1 else f"{sizes[0]} px" if sizes else ""),
        ("interval", interval),
        ("measured" if "sources" not in metadata else "imported", str(metadata.get("date", ""))[:10]),
    )
    return tuple((name, text) for name, text in facts if text)


def _text(block: Any) -> str:
    words = f"{block.kind} {block.channels} at {block.input_size_px} px"
    kernel = f"\nkernel {block.kernel}×{block.kernel}" if block.kernel else ""
    spread = f"\n90 % of calls within {figures(block.p90_ms)} ms" if np.isfinite(block.p90_ms) else ""
    return f"{words}{kernel}\n{figures(block.median_ms)} ms{spread}"


def _by_kernel(blocks: pd.DataFrame, column: str) -> list[Json]:
    layers = []
    for kernel, group in blocks.groupby("kernel", sort=True):
        words = f"kernel {kernel}×{kernel}" if kernel else "no kernel"
        texts = [_text(block) for block in group.itertuples()]
        layers.append(layer("dots", group[column], group["median_ms"], words=words, style=_STYLES.get(int(str(kernel)), "s2"), texts=texts))
    return layers


def _block_charts(blocks: pd.DataFrame) -> dict[str, Json]:
    sizes = sorted(blocks["input_size_px"].unique().tolist())
    ranked = blocks.assign(size_rank=[sizes.index(size) for size in blocks["input_size_px"]])
    x = axis("input size of the block, px", ticks=[(i, str(size)) for i, size in enumerate(sizes)])
    y = axis("median latency", "ms", zero=True)
    return {"blocks-size": chart("By input size and kernel", x, y, _by_kernel(ranked, "size_rank"))}


def _place_charts(table: LatencyTable) -> dict[str, Json]:
    """For each space at its largest resolution: what may stand at each place, and what it takes."""
    latency = dict(zip(zip(table.rows["block"], table.rows["input_size_px"], strict=True), table.rows["median_ms"], strict=True))
    charts = {}
    for number, (name, resolutions) in enumerate(table.metadata["spaces"].items()):
        if name not in space_names() or not resolutions:
            continue
        space = get_space(name, classes_of(table)).restrict(resolution=[max(resolutions)])
        inventory, rows = inventory_of(space), []
        for at, place in enumerate(inventory.places):
            for index in sorted({index for index in np.ravel(place.blocks).tolist() if index >= 0}):
                placed = inventory.blocks[index]
                ms = latency.get((block_key(placed.block), placed.input_size))
                if ms is not None:
                    row = {"place": at, "name": place.name, "kind": placed.block.kind.replace("_", " "), "median_ms": ms, "p90_ms": np.nan}
                    kernel = int(getattr(placed.block, "kernel", 0))
                    rows.append({**row, "kernel": kernel, "channels": _placed_channels(placed.block), "input_size_px": placed.input_size})
        if rows:
            ticks = [(at, place.name.replace("stages.", "")) for at, place in enumerate(inventory.places)]
            x, y = axis("place in the network (stage.block)", ticks=ticks), axis("median latency", "ms", zero=True)
            charts[f"place-{number}"] = chart(f"By place, {name} at {max(resolutions)} px", x, y, _by_kernel(pd.DataFrame(rows), "place"))
    return charts


def _placed_channels(block: Any) -> str:
    return _channels({**vars(block)})


def _slowest(blocks: pd.DataFrame) -> list[tuple[str, ...]]:
    rows = blocks.sort_values("median_ms", ascending=False, kind="stable").head(_SLOWEST)
    return [
        (
            row.kind,
            row.channels,
            f"{row.kernel}×{row.kernel}" if row.kernel else "",
            f"{row.input_size_px} px",
            f"{figures(row.median_ms)} ms",
        )
        for row in rows.itertuples()
    ]
