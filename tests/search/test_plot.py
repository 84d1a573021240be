from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib._pylab_helpers
import numpy as np
import pytest

from devices import Device
from latency_tables.info import TableInfo
from ofa.errors import FileError
from ofa.figures import save_figure
from search.front.columns import costs_of_front
from search.plot import Pick, draw_costs, draw_front, save_front_picture
from search.report.pictures import save_pictures
from tests.search.fronts import best_rows, candidate, make_front
from tests.traps import lay_traps


@pytest.fixture(scope="module")
def front() -> Any:
    return make_front(networks=200)


def picks_of(front: Any) -> list[Pick]:
    highs = front.networks["latency_high_ms@pi"]
    rows = [best_rows(front, {"latency_ms@pi": float(highs.quantile(q))}, top=1)[0] for q in (0.2, 0.5, 0.9)]
    found = [candidate(front, row) for row in rows]
    return [Pick(label=f"budget {i}", candidate=each, measured_ms=1.02 * each.latencies["pi"].latency_ms) for i, each in enumerate(found)]


def test_the_picture_is_a_png_of_the_promised_size(front: Any, tmp_path: Path) -> None:
    path = tmp_path / "front.png"
    save_front_picture(front, path, picks=picks_of(front))
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, 780)


def test_it_shows_what_there_is(front: Any) -> None:
    (axes,) = draw_front(front, picks=picks_of(front)).axes
    assert axes.get_xlabel() == "latency on pi, ms"
    assert axes.get_title("left") == "ofa-mbv3-tiny on pi, phone"
    legend = axes.get_legend()
    assert legend is not None
    words = " ".join(text.get_text() for text in legend.get_texts())
    assert all(word in words for word in ("evaluated", "front", "picked, with its interval", "measured"))
    assert {text.get_text() for text in axes.texts} == {pick.label for pick in picks_of(front)}
    line = axes.lines[0].get_xydata()
    assert (np.diff(line, axis=0) > 0).all()


def test_it_says_what_latencies_hold_under() -> None:
    about = TableInfo(device=Device(name="pi", runtime="onnxruntime", pause_ms=100).to_json(), runtime_version="1.20.0")
    front = make_front(latency={"pi": about})
    words = "pi: batch 1, fp32, 1 thread, 100 ms of pause before each call, onnxruntime 1.20.0"
    (axes,) = draw_front(front).axes
    assert axes.get_xlabel() == f"latency on pi, ms\n{words}"
    (exact,) = draw_front(front, cost="macs").axes
    assert words not in exact.get_xlabel()
    assert words in draw_costs(front).get_suptitle()


@pytest.mark.parametrize("cost", ["latency_ms@phone", "macs"])
def test_it_can_be_drawn_against_another_cost(front: Any, cost: str) -> None:
    (axes,) = draw_front(front, picks=picks_of(front), cost=cost).axes
    drawn = next(each for each in costs_of_front(front.networks, front.info) if each.key == cost)
    assert axes.get_xlabel() == drawn.label
    low, high = axes.get_xlim()
    values = front.networks[cost] / drawn.scale
    assert low < values.min()
    assert high > values.max()


def test_a_front_alone_can_be_drawn(front: Any) -> None:
    alone = type(front)(front.networks.iloc[:1], front.dominated.iloc[:0], front.info)
    (axes,) = draw_front(alone, title="costs $5 and $6").axes
    assert axes.get_title("left") == "costs $5 and $6"


def test_every_cost_has_a_panel(front: Any) -> None:
    figure = draw_costs(front)
    assert [axes.get_xlabel() for axes in figure.axes] == [cost.label for cost in costs_of_front(front.networks, front.info)]


def test_no_figure_stays_behind(front: Any) -> None:
    draw_front(front)
    draw_costs(front)
    assert matplotlib._pylab_helpers.Gcf.get_num_fig_managers() == 0


def test_a_picture_that_cannot_be_written_is_one_sentence(front: Any, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="writable"):
        save_front_picture(front, tmp_path / "absent" / "front.png")


def test_settings_of_the_current_folder_and_dollar_signs_in_names_start_nothing(
    front: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``matplotlibrc`` that lies where a command is called could have every text set by LaTeX, a program."""
    started = lay_traps(monkeypatch, tmp_path, "latex", "dvipng", "kpsewhich")
    with matplotlib.rc_context({"text.usetex": True, "text.latex.preamble": r"\input{evil}"}):
        save_front_picture(front, tmp_path / "front.png", title=r"the $\frac{ of a name")
        save_figure(draw_costs(front, title=r"$\undefined$"), tmp_path / "costs.png")
        assert save_pictures(front, tmp_path / "pictures")
    assert not started.exists()
    assert not matplotlib.rcParams["text.usetex"]
