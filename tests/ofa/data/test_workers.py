"""Processes that read ahead: the same batches, and a sentence when something is wrong with them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from ofa.calibrate import calibrate
from ofa.data import Augmentation, BatchPlan, EncodedImages, batches, how_far_ahead, load_batches, load_data
from ofa.data.workers import Ahead, read_ahead, within_shared_memory
from ofa.errors import DataError
from ofa.training import evaluate
from tests.ofa.data.pictures import encoded, picture, write_classes

GIVEN = ((0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def streamed(tmp_path: Path) -> EncodedImages:
    files = {f"{number}.png": encoded(picture((20 + number, 20), number)) for number in range(6)}
    data = load_data(str(write_classes(tmp_path / "photos", files)), unreadable="skip").normalized(GIVEN)
    assert isinstance(data, EncodedImages)
    return data


def plans(count: int = 4, size: int = 4, seeded: bool = True) -> list[BatchPlan]:
    return [BatchPlan(torch.arange(3 * number, 3 * number + size) % 12, 10, number if seeded else None) for number in range(count)]


@pytest.mark.skipif(sys.platform == "win32", reason="this system starts processes in one way only")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_do_not_depend_on_how_processes_are_started(method: str, tmp_path: Path) -> None:
    rows = [encoded(picture((20 + number, 20), number)) for number in range(12)]
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 6}), tmp_path / "a.parquet")
    data = load_data(str(tmp_path / "a.parquet")).normalized(GIVEN)
    augmentation = Augmentation(crop_scale=0.4, flip=True, shift=0.1)
    here = list(load_batches(data, plans(), augmentation=augmentation))
    there = list(load_batches(data, plans(), augmentation=augmentation, workers=1, start_method=method))
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_workers_send_bytes(streamed: EncodedImages) -> None:
    assert streamed.inputs(torch.arange(3), 8).x_BCHW.dtype == torch.uint8
    assert streamed.read(torch.arange(3), 8).x_BCHW.dtype == torch.float32


# -- shared memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "workers", "prefetch"),
    [(None, 4, 4), (10**9, 4, 4), (15_000_000, 4, 2), (8_000_000, 4, 1), (5_500_000, 2, 1), (3_000_000, 0, 4), (0, 0, 4)],
)
def test_no_more_is_read_ahead_than_shared_memory_holds(free: int | None, workers: int, prefetch: int) -> None:
    ahead = within_shared_memory(1_000_000, 4, 4, free)
    assert (ahead.workers, ahead.prefetch) == (workers, prefetch)
    assert bool(ahead.note) == ((workers, prefetch) != (4, 4) or workers == 0)
    if free is not None and workers:
        assert (workers * prefetch + 2) * 1_000_000 <= free


def test_with_little_shared_memory_batches_are_read_here_and_that_is_said(streamed: EncodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.statvfs", lambda path: types.SimpleNamespace(f_bavail=5, f_frsize=4096))
    notes: list[str] = []
    made = list(load_batches(streamed, plans(), workers=2, on_note=notes.append))
    assert len(made) == 4
    assert len(notes) == 1
    assert notes[0].startswith("shared memory (/dev/shm) must hold")
    assert "no workers read ahead; enlarge it, for a container with --shm-size" in notes[0]
    assert how_far_ahead(streamed, plans(), 2).workers == 0


SMALL = """
import sys, torch
from ofa.data import BatchPlan, load_batches, load_data

data = load_data(sys.argv[1]).normalized(((0.5,) * 3, (0.5,) * 3))
notes = []
plans = [BatchPlan(torch.arange(int(sys.argv[2])) % 12, 96, None)] * 6
print(len(list(load_batches(data, plans, workers=2, on_note=notes.append))), *notes)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="no right to mount")
@pytest.mark.parametrize(("size", "words"), [(8, "1 of 2 workers read"), (24, "no workers read ahead")])
def test_with_the_shared_memory_of_a_container_nothing_hangs(size: int, words: str, streamed: EncodedImages, tmp_path: Path) -> None:
    inside = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"'
    command = ["unshare", "-m", "bash", "-c", inside, "x", sys.executable, "-c", SMALL, str(tmp_path / "photos"), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 77:
        pytest.skip("no right to mount")
    assert done.stdout.startswith("6 shared memory"), done.stderr
    assert words in done.stdout


# -- what workers can do wrong ----------------------------------------------------------------------------------------


class Faulty(Dataset[torch.Tensor]):
    def __init__(self, fault: Any) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> torch.Tensor:
        if number == 1:
            self.fault()
        return torch.full((2,), number, dtype=torch.uint8)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def bus_error() -> None:
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGBUS)


