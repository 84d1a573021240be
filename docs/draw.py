"""Draws the pictures of how-it-works.md from the code, the tables that come with the package, and raw files of benchmarks.

    python docs/draw.py              # into docs/
    python docs/draw.py --out FOLDER

Nothing is measured here: latencies are those of ``latency_tables/data`` and ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latency_tables import Estimator, LatencyTable
from latency_tables.calibrate import table_resolutions
from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock
from ofa.cost import macs
from ofa.families import get_space, lower
from ofa.figures import new_figure, own_style, save_figure
from ofa.resolution import pixels
from ofa.sharing import StoredTensor, layout
from ofa.space import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

__all__ = ["PICTURES", "draw_all", "main"]

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "results"
TABLES = ROOT / "latency_tables" / "data"

# Okabe and Ito's palette, which stays distinct under the common colour blindnesses.
BLUE, ORANGE, GREY, PALE = "#0072B2", "#E69F00", "#777777", "#dddddd"

SPACE = "ofa-mbv3-w1.0"
SUBNET_SEED = 0
"""Of the subnet that is drawn: a random one, as ``Space.sample`` gives it."""
SLICED = "stages.1.1"
SLICED_GENES = ({"expand": 6, "kernel": 7}, {"expand": 4, "kernel": 5}, {"expand": 3, "kernel": 3})

CHECKS = (("ofa-mbv3-w1.0", "local-cpu", "w10-224"), ("ofa-mbv3-32px", "local-openvino", "32px-ov"))
"""Space and device of a table that comes along, and the raw file of its check."""
CHECK_SEED = 1
"""Of the networks that ``benchmarks/latency_table.py`` checks tables on."""

BUDGET_NUMBER = 2
"""Of the nine budgets of ``front_over_precisions.json``, the one that is pointed out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, help="folder that the pictures are written into")
    draw_all(parser.parse_args(arguments).out)


def draw_all(folder: Path) -> None:
    """Write each picture as a PNG file into a folder that is there."""
    for name, draw in PICTURES.items():
        save_figure(draw(), folder / f"{name}.png")


# -- a supernet and a subnet of it --------------------------------------------------------------------------------------


@own_style()
def draw_supernet() -> Figure:
    """The blocks of the largest network as outlines, and those of a random subnet filled in."""
    space = get_space(SPACE)
    subnet = space.sample(np.random.default_rng(SUBNET_SEED))
    largest, chosen = lower(space, space.largest()), {placed.name: placed for placed in lower(space, subnet)}
    figure = new_figure(9, 3.9)
    axes = figure.add_subplot()
    places, most = np.arange(len(largest)), [_width(placed.block) for placed in largest]
    own = [_width(chosen[placed.name].block) if placed.name in chosen else 0 for placed in largest]
    axes.bar(
        places, most, 0.8, facecolor="white", edgecolor=GREY, linewidth=1.1, label=_words("the largest network", space, space.largest())
    )
    axes.bar(places, own, 0.8, facecolor=BLUE, label=_words("a subnet", space, subnet))
    for place, placed in enumerate(largest):
        if placed.name in chosen and (kernel := getattr(chosen[placed.name].block, "kernel", None)):
            axes.text(place, -30, str(kernel), ha="center", va="top", fontsize=9, color=BLUE)
    axes.text(-0.9, -30, "kernel", ha="right", va="top", fontsize=9, color=BLUE)
    axes.set_xticks(places, [placed.name.removeprefix("stages.") for placed in largest], rotation=60, ha="right", fontsize=8)
    axes.tick_params(axis="x", pad=14, length=0)
    axes.set(xlabel="place (stage.block in the stages)", ylabel="channels of the widest layer", xlim=(-0.8, len(largest) - 0.2))
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    _plain(axes)
    return figure


def _width(block: Block) -> int:
    """Channels of a block after its expansion, or of its output where it has none."""
    return block.lengths.get("mid", block.out_channels)


