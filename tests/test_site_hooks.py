"""What makes a site of pages that GitHub shows: where links lead, and notebooks as pages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from docs import site_hooks


def led(markdown: str, uri: str) -> str:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    config: Any = None
    files: Any = None
    return site_hooks.on_page_markdown(markdown, page=page, config=config, files=files)


@pytest.mark.parametrize(
    ("uri", "link", "place"),
    [
        ("images.md", "training.md#resume", "training.md#resume"),
        ("images.md", "#classes", "#classes"),
        ("images.md", "https://optuna.org", "https://optuna.org"),
        ("images.md", "tour.ipynb", "tour.md"),
        ("images.md", "../README.md", "index.md"),
        ("images.md", "../CONTRIBUTING.md#habits", "CONTRIBUTING.md#habits"),
        ("images.md", "../benchmarks/pauses.py", "repository/benchmarks/pauses.py"),
        ("images.md", "site_hooks.py", "repository/docs/site_hooks.py"),
        ("reference/ofa.md", "../python.md", "../python.md"),
        ("reference/ofa.md", "../../LICENSE", "../repository/LICENSE"),
        ("CONTRIBUTING.md", "docs/trust.md", "trust.md"),
        ("CHANGELOG.md", "README.md", "index.md"),
    ],
)
def test_links_lead_to_where_the_site_has_their_targets(uri: str, link: str, place: str) -> None:
    assert led(f"[a]({link}), ![b]({link})", uri) == f"[a]({place}), ![b]({place})"


def test_code_has_no_links() -> None:
    code = "```python\na[0](docs/b)\n```\n\n`a[0](docs/b)` and [`c`]({})\n"
    assert led(code.format("docs/c.md"), "CHANGELOG.md") == code.format("c.md")


def test_a_page_that_loads_from_elsewhere_is_refused() -> None:
    exceptions = pytest.importorskip("mkdocs.exceptions")
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    config: Any = None
    fine = '<a href="https://optuna.org">x</a><script src="theme/a.js"></script><svg xmlns="http://www.w3.org/2000/svg"></svg>'
    assert site_hooks.on_post_page(fine, page=page, config=config) == fine
    with pytest.raises(exceptions.PluginError, match=r"a\.md loads https://unpkg\.com/b; put it into docs/"):
        site_hooks.on_post_page('<script async src="https://unpkg.com/b"></script>', page=page, config=config)


def test_a_notebook_is_a_page() -> None:
    code = {"cell_type": "code", "source": ["x = 1\n", "x"]}
    outputs = [{"text": ["one\n"]}, {"data": {"text/plain": ["1"]}}, {"data": {"image/png": "aGk=\n", "text/plain": "<Figure>"}}]
    cells = [{"cell_type": "markdown", "source": "# Tour"}, {**code, "outputs": outputs}, {**code, "source": [], "outputs": []}]
    picture = '<img alt="What the code above draws" src="data:image/png;base64,aGk=">'
    page = f"# Tour\n\n```python\nx = 1\nx\n```\n\n```text\none\n```\n\n```text\n1\n```\n\n{picture}\n"
    assert site_hooks._markdown_of({"cells": cells}) == page
