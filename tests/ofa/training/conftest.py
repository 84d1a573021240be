from __future__ import annotations

from collections.abc import Callable

import pytest

from ofa.data import ImageData
from ofa.families import get_space
from ofa.training import Phase, Recipe
from tests.ofa.training.optimizer_contract import photos


@pytest.fixture(scope="session")
def pictures() -> ImageData:
    """Ninety-six pictures of ten classes."""
    return photos()


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    def make(space: str, *phases: Phase, **settings: object) -> Recipe:
        """A recipe at the smallest resolution, or of the phases that are given."""
        smallest = get_space(space).resolutions[:1]
        full = Phase(name="full", epochs=2, learning_rate=0.05, resolutions=smallest)
        return Recipe(space=space, data="digits", phases=phases or (full,), batch_size=32, **settings)  # type: ignore[arg-type]

    return make
