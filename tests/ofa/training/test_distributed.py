"""Two real processes over gloo compute what one computes with the joined batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ofa.adopting.adoption import adopt_model
from ofa.errors import DeviceError, RecipeError
from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training.distributed import ALONE, World, joined
from ofa.training.step import Objective, training_step
from tests.ofa.adopting.contract import randomized

ROOT = Path(__file__).parents[3]


def adopted_supernet() -> Supernet:
    """One that normalizes images, and vectors where they have no pixels any more."""
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), *tail)
    return adopt_model(randomized(model), (3, 16, 16), resolutions=[]).supernet


SUPERNETS: dict[str, tuple[Callable[[], Supernet], int]] = {
    "blocks": (lambda: Supernet(get_space("ofa-mbv3-tiny"), generator=torch.Generator().manual_seed(0)), 12),
    "pooled": (lambda: Supernet(get_space("ofa-mbv4-tiny"), generator=torch.Generator().manual_seed(0)), 2),
    "adopted": (adopted_supernet, 2),
}
"""With the images of a batch: of two, each of two processes has one, whose batch norms behind the pooling see one value a channel."""


def take_steps(folder: str, dtype: str) -> None:
    """A step of each supernet, with this process's share of a batch; what it leaves is saved."""
    with joined("cpu") as world:
        for name, (make, images) in SUPERNETS.items():
            told = take_step(make().to(getattr(torch, dtype)), images, world)
            torch.save(told, f"{folder}/{name}-{world.size}-{world.rank}.pt")


def take_step(supernet: Supernet, images: int, world: World) -> dict[str, torch.Tensor]:
    """A step of three subnets."""
    space = supernet.train().synchronize(world.size > 1).space
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(2)
    x_BCHW = torch.randn(images, 3, 16, 16, generator=generator).to(supernet.decayed.dtype).contiguous(memory_format=torch.channels_last)
    y_B = torch.randint(0, 10, (images,), generator=generator)
    index = world.share(torch.arange(images))
    optimizer = torch.optim.SGD(supernet.parameter_groups(0), lr=0.1, momentum=0.9)
    archs = [space.largest(16), space.smallest(16), space.restrict(resolution=(16,)).sample(rng)]
    training_step(supernet, archs, (x_BCHW[index], y_B[index]), optimizer, Objective(label_smoothing=0.1), world=world)
    told = {"gradient": supernet.flat_gradient, "statistics": supernet.statistics, "weights": supernet.decayed.detach()}
    return {name: tensor.clone() for name, tensor in told.items()}


STEP = f"import sys; from {__name__} import take_steps; take_steps(*sys.argv[1:])"


def run_together(script: str, arguments: list[str], size: int, folder: Path) -> None:
    """Run a script as torchrun would, as ``size`` processes."""
    port = str(20000 + os.getpid() % 20000)
    processes = []
    for rank in range(size):
        told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **told}
        command = [sys.executable, "-c", script, *arguments]
        processes.append(subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [pytest.param("float32", 2e-5, marks=pytest.mark.slow), ("float64", 1e-12)])
def test_two_processes_take_the_step_that_one_takes_with_the_joined_batch(dtype: str, tolerance: float, tmp_path: Path) -> None:
    take_steps(str(tmp_path), dtype)
    run_together(STEP, [str(tmp_path), dtype], 2, tmp_path)
    for supernet in SUPERNETS:
        one, first, second = (torch.load(tmp_path / f"{supernet}-{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
        for name, expected in one.items():
            scale = expected.abs().max()
            assert (first[name] - expected).abs().max() <= tolerance * scale, (supernet, name)
            assert torch.equal(first[name], second[name]), (supernet, name)


TRAIN = """
import sys
from ofa.cli.main import build_app
build_app()(sys.argv[1:], prog_name="ofa")
"""


def test_two_processes_train_one_run_through_the_command_line(tmp_path: Path) -> None:
    arguments = [
        "train",
        "digits",
        "--device",
        "cpu",
        "-o",
        "two.run",
        "--set",
        "progressive_shrinking.epochs=5",
        "--set",
        "fractions=[0.05,0.05,0.9]",
    ]
    run_together(TRAIN, arguments, 2, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "two.run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["full", "kernel", "depth", "width-1", "width-2"]
    assert (tmp_path / "two.run" / "supernet.safetensors").is_file()


def test_alone_nothing_is_shared() -> None:
    index, tensor = torch.arange(5), torch.ones(3)
    assert torch.equal(ALONE.share(index), index)
    ALONE.average_(tensor)
    assert torch.equal(tensor, torch.ones(3))


def test_shares_are_equal_and_together_the_batch() -> None:
    worlds = [World(rank, 3, torch.device("cpu")) for rank in range(3)]
    index = torch.arange(12)
    assert torch.equal(torch.cat([world.share(index) for world in worlds]), index)
    with pytest.raises(RecipeError, match="set batch_size to 9"):
        worlds[0].share(torch.arange(10))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(device: str | None) -> Any:
        with joined(device) as world:
            return world

    assert enter("cpu").device.type == "cpu"
    for name, words in (("gpu", "must be cpu, cuda or cuda:N"), ("cuda:99", "torch sees"), ("mps", "must be cpu, cuda")):
        with pytest.raises(DeviceError, match=words):
            enter(name)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(DeviceError, match="lacks WORLD_SIZE"):
        enter("cpu")
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="'cuda:1' must be there, but torch sees 1 GPUs"):
        enter("cuda")