def _words(called: str, space: Space, arch: Arch) -> str:
    return f"{called}: {pixels(arch.resolution)}, {macs(lower(space, arch)) / 1e6:.0f} MMACs"


# -- slices of a weight -------------------------------------------------------------------------------------------------


@own_style()
def draw_slices() -> Figure:
    """What three subnets read of two stored weights of one block."""
    space = get_space(SPACE)
    stored = {tensor.name.removeprefix(f"{SLICED}."): tensor for tensor in layout(space)}
    pointwise, depthwise = stored["expand.conv.weight"], stored["depthwise.conv.weight"]
    figure = new_figure(9, 5.4)
    grid = figure.add_gridspec(2, len(SLICED_GENES), height_ratios=(3, 2))
    for column, genes in enumerate(SLICED_GENES):
        placed = _placed(space, genes)
        rows = figure.add_subplot(grid[0, column])
        rows.imshow(_read(pointwise, placed)[:, :, 0, 0], aspect="auto", cmap=_two_colours(), vmin=0, vmax=1, interpolation="nearest")
        rows.set_title(f"expand {genes['expand']}, kernel {genes['kernel']}", fontsize=11)
        rows.set(xlabel="channel of the input", ylabel="expanded channel" if column == 0 else "")
        taps = figure.add_subplot(grid[1, column])
        taps.pcolormesh(_read(depthwise, placed)[0, 0], cmap=_two_colours(), vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
        taps.add_patch(_centre(depthwise.shape[-1], genes["kernel"]))
        taps.set_aspect("equal")
        taps.set(xticks=[], yticks=[], ylabel="taps of a kernel" if column == 0 else "")
        taps.set_xlabel(_steps(depthwise, genes["kernel"]), fontsize=9)
        taps.spines[:].set_visible(False)
    return figure


def _placed(space: Space, genes: Mapping[str, int]) -> PlacedBlock:
    """The block at the place of the picture in a network all of whose blocks have these genes."""
    indices = {gene.name: gene.values.index(genes[gene.name]) for gene in space.stages[0].genes}
    arch = space.uniform(resolution=-1, depth=-1, genes=indices)
    return next(placed for placed in lower(space, arch) if placed.name == SLICED)


def _read(stored: StoredTensor, placed: PlacedBlock) -> np.ndarray[Any, np.dtype[np.float64]]:
    """1 where a block reads a stored tensor and 0 elsewhere, of the tensor's shape."""
    block, name = placed.block, stored.name.removeprefix(f"{placed.name}.")
    numbers = torch.arange(stored.end - stored.offset).view(stored.shape)
    mask = torch.zeros(numbers.numel(), dtype=torch.float64)
    mask[stored.view(numbers, block.shapes[name], block.lengths).flatten()] = 1
    return np.asarray(mask.view(stored.shape).numpy())


def _centre(stored: int, kernel: int) -> Rectangle:
    """The outline of the kernel that a subnet has, within the stored one."""
    from matplotlib.patches import Rectangle

    margin = (stored - kernel) / 2
    return Rectangle((margin, margin), kernel, kernel, fill=False, edgecolor=ORANGE, linewidth=2.5)


def _steps(stored: StoredTensor, kernel: int) -> str:
    """How the kernel of a subnet is made of the stored one."""
    steps = [f"centre {size} x {size}, times a {size**2} x {size**2} matrix" for size, _ in stored.steps(kernel)]
    return "\n".join(steps) or "as stored"


def _two_colours() -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap([PALE, BLUE])


# -- sums of blocks against networks ------------------------------------------------------------------------------------


@own_style()
def draw_correction() -> Figure:
    """Sums of blocks and corrected estimates of networks that no calibration has seen, beside what was measured."""
    figure = new_figure(8.4, 3.7)
    for number, (space_name, device, raw) in enumerate(CHECKS, start=1):
        result = json.loads((RESULTS / f"latency_table_{raw}.json").read_text(encoding="utf-8"))
        measured = np.array(result["networks"]["measured_ms"])
        estimated = np.array(result["networks"]["latency_ms"])
        sums = checked_sums(space_name, device, estimated)
        axes, floor = figure.add_subplot(1, len(CHECKS), number), 100 * result["noise_floor"]
        axes.axhspan(-floor, floor, color=GREY, alpha=0.3, linewidth=0, label=f"noise floor: {floor:.1f} %")
        for values, words, colour, marker in ((sums, "sum of blocks", ORANGE, "s"), (estimated, "corrected", BLUE, "o")):
            error = 100 * (values / measured - 1)
            label = f"{words}: {np.abs(error).mean():.1f} % off"
            axes.plot(measured, error, marker, color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, label=label)
        axes.set(xlabel="measured, ms", ylabel="error of the estimate, %")
        axes.set_title(f"{space_name}, {result['device']['runtime']}, {result['nets']} networks", loc="left", fontsize=10)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False, fontsize=8.5)
        _plain(axes)
    return figure


