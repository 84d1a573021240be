"""Files that tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.files import make_places


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of every kind that commands read, by what it is; tests write none of them."""
    return make_places(tmp_path_factory.mktemp("places"))
