"""Renders values, template, style and script to one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ofa.version import __version__

__all__ = ["Page", "render"]

_SCRIPTS = ("base.js", "plot.js", "drawing.js", "explore.js", "main.js")
_PACKAGE, _FOLDER = "search.report", "assets"


@dataclass(frozen=True, kw_only=True)
class Page:
    """Contents of a page.

    Attributes:
        template: template file of its sections.
        title: title of the page.
        facts: names and values below the title.
        sections: id and heading of each section, for the table of contents.
        data: JSON values that the page's script draws.
        content: values for the template.
    """

    template: str
    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, str], ...]
    data: Mapping[str, Any]
    content: Mapping[str, Any]


def render(page: Page) -> str:
    """The whole page as HTML.

    Its Content Security Policy forbids all requests, and all scripts and styles except its own, which are allowed by digest: names of
    devices or files are never executed.
    """
    style, script = _asset("report.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    text: str = (
        _environment()
        .get_template(page.template)
        .render(
            page=page,
            **page.content,
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            data=Markup(_inert(page.data)),
            version=__version__,
        )
    )
    return text


def _inert(data: Mapping[str, Any]) -> str:
    """JSON for a script element, escaped so that it cannot close the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@lru_cache(maxsize=16)
def _asset(name: str) -> str:
    return files(_PACKAGE).joinpath(_FOLDER, name).read_text(encoding="utf-8").replace("\r\n", "\n")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
