"""The pages that explain: their pictures are drawn by the script, and what they list is all there is."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.sources import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
START = (DOCS / "index.md").read_text(encoding="utf-8")
MOST_BYTES = 100_000


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("draw")


def test_the_script_draws_every_picture_of_the_page(draw: ModuleType, tmp_path: Path) -> None:
    draw.main(["--out", str(tmp_path)])
    drawn = {path.name: path for path in tmp_path.iterdir()}
    assert set(drawn) == set(re.findall(r"\]\(([a-z-]+\.png)\)", PAGE)) == {f"{name}.png" for name in draw.PICTURES}
    for name, path in drawn.items():
        assert path.stat().st_size < MOST_BYTES
        with Image.open(path) as new, Image.open(DOCS / name) as committed:
            assert new.size == committed.size  # pixels depend on the version of the fonts
            assert np.asarray(new.convert("RGB"))[0, 0].tolist() == [255, 255, 255]  # its own ground, for pages that are dark


def test_slices_are_those_of_the_store(draw: ModuleType) -> None:
    space = draw.get_space(draw.SPACE)
    stored = {tensor.name.removeprefix(f"{draw.SLICED}."): tensor for tensor in draw.layout(space)}
    for genes, taps in zip(draw.SLICED_GENES, (49, 25, 25), strict=True):
        placed = draw._placed(space, genes)
        assert draw._read(stored["expand.conv.weight"], placed).sum() == 40 * 40 * genes["expand"]
        assert draw._read(stored["depthwise.conv.weight"], placed).sum() == 40 * genes["expand"] * taps


def test_sums_are_drawn_of_the_networks_of_the_raw_file_alone(draw: ModuleType) -> None:
    with pytest.raises(ValueError, match="must have the estimates of its raw file"):
        draw.checked_sums("ofa-mbv3-32px", "local-openvino", np.ones(3))


def test_modules_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"`((?:ofa|search|latency_tables|devices)/[\w/]*(?:\.py)?)`", PAGE))
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    short = set(re.findall(r"`(\w+\.py)`", PAGE))
    files = {path.name for package in ("ofa", "search", "latency_tables", "devices") for path in (ROOT / package).rglob("*.py")}
    assert short <= files


def test_the_glossary_is_in_order_and_each_word_is_explained() -> None:
    words = re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)
    assert words == sorted(set(words), key=str.casefold)
    assert all(re.fullmatch(r"[A-Z`].*\.\n*", text, re.DOTALL) for text in re.split(r"^### .+\n", GLOSSARY, flags=re.MULTILINE)[1:])


def test_links_into_the_glossary_meet_a_word() -> None:
    words = {re.sub(r"[^\w -]", "", word).lower().replace(" ", "-") for word in re.findall(r"^### (.+)$", GLOSSARY, re.MULTILINE)}
    pages = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    links = [(name, anchor) for name, text in pages.items() for anchor in re.findall(r"\]\(glossary\.md#([\w-]+)\)", text)]
    links += [("glossary.md", anchor) for anchor in re.findall(r"\]\(#([\w-]+)\)", GLOSSARY)]
    assert [link for link in links if link[1] not in words] == []


def extras_of_start() -> Iterator[str]:
    for line in START.splitlines():
        if line.startswith("| `") and not line.startswith("| `ofa "):
            yield from re.findall(r"`([a-z-]+)`", line.split("|")[1])


def test_start_says_what_each_extra_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(extras_of_start()) == sorted(project["optional-dependencies"])


def test_start_leads_to_every_page() -> None:
    pages = {path.name for path in DOCS.glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)", START))
