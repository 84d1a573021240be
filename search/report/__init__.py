"""Reports: a self-contained HTML file that shows a front, a latency table or a training run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from latency_tables import LatencyTable
from ofa.files import replacing
from search.report.front_page import front_page
from search.report.page import Page, render
from search.report.run_page import run_page
from search.report.source import read_source
from search.report.table_page import table_page
from search.report.training import RunRecord

if TYPE_CHECKING:
    from search.front.front import Front

__all__ = ["page_of", "read_source", "save_report"]


def page_of(source: Front | LatencyTable | RunRecord, *, title: str | None = None) -> Page:
    """The page of a source that ``read_source`` returned.

    Args:
        source: a front, a table or a run.
        title: title of the page; None names the source's space, devices or data.

    Raises:
        OfaError: the source's space is unknown here.
    """
    if isinstance(source, LatencyTable):
        return table_page(source, title=title)
    if isinstance(source, RunRecord):
        return run_page(source, title=title)
    return front_page(source, title=title)


def save_report(source: Front | LatencyTable | RunRecord, path: str | os.PathLike[str], *, title: str | None = None) -> None:
    """Write the page of a source as one HTML file.

    Args:
        source: a front, a table or a run.
        path: path of the file, replaced atomically.
        title: title of the page; None names the source's space, devices or data.

    Raises:
        OfaError: as ``page_of``, or the file cannot be written.
    """
    text = render(page_of(source, title=title))
    with replacing(path) as temporary:
        # File names may contain bytes that are no valid UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
