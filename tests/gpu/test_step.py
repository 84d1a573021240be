"""A training step on the GPU is that of the CPU.

How near they must be is a relation between errors: those of GPU and CPU are both taken against a step in float64. The gradient's is
mostly that of the few activations that lie within rounding of a corner of ReLU or h-swish, where the slope jumps: by chance none or some
of them, on a CPU too. So the bound is the CPU's error in a coarser precision, which has many.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training.step import Objective, Precision, training_step
from tests.ofa.strategies import TINY_SPACES, images, randomized

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
BATCH = 32
BOUNDS: dict[Precision, tuple[Precision, float]] = {
    "float32": ("float16", 0.25),
    "bfloat16": ("bfloat16", 3.0),
    "float16": ("bfloat16", 1.5),
}
"""For a precision on the GPU that of a step on the CPU, and how many times its error the GPU's may be. TF32 has float16's digits, so a
step that is secretly in TF32 does not pass for float32."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to, in float64 on the CPU."""

    losses: Tensor
    accuracy: Tensor
    gradient: Tensor
    weights: Tensor
    statistics: Tensor

    def error(self, name: str, exact: Outcome) -> float:
        found, true = getattr(self, name), getattr(exact, name)
        return float(torch.linalg.vector_norm(found - true) / torch.linalg.vector_norm(true))


def step(
    name: str, device: torch.device, precision: Precision = "float32", *, dtype: torch.dtype = torch.float32, clip_norm: float = 0.0
) -> Outcome:
    """One step of the largest, the smallest and two other subnets with a teacher, from the same weights and images everywhere."""
    space, rng = get_space(name, num_classes=10), np.random.default_rng(0)
    resolution = space.resolutions[0]
    supernet, other = (randomized(Supernet(space, generator=torch.Generator().manual_seed(seed)), seed) for seed in (1, 2))
    supernet.to(device, dtype).train()
    teacher = other.to(device, dtype).eval().extract(space.largest(resolution)).requires_grad_(False)
    within = space.restrict(resolution=(resolution,))
    archs = [space.largest(resolution), space.smallest(resolution), within.sample(rng), within.sample(rng)]
    x_BCHW = images(archs[0], batch=BATCH).to(device, dtype).contiguous(memory_format=torch.channels_last)
    y_B = torch.randint(0, 10, (BATCH,), generator=torch.Generator().manual_seed(3)).to(device)
    optimizer = torch.optim.SGD(supernet.parameter_groups(1e-4), lr=0.05, momentum=0.9, nesterov=True)
    # So small a scale that float16's largest number is not met, and no step is left out.
    scaler = torch.amp.GradScaler(device.type, init_scale=256.0) if precision == "float16" else None
    objective = Objective(label_smoothing=0.1, teacher=teacher, distillation_weight=1.0)
    result = training_step(supernet, archs, (x_BCHW, y_B), optimizer, objective, precision=precision, scaler=scaler, clip_norm=clip_norm)
    weights = torch.cat([supernet.decayed.detach(), supernet.undecayed.detach()])
    told = (result.losses, result.accuracy, supernet.flat_gradient, weights, supernet.statistics)
    return Outcome(*(tensor.detach().cpu().double() for tensor in told))


@cache
def exact_step(name: str) -> Outcome:
    return step(name, CPU, dtype=torch.float64)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [*TINY_SPACES, "ofa-mbv3-32px"])
def test_the_error_is_no_larger_than_that_of_a_coarser_step_on_the_cpu(name: str, precision: Precision, device: torch.device) -> None:
    exact, here = exact_step(name), step(name, device, precision)
    coarser, times = BOUNDS[precision]
    there = step(name, CPU, coarser)
    for quantity in ("losses", "gradient", "weights", "statistics"):
        assert here.error(quantity, exact) <= times * there.error(quantity, exact), quantity


@pytest.mark.parametrize("name", TINY_SPACES)
def test_in_double_precision_the_steps_agree(name: str, device: torch.device) -> None:
    exact, here = exact_step(name), step(name, device, dtype=torch.float64)
    # The loss itself is always computed in float32.
    for quantity in ("losses", "gradient", "weights", "statistics"):
        assert here.error(quantity, exact) < 1e-5, quantity
    assert torch.equal(here.accuracy, exact.accuracy)


def test_a_clipped_gradient_has_the_norm_that_is_asked_for(device: torch.device) -> None:
    whole, clipped = (step("ofa-mbv3-tiny", device, clip_norm=norm) for norm in (0.0, 0.01))
    assert torch.linalg.vector_norm(whole.gradient) > 0.01
    assert torch.linalg.vector_norm(clipped.gradient) == pytest.approx(0.01, rel=1e-3)


def test_the_same_step_gives_the_same_bits_again(device: torch.device) -> None:
    one, other = step("ofa-mbv3-tiny", device), step("ofa-mbv3-tiny", device)
    assert torch.equal(one.gradient, other.gradient)
    assert torch.equal(one.weights, other.weights)


def test_a_step_whose_float16_gradients_overflow_is_left_out(device: torch.device) -> None:
    space = get_space("ofa-mbv3-tiny", num_classes=10)
    arch = space.smallest()
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).to(device).train()
    before = supernet.decayed.detach().clone()
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**60)
    optimizer = torch.optim.SGD(supernet.parameter_groups(0), lr=0.1)
    batch = images(arch, batch=8).to(device), torch.arange(8, device=device)
    result = training_step(supernet, [arch], batch, optimizer, Objective(), precision="float16", scaler=scaler)
    assert torch.isfinite(result.loss)
    assert torch.equal(supernet.decayed.detach(), before)
    assert scaler.get_scale() == 2.0**59
