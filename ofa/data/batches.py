"""Batches: network inputs made from labelled images.

Shapes: B images of a batch, C channels, H W height and width in pixels, K classes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ofa.data.augmentation import Augmentation
from ofa.data.encoded import EncodedImages
from ofa.data.images import ImageData, Images, Normalization, Pixels
from ofa.data.transfer import moved
from ofa.data.workers import Ahead, free_shared_memory, read_ahead, within_shared_memory
from ofa.errors import DataError
from ofa.resolution import Resolution, sides

__all__ = [
    "BatchPlan",
    "batch_indices",
    "batches",
    "default_workers",
    "how_far_ahead",
    "load_batches",
    "make_batch",
    "measure_loader",
]

_MOST_WORKERS = 8


def batch_indices(count: int, batch_size: int, generator: torch.Generator | None = None, *, drop_last: bool = False) -> list[Tensor]:
    """The image indices of each batch of one pass over a set.

    Args:
        count: number of images in the set.
        batch_size: images per batch.
        generator: shuffles the images; None keeps their order.
        drop_last: for training: whether to leave out a short last batch, unless it is the only one.

    Returns:
        int64 indices of each batch.

    Raises:
        DataError: a batch would have no image, or, with ``drop_last``, fewer than 2.
    """
    if batch_size < 1:
        raise DataError(f"a batch must have at least 1 image, but batch_size is {batch_size}; raise it")
    if drop_last and min(count, batch_size) < 2:
        raise DataError(
            f"a training batch must have at least 2 images, because batch norms need the variance of several, but there "
            f"are {count} images and batch_size is {batch_size}; raise the smaller"
        )
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    parts = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return parts[:-1] if drop_last and len(parts) > 1 and len(parts[-1]) < batch_size else parts


def make_batch(
    data: Images,
    index: Tensor,
    *,
    resolution: Resolution,
    augmentation: Augmentation | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Make a batch: images as network input, and their labels.

    Args:
        data: the set of images.
        index: indices of the images, int64 [B].
        resolution: height and width of the input in pixels.
        augmentation: random augmentation; it is applied only with a ``generator``.
        generator: random generator of the augmentation, on the CPU.
        device: device on which the batch is made.

    Returns:
        Normalized images, float32 [B, C, H, W] in channels-last memory format, and their labels, or float32 [B, K] if labels were mixed.
        Broken images are left out if the data skips them.

    Raises:
        DataError: an image is broken and the data refuses broken images, or all images of the batch are broken.
    """
    place = torch.device(device)
    pixels = _read(_resident(data, place), index, resolution, augmentation, generator)
    if not len(pixels.labels_B):
        raise DataError(f"a batch must have an image that can be read, but none of these can: {', '.join(pixels.broken[:3])}; remove them")
    return _finish(data, pixels, augmentation, generator, place)


