"""Runs on the GPU: judged, stopped and resumed, carried to the CPU and back, and specialized."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ofa.calibrate import calibrate
from ofa.data import ImageData
from ofa.exporting.onnx import export, verify_outputs
from ofa.supernet import Supernet
from ofa.training import Recipe, begin_run, continue_run, evaluate, save_state, single_stage, train
from ofa.training.distributed import World
from ofa.training.dry_run import estimate_phases, peak_memory
from ofa.training.specialization import FineTuning, specialize
from ofa.training.state import TrainingState

pytestmark = pytest.mark.gpu

MakeRecipe = Callable[..., Recipe]
TINY = "ofa-mbv3-tiny"
CPU = torch.device("cpu")


class StoppedError(Exception):
    """What ends a run in the middle."""


def supernet_of(recipe: Recipe, device: torch.device) -> Supernet:
    return recipe.build_supernet(10).to(device)


def weights(supernet: Supernet) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in supernet.state_dict().items()}


def trained(recipe: Recipe, data: ImageData, device: torch.device, **more: Any) -> dict[str, Tensor]:
    supernet = supernet_of(recipe, device)
    train(supernet, recipe, data, **more)
    return weights(supernet)


def state_of_a_stopped_run(recipe: Recipe, data: ImageData, device: torch.device, at: int, folder: Path) -> TrainingState:
    """The last state of a run that was stopped at a step, as its file gives it back."""
    states: list[TrainingState] = []

    def on_state(state: TrainingState) -> None:
        states.append(state)
        if state.step >= at:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(supernet_of(recipe, device), recipe, data, on_state=on_state)
    begin_run(folder, recipe)
    save_state(folder, recipe, states[-1])
    state, _ = continue_run(folder, recipe)
    assert state is not None
    assert 0 < state.step == at
    return state


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference, as a share of each tensor's largest value."""
    return max(float((one[name] - tensor).abs().max() / tensor.abs().max()) for name, tensor in other.items() if tensor.any())


def recipes(recipe_of: MakeRecipe) -> dict[str, Recipe]:
    plain = recipe_of(TINY, checkpoint_steps=4)
    staged = single_stage(plain.get_space(10), epochs=2, subnets_per_step=3, sampling="best-up", resolutions=(16,))
    everything = recipe_of(TINY, *staged, checkpoint_steps=4, weight_averaging=0.9, dropout=0.2, clip_norm=1.0, precision="bfloat16")
    return {"float32": plain, "everything, bfloat16": everything, "float16": replace(plain, precision="float16")}


@pytest.mark.parametrize("name", ["float32", "everything, bfloat16", "float16"])
def test_stopped_and_resumed_equals_uninterrupted(
    name: str, recipe_of: MakeRecipe, pictures: ImageData, device: torch.device, tmp_path: Path
) -> None:
    recipe = recipes(recipe_of)[name]
    whole, again = trained(recipe, pictures, device), trained(recipe, pictures, device)
    state = state_of_a_stopped_run(recipe, pictures, device, 8, tmp_path)
    resumed = trained(recipe, pictures, device, state=state)
    apart = distance(resumed, whole)
    print(f"{name}: resumed {apart:g}, a second run that was never stopped {distance(again, whole):g}")  # to be read with -rP
    if device == CPU:
        assert apart == 0
    # A GPU's blocks are computed when they are first met and replayed later, and a resumed run meets them at other steps: libraries may
    # choose other kernels for the one and the other, whose rounding then grows from step to step.
    assert apart <= (1e-3 if name == "float32" else 0.1)


@pytest.mark.parametrize("name", ["float32", "everything, bfloat16", "float16"])
@pytest.mark.parametrize("begins_on_the_gpu", [True, False])
def test_a_run_goes_on_elsewhere(
    name: str, begins_on_the_gpu: bool, recipe_of: MakeRecipe, pictures: ImageData, device: torch.device, tmp_path: Path
) -> None:
    recipe = recipes(recipe_of)[name]
    first, second = (device, CPU) if begins_on_the_gpu else (CPU, device)
    state = state_of_a_stopped_run(recipe, pictures, first, 8, tmp_path)
    assert all(tensor.device == CPU for tensor in state.tensors.values())
    supernet = supernet_of(recipe, second)
    metrics = train(supernet, recipe, pictures, state=state)
    assert [epoch.step for epoch in metrics] == [12]
    assert all(torch.isfinite(tensor).all() for tensor in supernet.state_dict().values())
    there, start = trained(recipe, pictures, second), recipe.build_supernet(10)
    if name == "float32":
        assert distance(weights(supernet), there) < 0.01
    # Dropout draws other numbers on a GPU, and low precisions round elsewhere; what was learned is near all the same.
    apart, learned = (torch.linalg.vector_norm(there["decayed"] - other.decayed.detach().cpu()) for other in (supernet, start))
    assert apart < learned


def test_calibration_and_accuracy_are_those_of_the_cpu(recipe_of: MakeRecipe, pictures: ImageData, device: torch.device) -> None:
    recipe = recipe_of(TINY)
    supernet = recipe.build_supernet(10)
    train(supernet, recipe, pictures)
    for arch in (supernet.space.largest(), supernet.space.smallest()):
        here, there = supernet.extract(arch).to(device), supernet.extract(arch)
        for network in (here, there):
            calibrate(network, pictures, resolution=arch.resolution)
        for (name, buffer), other in zip(here.named_buffers(), there.buffers(), strict=True):
            torch.testing.assert_close(buffer.cpu(), other, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        accuracies = [evaluate(network, pictures, resolution=arch.resolution) for network in (here, there)]
        # Two images may lie so near a border that rounding decides.
        assert abs(accuracies[0] - accuracies[1]) <= 2 / len(pictures)


def test_the_metrics_count_the_time_until_the_gpu_is_done(recipe_of: MakeRecipe, pictures: ImageData, device: torch.device) -> None:
    recipe = recipe_of(TINY)
    supernet = supernet_of(recipe, device)
    (phase,) = estimate_phases(supernet, recipe, pictures, world=World(0, 1, device))
    metrics = train(supernet_of(recipe, device), recipe, pictures)
    assert phase.step_ms > 0
    assert peak_memory(device) > 0
    # Six steps an epoch are fewer than are read at once, so the epoch's end alone waits for them.
    assert 1e3 * metrics[-1].duration_s / 6 > 0.1 * phase.step_ms


def test_a_network_is_specialized_and_exported(recipe_of: MakeRecipe, pictures: ImageData, device: torch.device, tmp_path: Path) -> None:
    recipe = recipe_of(TINY)
    supernet = supernet_of(recipe, device)
    train(supernet, recipe, pictures)
    before = weights(supernet)
    arch = supernet.space.largest(16)
    made, on_cpu = (
        specialize(
            place, arch, pictures, pictures, epochs=1, generator=torch.Generator().manual_seed(0), settings=FineTuning(batch_size=32)
        )
        for place in (supernet, copy.deepcopy(supernet).to(CPU))
    )
    assert made.metrics.accuracy > 0.3
    assert abs(made.metrics.accuracy - on_cpu.metrics.accuracy) <= 0.05
    found = made.network.state_dict()
    assert {tensor.device for tensor in found.values()} == {device}
    assert distance({name: tensor.cpu() for name, tensor in found.items()}, on_cpu.network.state_dict()) < 0.02
    shape = (1, 3, arch.resolution, arch.resolution)
    export(made.network, shape, tmp_path / "network.onnx")
    assert verify_outputs(made.network, tmp_path / "network.onnx", shape, generator=torch.Generator().manual_seed(1)) < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(supernet).items())
