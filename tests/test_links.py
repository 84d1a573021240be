"""The pages: every link and anchor leads somewhere, every file that they name is there, every public name has its entry."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.sources import PACKAGES, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")])
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2`*~*\s*?$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
NAMED_FILE = re.compile(r"\b(?:benchmarks|docs|tests|ofa|search|latency_tables|devices)/[\w./-]+\.(?:py|json|md|toml|png|parquet|ipynb)\b")
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)?$", re.MULTILINE)
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")


@cache
def prose(page: Path) -> str:
    """The text of a page without its fences; of a notebook the text between its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them (mkdocs.yml asks for the same), and of its entries, which the site has."""
    seen: Counter[str] = Counter()
    found = set(ENTRY.findall(text))
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def dead_links(text: str, folder: Path) -> list[str]:
    """The relative links of a page in a folder that lead nowhere."""
    found = []
    for target in LINK.findall(CODE.sub("", text)):
        path, _, anchor = target.partition("#")
        if OTHER_SCHEME.match(target):
            continue
        place = (folder / path).resolve()
        known = not path or (place.is_file() and place.is_relative_to(ROOT))
        there = anchors(prose(place) if path else text) if known and anchor else {anchor}
        if not known or anchor not in there:
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(prose(page), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_pages_name_are_there(page: Path) -> None:
    """Code and raw files are named rather than linked."""
    named = {name for _, code in CODE.findall(prose(page)) for name in NAMED_FILE.findall(code)}
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_a_dead_link_is_found() -> None:
    text = "# A `b` (c)\n\n[x](index.md) [y](#a-b-c) [z](#a-b) [`w`](gone.md) ![v](../gone.png) `[u](code.md)` [t](index.md#gone)\n"
    assert dead_links(text, ROOT / "docs") == ["#a-b", "gone.md", "../gone.png", "index.md#gone"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_its_entry(package: str) -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    entries = {entry for page in pages for entry in ENTRY.findall(prose(page))}
    names = {f"{package}.{name}" for name in import_module(package).__all__ if name != "__version__"}
    assert names - entries == set()