def batches(
    data: Images,
    *,
    batch_size: int,
    resolution: Resolution,
    generator: torch.Generator | None = None,
    augmentation: Augmentation | None = None,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a data set; arguments are as of ``batch_indices`` and ``make_batch``.

    Without a ``generator``, images are in order and unaugmented, and are read by worker processes where that helps.

    Yields:
        Batches as of ``make_batch``. A batch whose images are all broken and skipped yields nothing.
    """
    indices = batch_indices(len(data), batch_size, generator, drop_last=drop_last)
    if generator is None:
        plans = [BatchPlan(index, resolution, None) for index in indices]
        yield from load_batches(data, plans, device=device, workers=default_workers(data))
        return
    place = torch.device(device)
    for index in indices:
        pixels = _read(_resident(data, place), index, resolution, augmentation, generator)
        if len(pixels.labels_B):
            yield _finish(data, pixels, augmentation, generator, place)
        else:
            _note_broken(data, pixels)


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """A planned batch.

    Attributes:
        index: indices of its images, int64 [B].
        resolution: height and width of the input in pixels.
        seed: seed of its augmentation; None does not augment.
    """

    index: Tensor
    resolution: Resolution
    seed: int | None


def load_batches(
    data: Images,
    plans: Sequence[BatchPlan],
    *,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    prefetch: int = 4,
    start_method: str | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The batches of ``plans``, in order, prefetched by worker processes.

    A batch depends, bit for bit, on its plan alone and not on the number of workers. Close the generator to end the workers early. If
    broken images are skipped and all images of a plan are broken, a plan with a seed (training) takes the next images of the set instead,
    and a plan without a seed yields no batch.

    Args:
        data: the set of images.
        plans: the batches.
        augmentation: random augmentation.
        device: device of the batches. Workers decode, crop and resize; all other steps run on this device. A set in memory is copied to a
            GPU once, and all steps run there.
        workers: number of processes that read images; 0 reads in this process. Fewer are used if shared memory has no room for their
            batches.
        prefetch: batches that each worker prepares ahead.
        start_method: start method of the processes: ``fork``, ``spawn`` or ``forkserver``; None leaves it to Python.
        on_note: called with a sentence if fewer workers, or a smaller prefetch, are used than was asked for.

    Yields:
        Batches as of ``make_batch``.

    Raises:
        DataError: an image is refused, or workers cannot be started, end, or do not answer.
    """
    place = torch.device(device)
    reader = _Reader(_resident(data, place), plans, augmentation)
    ahead = how_far_ahead(data, plans, workers, prefetch)
    if ahead.note and on_note is not None:
        on_note(ahead.note)
    if ahead.workers == 0:
        read: Iterator[_Batch] = (reader[number] for number in range(len(plans)))
    else:
        read = read_ahead(reader, ahead, pin_memory=place.type == "cuda", start_method=start_method)
    for pixels, state, error in read:
        if error is not None:
            raise DataError(error)
        if not len(pixels.labels_B):
            _note_broken(data, pixels)
            continue
        generator = None
        if state is not None:
            generator = torch.Generator()
            generator.set_state(state)
        yield _finish(data, Pixels(*pixels), augmentation, generator, place)


def how_far_ahead(data: Images, plans: Sequence[BatchPlan], workers: int, prefetch: int = 4) -> Ahead:
    """The number of workers and their prefetch that shared memory has room for, at most as many as asked for."""
    if workers == 0 or not plans or isinstance(data, ImageData):
        return Ahead(0, prefetch)
    largest = max(len(plan.index) * data.rule.channels * math.prod(sides(plan.resolution)) for plan in plans)
    return within_shared_memory(largest, min(workers, len(plans)), prefetch, free_shared_memory())


def default_workers(data: Images) -> int:
    """Default number of processes that read ``data``: 0 for a set in memory, otherwise one for each core but one, at most 8."""
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
    seconds: float = math.inf,
) -> float:
    """Images per second of the loader alone, without its start-up; it ends after ``seconds``. Arguments as of ``load_batches``."""
    place = torch.device(device)
    loader = load_batches(data, plans, augmentation=augmentation, device=place, workers=workers)
    next(loader)
    _wait(place)
    started, images = time.perf_counter(), 0
    for x_BCHW, _ in loader:
        images += len(x_BCHW)
        if time.perf_counter() - started > seconds:
            break
    _wait(place)
    rate = images / (time.perf_counter() - started)
    loader.close()
    return rate


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _resident(data: Images, device: torch.device) -> Images:
    """The set on the device where it is cropped and resized: a set in memory is copied to the batches' GPU."""
    return data.on(device) if isinstance(data, ImageData) and device.type == "cuda" else data


def _read(
    data: Images, index: Tensor, resolution: Resolution, augmentation: Augmentation | None, generator: torch.Generator | None
) -> Pixels:
    """The images at ``index``; images of a set in memory are already shifted and mirrored."""
    if not isinstance(data, EncodedImages):
        return data.read(index, resolution, augmentation, generator)
    boxes = augmentation.boxes(len(index), generator) if augmentation is not None and generator is not None else None
    return data.inputs(index, resolution, boxes)