def checked_sums(space_name: str, device: str, estimated_ms: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    """The sums of blocks in ms of the networks that a table was checked on, which its raw file does not have.

    Args:
        space_name: of the table.
        device: of the table.
        estimated_ms: the table's estimates in the raw file, to four digits.

    Raises:
        ValueError: the networks are not those of the raw file.
    """
    space, table = get_space(space_name), LatencyTable.load(TABLES / f"{space_name}_{device}.parquet")
    allowed, estimator = space.restrict(resolution=table_resolutions(table, space, None)), Estimator(space, table)
    rng = np.random.default_rng(CHECK_SEED)
    archs = [allowed.sample(rng) for _ in estimated_ms]
    if np.abs(estimator.latencies_ms(archs) - estimated_ms).max() > 1e-4:
        raise ValueError(f"networks of a check must have the estimates of its raw file, but those of {table.called} differ; check it anew")
    return [estimator.sums(arch)[0] for arch in archs]


# -- a budget -----------------------------------------------------------------------------------------------------------

LINES = {
    "both": ("either precision", "-", "#9fcbe8", 5.0),
    "fp32": ("float32 alone", "s--", ORANGE, 1.3),
    "int8": ("int8 alone", "o:", "black", 1.3),
}
"""How each front of the raw file is drawn: words, style, colour and width."""


@own_style()
def draw_budget() -> Figure:
    """The best accuracy within each of nine budgets, in float32, in int8 and with precision as a gene."""
    fronts = json.loads((RESULTS / "front_over_precisions.json").read_text(encoding="utf-8"))["fronts"]
    budgets = np.array([each["budget_ms"] for each in fronts])
    figure = new_figure(7.2, 4)
    axes = figure.add_subplot()
    for name, (words, style, colour, width) in LINES.items():
        accuracy = np.array([np.nan if each[name] is None else 100 * each[name] for each in fronts])
        axes.plot(budgets, accuracy, style, color=colour, drawstyle="steps-post", markersize=5, linewidth=width, label=words)
    chosen = fronts[BUDGET_NUMBER]
    limit = chosen["budget_ms"]
    axes.axvspan(0.9 * budgets[0], limit, color=PALE, alpha=0.6, linewidth=0, label=f"within {limit:.3f} ms")
    for name, words in (("both", "int8"), ("fp32", "float32")):
        height = 100 * chosen[name]
        text = f"{height:.1f} % in {words}"
        axes.annotate(text, (limit, height), xytext=(7, -14), textcoords="offset points", fontsize=9)
    axes.set_xlim(0.9 * budgets[0], None)
    axes.set(xlabel="latency at most, ms", ylabel="promised accuracy, %")
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


PICTURES: Mapping[str, Callable[[], Figure]] = {
    "supernet": draw_supernet,
    "slices": draw_slices,
    "correction": draw_correction,
    "budget": draw_budget,
}
"""By name, without the ending."""

if __name__ == "__main__":
    main()
