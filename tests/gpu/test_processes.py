"""Processes that train together over NCCL (over gloo where the tests are tried on a CPU)."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
REFUSAL = re.compile(r"[^\n]*Duplicate GPU detected[^\n]*")

STEPS = """
import sys, torch, numpy as np
from ofa.families import get_space
from ofa.supernet import Supernet
from ofa.training.distributed import joined
from ofa.training.step import Objective, training_step

torch.set_num_threads(1)
folder, name, synchronized = sys.argv[1:]
with joined(name) as world, torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
    space = get_space("ofa-mbv3-tiny")
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).to(world.device).train().synchronize(synchronized == "yes")
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(2)
    x = torch.randn(12, 3, 16, 16, generator=generator).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (12,), generator=generator)
    index = world.share(torch.arange(12))
    batch = x[index].to(world.device), y[index].to(world.device)
    optimizer = torch.optim.SGD(supernet.parameter_groups(0), lr=0.1, momentum=0.9)
    archs = [space.largest(16), space.smallest(16), space.restrict(resolution=(16,)).sample(rng)]
    result = training_step(supernet, archs, batch, optimizer, Objective(label_smoothing=0.1), world=world)
    world.wait()
    told = {"gradient": supernet.flat_gradient, "statistics": supernet.statistics, "weights": supernet.decayed.detach()}
    torch.save({key: tensor.cpu().clone() for key, tensor in told.items()}, f"{folder}/{world.size}-{world.rank}.pt")
"""


def run(size: int, folder: Path, device: torch.device, *, joined: bool, synchronized: bool) -> list[str]:
    """Run the steps as processes that all take GPU 0; returns what each that failed wrote to stderr."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    processes = []
    for rank in range(size):
        told = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(told if joined else {})}
        command = [sys.executable, "-c", STEPS, str(folder), device.type, "yes" if synchronized else "no"]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    failures = []
    for process in processes:
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            errors += f"\nrank {processes.index(process)} did not end"
        if process.returncode:
            failures.append(errors)
    return failures


@pytest.fixture(scope="module")
def alone(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process comes to that joins nobody."""
    folder = tmp_path_factory.mktemp("alone")
    assert run(1, folder, device, joined=False, synchronized=False) == []
    return outcome(folder, 1)


def outcome(folder: Path, size: int, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{size}-{rank}.pt", weights_only=True)


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max(), name


def test_a_process_that_joins_alone_takes_the_same_step(alone: dict[str, torch.Tensor], device: torch.device, tmp_path: Path) -> None:
    # With synchronized batch norms, whose sums go through NCCL even where there is one process.
    assert run(1, tmp_path, device, joined=True, synchronized=True) == []
    assert_near(outcome(tmp_path, 1), alone)


def test_two_processes_on_one_gpu_take_the_step_that_one_takes(
    alone: dict[str, torch.Tensor], device: torch.device, tmp_path: Path
) -> None:
    failures = run(2, tmp_path, device, joined=True, synchronized=True)
    refusals = [found[0] for errors in failures if (found := REFUSAL.search(errors))]
    if refusals:
        pytest.skip(f"NCCL refuses two processes on one GPU: {refusals[0].strip()}")
    assert failures == []
    first, second = outcome(tmp_path, 2, 0), outcome(tmp_path, 2, 1)
    assert_near(first, alone)
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
