"""Where the tests marked ``gpu`` run. OFA_GPU_TESTS_ON=cpu tries all of them but the GPU's own kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch

from ofa import kernels
from ofa.data import ImageData
from ofa.families import get_space
from ofa.training import Phase, Recipe


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or what the environment names in its place."""
    name = os.environ.get("OFA_GPU_TESTS_ON", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a GPU of NVIDIA's that torch sees")
    return torch.empty(0, device=name).device


@pytest.fixture(autouse=True)
def exact(device: torch.device) -> Iterator[None]:
    """Convolutions in float32 and not in TF32, by algorithms that give the same bits each time."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels take what lies on the CPU where Triton's interpreter runs them (TRITON_INTERPRET=1)."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        monkeypatch.setattr(kernels, "takes", lambda x_BCHW: x_BCHW.shape[1] % kernels.GROUP == 0)


@pytest.fixture(scope="session")
def pictures() -> ImageData:
    """Two hundred pictures of ten classes, each class a little brighter than the one before."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    noise = torch.randint(0, 30, (200, 3, 16, 16), generator=generator)
    return ImageData(images=(20 * labels[:, None, None, None] + noise).to(torch.uint8), labels=labels, class_names=tuple("abcdefghij"))


@pytest.fixture
def recipe_of() -> Callable[..., Recipe]:
    def make(space: str, *phases: Phase, **settings: object) -> Recipe:
        """A recipe at the smallest resolution, or of the phases that are given."""
        full = Phase(name="full", epochs=2, learning_rate=0.05, resolutions=get_space(space).resolutions[:1])
        return Recipe(space=space, data="digits", phases=phases or (full,), batch_size=32, **settings)  # type: ignore[arg-type]

    return make
