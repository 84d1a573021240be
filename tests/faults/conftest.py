"""What tests of faults share: commands in processes that start at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.commands import Road
from tests.faults.operations import can_listen
from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """All commands, and a process that they are forked from."""
    if not can_listen():
        pytest.skip("operations on files are heard of by Linux 5.19 or newer, on x86-64 and ARM64")
    with Zygote() as zygote:
        yield Road(tmp_path_factory.mktemp("road"), zygote)
