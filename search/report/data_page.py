"""The page of a data set: its images, the files left out, and samples as the network sees them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ofa.data import ImageRule, LeftOut
from ofa.data.overview import Copies, Overview
from ofa.data.sheet import ClassStrip
from ofa.files import replacing
from ofa.resolution import Resolution, pixels
from search.report.page import Page, render

__all__ = ["DataSource", "data_page", "save_data_page"]

_SECTIONS = (("seen", "What the network sees"), ("classes", "Classes"), ("files", "Files"), ("copies", "Copies"), ("left-out", "Left out"))
_PARTS = ("train", "selection", "test")
_LISTED = 200
_QUALITY = 90
_LEAST_SIDE = 96
"""Images with a smaller side are enlarged by a whole factor, so that each pixel is visible."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DataSource:
    """Contents of the page.

    Attributes:
        data: the data set, as the user named it.
        resolution: resolution of the network's input in pixels.
        overview: overview of the readable images.
        left_out: the files that are no readable images.
        strips: images of each class, as the network sees them.
        rule: preprocessing of the images.
    """

    data: str
    resolution: Resolution
    overview: Overview
    left_out: Sequence[LeftOut]
    strips: Sequence[ClassStrip]
    rule: ImageRule


def data_page(source: DataSource, *, title: str | None = None) -> Page:
    """The page of a data set.

    Args:
        source: contents of the page.
        title: title of the page; None for the name of the data.
    """
    found = source.overview
    return Page(
        template="data.html",
        title=title or f"Images of {source.data}",
        facts=_facts(source),
        sections=_SECTIONS,
        data={"kind": "data", "charts": {}},
        content={
            "warnings": found.warnings,
            "resolution": pixels(source.resolution),
            "rule": _words(source.rule),
            "strips": [_strip(strip) for strip in source.strips],
            "parts": _PARTS,
            "classes": _classes(found.classes),
            "kinds": [("file format", found.formats), ("kind of pixels", found.modes)],
            "sizes": _sizes(found),
            "copies": [_copies(group) for group in found.copies[:_LISTED]],
            "more_copies": max(0, len(found.copies) - _LISTED),
            "left_out": source.left_out[:_LISTED],
            "more_left_out": max(0, len(source.left_out) - _LISTED),
        },
    )


def save_data_page(source: DataSource, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """Write the page of a data set as one HTML file.

    Args:
        source: contents of the page.
        path: path of the file, replaced atomically.
        title: title of the page; None for the name of the data.

    Raises:
        FileError: the file cannot be written.
    """
    text = render(data_page(source, title=title))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _words(rule: ImageRule) -> str:
    """A rule in words."""
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(rule.channels, f"{rule.channels} channels")
    fit = "the middle part is cut out" if rule.fit == "crop" else "stretched"
    whites = [
        f"{white:g} is white in {kind}"
        for kind, white in (("images of 32-bit integers", rule.integer_white), ("images of floats", rule.float_white))
        if white
    ]
    return ", ".join(["upright", colours, fit, *whites])


def _facts(source: DataSource) -> tuple[tuple[str, str], ...]:
    found = source.overview
    parts = [(f"to {_purpose(part)}", f"{found.parts.get(part, 0):,}") for part in _PARTS]
    return (
        ("images", f"{found.images:,}"),
        ("classes", str(len(found.classes))),
        *parts,
        ("groups of copies", f"{len(found.copies):,}"),
        ("files left out", f"{len(source.left_out):,}"),
    )


def _purpose(part: str) -> str:
    return {"train": "train on", "selection": "select on", "test": "test on"}[part]


def _strip(strip: ClassStrip) -> dict[str, Any]:
    enlarged = max(1, _LEAST_SIDE // strip.evaluated.height)
    return {
        "name": strip.class_name,
        "images": strip.images,
        "evaluated": _uri(strip.evaluated),
        "trained": None if strip.trained is None else _uri(strip.trained),
        "width": enlarged * strip.evaluated.width,
        "height": enlarged * strip.evaluated.height,
    }


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _classes(classes: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Rows of class name, counts by part, their sum, and the sum as a share of the largest class's."""
    totals = {name: sum(counts.values()) for name, counts in classes.items()}
    most = max(totals.values())
    return [
        {"name": name, "counts": [counts.get(part, 0) for part in _PARTS], "total": totals[name], "share": totals[name] / most}
        for name, counts in classes.items()
    ]


def _sizes(found: Overview) -> list[tuple[str, str]]:
    sizes = found.sizes
    return [
        ("smallest", "{} x {} px".format(*sizes.smallest)),
        ("largest", "{} x {} px".format(*sizes.largest)),
        ("median of the shorter sides", f"{sizes.median_side:g} px"),
        ("different sizes", f"{sizes.distinct:,}"),
    ]


def _copies(group: Copies) -> tuple[str, str, str]:
    return ", ".join(group.names), ", ".join(group.class_names), ", ".join(group.parts)
