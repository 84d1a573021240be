"""The pages of docs/ run, each in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documented.fences import EXTENDING, PAGES, Fence, commands, page_of, read_fences
from tests.documented.prepared import BEGINS_WITH, README, Prepared
from tests.documented.running import Page
from tests.documented.small import stays

pytestmark = pytest.mark.docs


def running(page: str) -> tuple[Fence, ...]:
    """The blocks of a page, if one of them can run."""
    found = read_fences(page, page_of(page))
    run = (command for fence in found if fence.language == "sh" for command in commands(fence) if not stays(command))
    return found if any(fence.language == "python" for fence in found) or any(run) else ()


OVER_SSH = "docs/devices.md"
"""The page whose device is reached over ssh, here too."""


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("README.md", OVER_SSH, EXTENDING) and running(page)])
def test_a_page_runs(page: str, prepared: Prepared, tmp_path: Path) -> None:
    prepared.bring(BEGINS_WITH.get(page, README), tmp_path)
    Page(tmp_path).read(running(page))


def test_the_page_of_devices_runs_over_ssh(prepared: Prepared, raspberry: Page) -> None:
    prepared.bring(BEGINS_WITH[OVER_SSH], raspberry.folder)
    raspberry.read(running(OVER_SSH))
