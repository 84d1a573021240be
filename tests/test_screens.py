"""The pictures of the docs that show results: one command draws each of them anew."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from search.plot import save_front_picture
from search.report import save_report
from tests.browser import find_chromium
from tests.search.fronts import make_front
from tests.sources import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def screens() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screens", DOCS / "screens.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a demo that pictures are drawn from."""
    folder = tmp_path_factory.mktemp("demo")
    front = make_front(networks=200, devices=("pi",))
    front.save(folder / "front.parquet")
    save_front_picture(front, folder / "front.png")
    save_report(front, folder / "report.html")
    return folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_pictures_of_raw_files_are_drawn_by_one_command(screens: ModuleType, tmp_path: Path) -> None:
    screens.main(["--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(screens.OF_RESULTS)
    assert all(size_of(tmp_path / name) == size_of(DOCS / name) for name in screens.OF_RESULTS)


def test_the_picture_of_a_demo_is_the_one_that_it_drew(screens: ModuleType, demo: Path, tmp_path: Path) -> None:
    screens.main(["--demo", str(demo), "--only", "demo-front.png", "--out", str(tmp_path)])
    assert (tmp_path / "demo-front.png").read_bytes() == (demo / "front.png").read_bytes()
    assert size_of(tmp_path / "demo-front.png") == size_of(DOCS / "demo-front.png")


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
def test_the_picture_of_a_report_shows_a_budget(screens: ModuleType, demo: Path, tmp_path: Path) -> None:
    screens.main(["--demo", str(demo), "--only", "report.png", "--out", str(tmp_path)])
    assert size_of(tmp_path / "report.png") == screens.SIZE == size_of(DOCS / "report.png")


def test_a_demo_that_is_missing_is_asked_for(screens: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        screens.main(["--only", "report.png", "--out", str(tmp_path)])
    assert "run `ofa demo -o demo` and add --demo demo" in capsys.readouterr().err


def test_every_picture_that_a_page_shows_is_there_and_can_be_drawn(screens: ModuleType) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))])
    for name in [*screens.OF_RESULTS, *screens.OF_DEMO]:
        assert (DOCS / name).is_file()
        assert f"{name})" in pages, f"no page shows {name}"
