"""Several processes that train one supernet together: the same subnets on each, each with its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from ofa.errors import DeviceError, RecipeError

__all__ = ["ALONE", "World", "compute_device", "joined"]

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The processes that train together, seen from one of them.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: device on which this process trains.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """This process's share of a batch. All shares have equal size, so that the mean of their means is the batch mean.

        Raises:
            RecipeError: the batch cannot be cut into equal parts.
        """
        if len(index) % self.size:
            raise RecipeError(
                f"a batch must divide among the {self.size} processes, but has {len(index)} images; set batch_size to "
                f"{max(1, len(index) // self.size) * self.size}"
            )
        length = len(index) // self.size
        return index[self.rank * length : (self.rank + 1) * length]

    def average_(self, tensor: Tensor) -> None:
        """Replace a tensor by its mean over all processes, in one call."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size

    def wait(self) -> None:
        """Wait until all processes have called this (barrier)."""
        if self.size > 1:
            dist.barrier()


ALONE = World(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the processes that ``torchrun`` started; without torchrun, train in one process.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes a GPU if torch sees one. Under torchrun each process takes the GPU of its
            local rank.

    Raises:
        DeviceError: the device does not exist, or only some of torchrun's variables are set.
    """
    place = compute_device(device)
    found = [name for name in _VARIABLES if name in os.environ]
    if not found:
        # Some functions of torch, such as page-locked memory, use the current GPU.
        with torch.cuda.device(place) if place.type == "cuda" else nullcontext():
            yield World(0, 1, place)
        return
    if len(found) < len(_VARIABLES):
        missing = ", ".join(name for name in _VARIABLES if name not in found)
        raise DeviceError(f"a process of several must have {', '.join(_VARIABLES)} in its environment, but lacks {missing}; use torchrun")
    if place.type == "cuda":
        place = compute_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", device_id=place if place.type == "cuda" else None)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def compute_device(name: str | None) -> torch.device:
    """The torch device of a name.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``; None takes a GPU if torch sees one.

    Raises:
        DeviceError: the name is another, or the device does not exist.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"a device must be cpu, cuda or cuda:N, but is '{name}'; choose one of them") from error
    if place.type not in ("cpu", "cuda"):
        raise DeviceError(f"a device must be cpu, cuda or cuda:N, but is '{name}'; choose one of them")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"'{name}' must be there, but torch sees {torch.cuda.device_count()} GPUs; use cpu or install torch for your GPU")
    return place
