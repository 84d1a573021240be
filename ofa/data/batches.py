"""From images to the batches that networks read.

Shapes: B images of a batch, C channels, R pixels a side, K classes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa.data.augmentation import Augmentation
from ofa.data.encoded import EncodedImages
from ofa.data.images import ImageData, Images, Normalization, Pixels
from ofa.data.transfer import moved
from ofa.errors import DataError

__all__ = ["BatchPlan", "batch_indices", "batches", "default_workers", "load_batches", "make_batch", "measure_loader"]

_MOST_WORKERS = 8


def batch_indices(count: int, batch_size: int, generator: torch.Generator | None = None, *, drop_last: bool = False) -> list[Tensor]:
    """The indices (int64) of each batch of one pass over ``count`` images: shuffled by ``generator``, in order without one.

    Args:
        count: images in the set.
        batch_size: images a batch.
        generator: shuffles the images.
        drop_last: leave out the last batch when it is short, unless it is the only one.
    """
    if batch_size < 1:
        raise DataError(f"a batch must have at least 1 image, but batch_size is {batch_size}; raise it")
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    parts = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return parts[:-1] if drop_last and len(parts) > 1 and len(parts[-1]) < batch_size else parts


def make_batch(
    data: Images,
    index: Tensor,
    *,
    resolution: int,
    augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The images at ``index`` as input of a network, and their labels.

    Args:
        data: the set.
        index: int64 [B].
        resolution: side of the square input in pixels.
        augmentation: how images are changed at random, if ``generator`` is there too.
        generator: the randomness of the augmentation, on the CPU.
        device: where the batch is made.

    Returns:
        float32 [B, C, R, R] in channels-last order, normalized; int64 [B], or float32 [B, K] if labels were mixed. Images that
        turn out to be broken are left out where the data skips such.

    Raises:
        DataError: a broken image where the data refuses such, or a batch of nothing else.
    """
    place = torch.device(device)
    return _finish(data, _resident(data, place).read(index, resolution, augmentation, generator), augmentation, generator, place)


def batches(
    data: Images,
    *,
    batch_size: int,
    resolution: int,
    generator: torch.Generator | None = None,
    augmentation: Augmentation | None = None,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a data set; arguments as of ``batch_indices`` and ``make_batch``.

    Without a ``generator`` the images come in order and unaugmented, read by worker processes where that helps.

    Yields:
        as ``make_batch``.
    """
    indices = batch_indices(len(data), batch_size, generator, drop_last=drop_last)
    if generator is None:
        plans = [BatchPlan(index, resolution, None) for index in indices]
        yield from load_batches(data, plans, device=device, workers=default_workers(data))
        return
    for index in indices:
        yield make_batch(data, index, resolution=resolution, augmentation=augmentation, generator=generator, device=device)


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """A batch that is to be made.

    Attributes:
        index: int64 [B].
        resolution: side of the square input in pixels.
        seed: of its augmentation; None does not augment.
    """

    index: Tensor
    resolution: int
    seed: int | None


def load_batches(
    data: Images,
    plans: Sequence[BatchPlan],
    *,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    prefetch: int = 4,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The batches of ``plans`` in their order, made ahead by worker processes.

    A batch depends on its plan alone, bit for bit, and not on the number of workers. Close the generator to end the workers early.

    Args:
        data: the set.
        plans: the batches.
        augmentation: how images are changed at random.
        device: where the batches are to lie. Colours and labels are changed there, all else in the workers; a set in memory is copied
            to a GPU once, and everything is done there.
        workers: processes that read images; 0 reads here.
        prefetch: batches that each worker is ahead.

    Yields:
        as ``make_batch``.
    """
    place = torch.device(device)
    reader = _Reader(_resident(data, place), plans, augmentation)
    if workers == 0 or isinstance(data, ImageData):
        read: Iterator[_Read] = (reader[number] for number in range(len(plans)))
    else:
        read = iter(
            DataLoader(
                reader,
                batch_size=None,
                num_workers=min(workers, len(plans)) or 1,
                prefetch_factor=prefetch,
                pin_memory=place.type == "cuda",
                generator=torch.Generator(),  # which it would otherwise draw a seed from the global one for
            )
        )
    for pixels, state, error in read:
        if error is not None:
            raise DataError(error)
        generator = None
        if state is not None:
            generator = torch.Generator()
            generator.set_state(state)
        yield _finish(data, Pixels(*pixels), augmentation, generator, place)


def default_workers(data: Images) -> int:
    """How many processes should read ``data``: none for what lies in memory, else one a core but for the one that trains."""
    if isinstance(data, ImageData):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores - 1))


def measure_loader(
    data: Images,
    plans: Sequence[BatchPlan],
    *,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> float:
    """Images a second of the loader alone, its start-up not counted."""
    place = torch.device(device)
    loader = load_batches(data, plans, augmentation=augmentation, device=place, workers=workers)
    next(loader)
    _wait(place)
    started, images = time.perf_counter(), 0
    for x_BCRR, _ in loader:
        images += len(x_BCRR)
    _wait(place)
    return images / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _resident(data: Images, device: torch.device) -> Images:
    """The set where its images are to be cut and resized: one in memory on the GPU that the batches are for."""
    return data.on(device) if isinstance(data, ImageData) and device.type == "cuda" else data


_Read = tuple[Pixels, Tensor | None, str | None]


class _Reader(Dataset[_Read]):
    """Reads the images of a plan, and says where the randomness then stands.

    What is wrong is told and not raised: from another process an exception would arrive with a traceback for a message.
    """

    def __init__(self, data: Images, plans: Sequence[BatchPlan], augmentation: Augmentation | None) -> None:
        self._data, self._plans, self._augmentation = data, plans, augmentation

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int) -> _Read:
        plan = self._plans[number]
        generator = None if plan.seed is None else torch.Generator().manual_seed(plan.seed)
        try:
            pixels = self._data.read(plan.index, plan.resolution, self._augmentation if generator else None, generator)
        except DataError as error:
            return Pixels(torch.empty(0), torch.empty(0)), None, str(error)
        return pixels, generator.get_state() if generator else None, None


def _finish(
    data: Images, pixels: Pixels, augmentation: Augmentation | None, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Colours, normalization and mixed labels, on the device."""
    if pixels.broken and isinstance(data, EncodedImages):
        data.take_note(pixels.broken)
    if not len(pixels.labels_B):
        raise DataError(f"a batch must have an image that can be read, but none of these can: {', '.join(pixels.broken[:3])}; remove them")
    x_BCHW, y_B = moved(pixels.x_BCHW, device), moved(pixels.labels_B, device)
    if augmentation is not None and generator is not None:
        x_BCHW = augmentation.recolour(x_BCHW / 255, generator) * 255 if augmentation.recolours else x_BCHW
    x_BCHW = _normalize(x_BCHW, data.normalization).contiguous(memory_format=torch.channels_last)
    if augmentation is not None and generator is not None:
        return augmentation.mix(x_BCHW, y_B, data.num_classes, generator)
    return x_BCHW, y_B


def _normalize(x_BCHW: Tensor, normalization: Normalization) -> Tensor:
    mean, std = _levels(normalization, x_BCHW.device)
    return (x_BCHW - mean) / std


@lru_cache(maxsize=16)
def _levels(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation on the scale 0..255, [1, C, 1, 1]; kept, because each copy to a GPU makes the host wait."""
    with torch.inference_mode(False):  # of use to every later batch, whatever mode the first is made in
        mean, std = (255 * torch.tensor(values, device=device).view(1, -1, 1, 1) for values in normalization)
    return mean, std
