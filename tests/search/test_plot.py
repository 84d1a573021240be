from __future__ import annotations

import struct
from pathlib import Path

import matplotlib._pylab_helpers
import numpy as np
import pytest

from ofa.errors import FileError
from search.budget import Budget
from search.front import Front
from search.plot import Pick, draw_front, save_front_picture
from search.problem import Archive
from tests.search.fakes import SMALL, fake_problem


@pytest.fixture(scope="module")
def front() -> Front:
    rng = np.random.default_rng(0)
    archive = Archive(fake_problem())
    archive.evaluate([SMALL.sample(rng) for _ in range(200)])
    return Front.of(archive, {"space": SMALL.name, "device": "paper"})


def picks_of(front: Front) -> list[Pick]:
    candidates = [front.query(Budget(latency_ms=limit))[0] for limit in (0.35, 0.45, 0.6)]
    return [Pick(label=f"{c.latency_high_ms:.2f} ms", candidate=c, measured_ms=1.02 * c.latency_ms) for c in candidates]


def test_the_picture_is_a_png_of_the_promised_size(front: Front, tmp_path: Path) -> None:
    path = tmp_path / "front.png"
    save_front_picture(front, path, picks=picks_of(front))
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1200, 780)


def test_it_shows_what_there_is(front: Front) -> None:
    (axes,) = draw_front(front, picks=picks_of(front)).axes
    assert axes.get_xlabel() == "latency of one call on paper, ms"
    assert axes.get_title("left") == f"{SMALL.name} on paper"
    legend = axes.get_legend()
    assert legend is not None
    words = " ".join(text.get_text() for text in legend.get_texts())
    assert all(word in words for word in ("evaluated", "front", "picked", "measured"))
    assert {text.get_text() for text in axes.texts} == {pick.label for pick in picks_of(front)}
    line = axes.lines[0].get_xydata()
    assert (np.diff(line, axis=0) > 0).all()


def test_a_front_alone_can_be_drawn(front: Front) -> None:
    alone = Front(front.networks.iloc[:1], front.dominated.iloc[:0], front.metadata)
    (axes,) = draw_front(alone, title="one network").axes
    assert axes.get_title("left") == "one network"


def test_no_figure_stays_behind(front: Front) -> None:
    draw_front(front)
    assert matplotlib._pylab_helpers.Gcf.get_num_fig_managers() == 0


def test_a_picture_that_cannot_be_written_is_one_sentence(front: Front, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="writable"):
        save_front_picture(front, tmp_path / "absent" / "front.png")
