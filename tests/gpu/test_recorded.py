"""Steps that are launched from CUDA graphs learn what steps do whose kernels are launched one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training.optimizer import SGD
from ofa.training.recorded import CudaGraphs, Recorder
from ofa.training.step import Objective, Precision, gradient_scaler, training_step
from tests.ofa.strategies import TINY_SPACES

pytestmark = pytest.mark.gpu

CLASSES, STEPS, BATCH = 10, 8, 8
TOLERANCE: dict[Precision, float] = {"float32": 2e-4, "bfloat16": 3e-2, "float16": 1e-2}
"""Of the weights' change over all steps, as a share of it: kernels may sum in another order."""


def trained(name: str, precision: Precision, device: torch.device, *, recorded: bool) -> tuple[torch.Tensor, torch.Tensor, Recorder | None]:
    """How the weights have changed after some steps, the losses, and what recorded."""
    space = get_space(name, num_classes=CLASSES)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).to(device).train()
    teacher = supernet.extract(space.largest()).eval().requires_grad_(False)
    before = supernet.decayed.detach().clone()
    optimizer = SGD().make(supernet.parameter_groups(1e-4), 0.05)
    scaler = gradient_scaler(precision, device)
    recorder = Recorder(CudaGraphs()) if recorded and device.type == "cuda" else None
    objective = Objective(teacher=teacher, distillation_weight=1.0, label_smoothing=0.1)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(1)
    losses = []
    for step in range(STEPS):
        resolution = space.resolutions[step % 2]
        of_step = space.restrict(resolution=(resolution,))
        archs = [of_step.largest(), of_step.smallest(), *(of_step.sample(rng) for _ in range(2))]
        x_BCHW = torch.randn(BATCH, 3, resolution, resolution, generator=generator).to(device).contiguous(memory_format=torch.channels_last)
        y_B = torch.randint(0, CLASSES, (BATCH,), generator=generator).to(device)
        result = training_step(supernet, archs, (x_BCHW, y_B), optimizer, objective, precision=precision, scaler=scaler, recorder=recorder)
        losses.append(result.losses.clone())
    return supernet.decayed.detach() - before, torch.stack(losses), recorder


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", TINY_SPACES)
def test_recorded_steps_learn_the_same(name: str, precision: Precision, device: torch.device) -> None:
    expected, losses, _ = trained(name, precision, device, recorded=False)
    found, recorded_losses, _ = trained(name, precision, device, recorded=True)
    torch.testing.assert_close(recorded_losses, losses, rtol=TOLERANCE[precision], atol=TOLERANCE[precision])
    assert float((found - expected).norm()) <= TOLERANCE[precision] * float(expected.norm())


def test_blocks_of_one_place_share_memory(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("memory pools are CUDA's")
    space = get_space("ofa-mbv3-32px", num_classes=CLASSES)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).to(device).train()
    recorder = Recorder(CudaGraphs())
    optimizer = SGD().make(supernet.parameter_groups(0), 0.01)
    largest = space.largest()
    x_BCHW = torch.randn(64, 3, largest.resolution, largest.resolution, device=device).contiguous(memory_format=torch.channels_last)
    y_B = torch.zeros(64, dtype=torch.int64, device=device)

    def reserved_after(steps: int) -> int:
        rng = np.random.default_rng(0)
        of_largest = space.restrict(resolution=(largest.resolution,))
        for _ in range(steps):
            archs = [largest, *(of_largest.sample(rng) for _ in range(2))]
            for _ in range(3):
                training_step(supernet, archs, (x_BCHW, y_B), optimizer, Objective(), recorder=recorder)
        return torch.cuda.memory_reserved(device)

    few = reserved_after(2)
    assert reserved_after(12) <= 1.5 * few
