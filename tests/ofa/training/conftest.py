from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ofa.data import ImageData
from ofa.families import get_space
from ofa.training import Phase, Recipe


@pytest.fixture(scope="session")
def pictures() -> ImageData:
    """Ninety-six pictures of ten classes, each class a little brighter than the one before."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 10
    noise = torch.randint(0, 30, (96, 3, 8, 8), generator=generator)
    return ImageData(images=(20 * labels[:, None, None, None] + noise).to(torch.uint8), labels=labels, class_names=tuple("abcdefghij"))


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    def make(space: str, *phases: Phase, **settings: object) -> Recipe:
        """A recipe at the smallest resolution, or of the phases that are given."""
        smallest = get_space(space).resolutions[:1]
        full = Phase(name="full", epochs=2, learning_rate=0.05, resolutions=smallest)
        return Recipe(space=space, data="digits", phases=phases or (full,), batch_size=32, **settings)  # type: ignore[arg-type]

    return make