_Batch = tuple[Pixels, Tensor | None, str | None]


class _Reader(Dataset[_Batch]):
    """Reads the images of a plan, and returns the state of the random generator after that.

    Errors are returned, not raised: the message of an exception from another process would be a traceback.
    """

    def __init__(self, data: Images, plans: Sequence[BatchPlan], augmentation: Augmentation | None) -> None:
        self._data, self._plans, self._augmentation = data, plans, augmentation

    def __len__(self) -> int:
        return len(self._plans)

    def __getstate__(self) -> dict[str, Any]:
        # As arrays: each tensor that is sent to a process takes a file handle, and there may be thousands of plans.
        return {**vars(self), "_plans": [(plan.index.numpy(), plan.resolution, plan.seed) for plan in self._plans]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._plans = [BatchPlan(torch.from_numpy(index), resolution, seed) for index, resolution, seed in state["_plans"]]

    def __getitem__(self, number: int) -> _Batch:
        plan = self._plans[number]
        broken: tuple[str, ...] = ()
        try:
            for index in self._tries(plan):
                generator = None if plan.seed is None else torch.Generator().manual_seed(plan.seed)
                pixels = _read(self._data, index, plan.resolution, self._augmentation if generator else None, generator)
                broken += pixels.broken
                if len(pixels.labels_B) or plan.seed is None:
                    return pixels._replace(broken=broken), generator.get_state() if generator else None, None
        except DataError as error:
            return Pixels(torch.empty(0), torch.empty(0)), None, str(error)
        words = f"a data set must have images that can be read, but none of its {len(self._data)} can be read now; look where they are"
        return Pixels(torch.empty(0), torch.empty(0)), None, words

    def _tries(self, plan: BatchPlan) -> Iterator[Tensor]:
        """The images of a plan, then as many following images of the set, and so on until all were tried."""
        count = len(self._data)
        for start in range(0, count, max(len(plan.index), 1)):
            yield (plan.index + start) % count


def _finish(
    data: Images, pixels: Pixels, augmentation: Augmentation | None, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Apply the remaining steps on the device: geometry of images that were only decoded, colours, normalization, mixed labels."""
    _note_broken(data, pixels)
    x_BCHW, y_B = moved(pixels.x_BCHW, device), moved(pixels.labels_B, device)
    if x_BCHW.dtype == torch.uint8:
        x_BCHW = x_BCHW.float()
        x_BCHW = augmentation(x_BCHW, generator) if augmentation is not None and generator is not None else x_BCHW
    if augmentation is not None and generator is not None:
        x_BCHW = augmentation.recolour(x_BCHW / 255, generator) * 255 if augmentation.recolours else x_BCHW
    x_BCHW = _normalize(x_BCHW, data.normalization).contiguous(memory_format=torch.channels_last)
    if augmentation is not None and generator is not None:
        return augmentation.mix(x_BCHW, y_B, data.num_classes, generator)
    return x_BCHW, y_B


def _note_broken(data: Images, pixels: Pixels) -> None:
    if pixels.broken and isinstance(data, EncodedImages):
        data.take_note(pixels.broken)


def _normalize(x_BCHW: Tensor, normalization: Normalization) -> Tensor:
    mean, std = _levels(normalization, x_BCHW.device)
    return (x_BCHW - mean) / std


@lru_cache(maxsize=16)
def _levels(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation on the scale 0..255, [1, C, 1, 1]; cached, because each copy to a GPU makes the host wait."""
    with torch.inference_mode(False):  # later batches use them in any mode
        mean, std = (255 * torch.tensor(values, device=device).view(1, -1, 1, 1) for values in normalization)
    return mean, std
