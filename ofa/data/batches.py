"""From images to the batches that networks read.

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
    """The indices (int64) of each batch of one pass over ``count`` images: shuffled by ``generator``, in order without one.

    Args:
        count: images in the set.
        batch_size: images a batch.
        generator: shuffles the images.
        drop_last: for training: leave out the last batch when it is short, unless it is the only one.

    Raises:
        DataError: a batch would have no image, or to train on only one.
    """
    if batch_size < 1:
        raise DataError(f"a batch must have at least 1 image, but batch_size is {batch_size}; raise it")
    if drop_last and min(count, batch_size) < 2:
        raise DataError(
            f"a batch to train on must have at least 2 images, for one alone has no spread that batch norms could divide by, but there "
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
    """The images at ``index`` as input of a network, and their labels.

    Args:
        data: the set.
        index: int64 [B].
        resolution: height and width of the input in pixels.
        augmentation: how images are changed at random, if ``generator`` is there too.
        generator: the randomness of the augmentation, on the CPU.
        device: where the batch is made.

    Returns:
        float32 [B, C, H, W] in channels-last order, normalized; their labels, or float32 [B, K] if labels were mixed. Images that
        turn out to be broken are left out where the data skips such.

    Raises:
        DataError: a broken image where the data refuses such, or a batch of nothing else.
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
    """One pass over a data set; arguments as of ``batch_indices`` and ``make_batch``.

    Without a ``generator`` the images come in order and unaugmented, read by worker processes where that helps.

    Yields:
        as ``make_batch``; nothing for a batch of images that are all skipped because they turn out to be broken.
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
    """A batch that is to be made.

    Attributes:
        index: int64 [B].
        resolution: height and width of the input in pixels.
        seed: of its augmentation; None does not augment.
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
    """The batches of ``plans`` in their order, made ahead by worker processes.

    A batch depends on its plan alone, bit for bit, and not on the number of workers. Close the generator to end the workers early.
    Where broken images are skipped and all of a plan turn out to be broken, training (a plan with a seed) has the next images of the set
    instead, and a plan without a seed gives no batch.

    Args:
        data: the set.
        plans: the batches.
        augmentation: how images are changed at random.
        device: where the batches are to lie. Workers decode, cut and resize; all else is done there. A set in memory is copied to a GPU
            once, and everything is done there.
        workers: processes that read images; 0 reads here. There are fewer where shared memory has no room for their batches.
        prefetch: batches that each worker is ahead.
        start_method: how processes are started: ``fork``, ``spawn`` or ``forkserver``; None leaves it to Python.
        on_note: told in a sentence if there are fewer workers, or they are less far ahead, than was asked for.

    Yields:
        as ``make_batch``.

    Raises:
        DataError: an image that is refused, or workers that cannot be started, end, or do not answer.
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
    """How many workers of those that are asked for read how far ahead, within the shared memory there is."""
    if workers == 0 or not plans or isinstance(data, ImageData):
        return Ahead(0, prefetch)
    largest = max(len(plan.index) * data.rule.channels * math.prod(sides(plan.resolution)) for plan in plans)
    return within_shared_memory(largest, min(workers, len(plans)), prefetch, free_shared_memory())


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
    seconds: float = math.inf,
) -> float:
    """Images a second of the loader alone, its start-up not counted; after so many ``seconds`` no further batch is waited for."""
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
    """The set where its images are to be cut and resized: one in memory on the GPU that the batches are for."""
    return data.on(device) if isinstance(data, ImageData) and device.type == "cuda" else data


def _read(
    data: Images, index: Tensor, resolution: Resolution, augmentation: Augmentation | None, generator: torch.Generator | None
) -> Pixels:
    """The images at ``index``, those of a set in memory already moved and mirrored."""
    if not isinstance(data, EncodedImages):
        return data.read(index, resolution, augmentation, generator)
    boxes = augmentation.boxes(len(index), generator) if augmentation is not None and generator is not None else None
    return data.inputs(index, resolution, boxes)


_Batch = tuple[Pixels, Tensor | None, str | None]


class _Reader(Dataset[_Batch]):
    """Reads the images of a plan, and says where the randomness then stands.

    What is wrong is told and not raised: from another process an exception would arrive with a traceback for a message.
    """

    def __init__(self, data: Images, plans: Sequence[BatchPlan], augmentation: Augmentation | None) -> None:
        self._data, self._plans, self._augmentation = data, plans, augmentation

    def __len__(self) -> int:
        return len(self._plans)

    def __getstate__(self) -> dict[str, Any]:
        # Each tensor that is sent to a process takes a file handle; there may be thousands of plans.
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
        words = f"a data set must have images that can be read, but none of its {len(self._data)} can be now; look where they lie"
        return Pixels(torch.empty(0), torch.empty(0)), None, words

    def _tries(self, plan: BatchPlan) -> Iterator[Tensor]:
        """The images of a plan, and as many that follow them in the set, until all were tried."""
        count = len(self._data)
        for start in range(0, count, max(len(plan.index), 1)):
            yield (plan.index + start) % count


def _finish(
    data: Images, pixels: Pixels, augmentation: Augmentation | None, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Geometry of what was only decoded, colours, normalization and mixed labels, on the device."""
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
    """Mean and standard deviation on the scale 0..255, [1, C, 1, 1]; kept, because each copy to a GPU makes the host wait."""
    with torch.inference_mode(False):  # of use to every later batch, whatever mode the first is made in
        mean, std = (255 * torch.tensor(values, device=device).view(1, -1, 1, 1) for values in normalization)
    return mean, std