def asleep() -> None:
    time.sleep(30)


@pytest.mark.parametrize("fault", [killed, bus_error])
def test_a_worker_that_is_killed_ends_in_one_sentence(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa.data.workers._SECONDS_BETWEEN_LOOKS", 0.25)
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(DataError, match=r"worker processes must not end while they read, .*set workers = 0, or fewer, or a smaller"):
        list(read_ahead(Faulty(fault), Ahead(1, 2), pin_memory=False))
    assert signal.getsignal(signal.SIGCHLD) == before


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa.data.workers._SECONDS_BETWEEN_LOOKS", 0.25)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.25)  # how long the sleeper is asked to end
    with pytest.raises(DataError, match="must come from its worker process within 1 s, but none did; set workers = 0"):
        list(read_ahead(Faulty(asleep), Ahead(1, 2), pin_memory=False, most_seconds=1))


@pytest.mark.skipif(sys.platform == "win32", reason="a script must guard its main module there")
def test_data_that_cannot_be_sent_to_a_process_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> tuple[np.ndarray[Any, Any], int]:
            return np.random.default_rng(number).integers(0, 256, (9 + number, 9, 3)).astype(np.uint8), number % 2

    module = types.ModuleType("own_local_data")
    module.data = Local()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_local_data", module)
    data = load_data("own_local_data:data")
    with pytest.raises(DataError, match=r"must be picklable, but .*Local.*; define its classes .* or set workers = 0"):
        list(load_batches(data, [BatchPlan(torch.arange(4), 8, None)], workers=1, start_method="spawn"))


# -- images that break while they are used ----------------------------------------------------------------------------


def spoil(data: EncodedImages, index: list[int]) -> None:
    for row in data.rows[index].tolist():
        Path(data.items.name(row)).write_bytes(b"overwritten")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_batch_of_nothing_but_broken_images_has_the_next_ones(workers: int, streamed: EncodedImages) -> None:
    spoil(streamed, [0, 1, 2, 3])
    made = list(load_batches(streamed, plans(), workers=workers))
    assert [len(y) for _, y in made] == [4, 3, 4, 3]
    expected = list(load_batches(streamed, [BatchPlan(torch.arange(4, 8), 10, 0)]))
    assert torch.equal(made[0][0], expected[0][0])
    assert {Path(name).name for name in streamed.broken} == {"0.png", "1.png", "2.png", "3.png"}


def test_a_batch_of_nothing_but_broken_images_is_not_judged(streamed: EncodedImages) -> None:
    spoil(streamed, [0, 1, 2, 3])
    assert [len(y) for _, y in load_batches(streamed, plans(seeded=False))] == [3, 4, 3]
    assert [len(y) for _, y in batches(streamed, batch_size=4, resolution=8)] == [4, 4]

    class First(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    assert evaluate(First(), streamed, resolution=8, batch_size=4) == 2 / 8
    network = nn.BatchNorm2d(3)
    calibrate(network, streamed, resolution=8, batch_size=4)
    assert network.running_mean is not None
    assert bool(network.running_mean.isfinite().all())


def test_a_set_that_has_become_unreadable_is_said_to_be(streamed: EncodedImages) -> None:
    spoil(streamed, list(range(12)))
    with pytest.raises(DataError, match="none of its 12 can be read now"):
        list(load_batches(streamed, plans()))
    with pytest.raises(DataError, match="none of the 12 is"):
        evaluate(nn.Identity(), streamed, resolution=8)
