"""The bundle: a folder with one specialized network, ready to deploy, and its measured accuracy and latency.

BUNDLE/
  README.md              description of the network, and code that runs it; network.svg is its picture
  arch.json              the arch and its space
  card.json              accuracy, latencies, costs, device, provenance
  labels.json            class names in the order of the outputs
  preprocessing.json     how an image becomes the input of network.onnx
  network.safetensors    weights; the header has preprocessing and class names
  network.onnx           the network for any runtime, with open batch size; it carries the same header
  photo.onnx             the network with preprocessing and activation: from a photo to probabilities
  network-int8.onnx      the network in another precision, and photo-int8.onnx, once `ofa export` has written them
  engines/               engines built from network.onnx, each with its record
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa.arch import Arch
from ofa.blocks import empty_network
from ofa.costs import costs
from ofa.data import ImageRule
from ofa.errors import DataError, ExportError, FileError, OfaError, SchemaError, WeightsError
from ofa.exporting.bundle_checks import check_channels, check_classes, check_files, check_place, check_tensors
from ofa.exporting.card import Card
from ofa.exporting.contents import Contents
from ofa.exporting.layout import ARCH, CARD, ENGINES, FLOAT, KIND, LABELS, PREPROCESSING, README, WEIGHTS, Signature, file_of, version_of
from ofa.exporting.network_files import put_model
from ofa.exporting.onnx import OPSET, to_model
from ofa.exporting.readme import preprocessing, write_readme
from ofa.families import lower, named_space, save_arch
from ofa.files import replacing_folder, settle, write_json
from ofa.locking import writing
from ofa.reading import sha256_of
from ofa.reading.limits import LARGEST_MODEL
from ofa.space import Space
from ofa.tasks import CLASSIFICATION, Task
from ofa.weights import check_finite, read_weights, write_weights

__all__ = ["ENGINES", "Bundle", "load_bundle", "write_bundle"]


class Bundle(Contents):
    """A bundle on disk, with methods that change its files."""

    @contextmanager
    def only_writer(self, *paths: str | os.PathLike[str]) -> Iterator[None]:
        """Context in which this process alone writes ``paths`` (``ofa.locking``); a path within the bundle locks the whole bundle.

        Raises:
            FileError: another process writes there, or the bundle on disk is no longer the bundle that was loaded.
        """
        with ExitStack() as locks:
            for path in dict.fromkeys(self.folder if self._name(path) else Path(path) for path in paths):
                locks.enter_context(writing(path, "exporting a bundle"))
            if any(map(self._name, paths)):
                self.card_now()
            yield

    @contextmanager
    def changing(self, *paths: str | os.PathLike[str]) -> Iterator[None]:
        """Context for writing files: files within the bundle are removed from its card first, and entered with their new checksums after.

        If the process is killed at any time, the card names only files that match their checksums.

        Raises:
            FileError, ExportError: the card or a file cannot be read or written, or another process writes there.
        """
        inside = {name: Path(path) for path in paths if (name := self._name(path))}
        with self.only_writer(*paths):
            if not inside:
                yield
                return
            before = self.card_now()
            rest = {name: digest for name, digest in before.files.items() if name not in inside}
            self._write_card(replace(before, files=rest))
            done = False
            try:
                yield
                done = True
            finally:
                there = {name: sha256_of(path, most=LARGEST_MODEL) for name, path in inside.items() if path.is_file()}
                # After an error, the card names again the files that are unchanged.
                kept = {name: digest for name, digest in there.items() if done or digest == before.files.get(name)}
                self._write_card(replace(before, files={**rest, **kept}))

    def _name(self, path: str | os.PathLike[str]) -> str:
        """The file's name on the card (its path within the bundle); empty if the file is outside."""
        folder, file = self.folder.resolve(), Path(path).resolve()
        return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else ""

    def card_now(self) -> Card:
        """Read the card again: an engine or a measurement may have been added since the bundle was loaded.

        Raises:
            FileError, ExportError: the card cannot be read, or another bundle has replaced this one.
        """
        card = Card.load(self.folder / CARD)
        if any(card.files.get(name) != self.card.files.get(name) for name in (ARCH, WEIGHTS)):
            raise FileError(
                f"a bundle must not be replaced while a command changes it, but '{self.folder}' was written anew; run the command again"
            )
        return card

    def note_measurement(self, device: str, measured_ms: float, conditions: Mapping[str, Any] | None = None) -> Bundle:
        """Write a measured latency to the card and return the bundle with it.

        Args:
            device: name of the device; it must be the device of the card's promised latency, if there is one.
            measured_ms: latency of one call in milliseconds.
            conditions: conditions of the measurement, as JSON values.

        Returns:
            The bundle with the new card.

        Raises:
            ExportError: the card promises a latency on another device.
            FileError: the card cannot be written, or another process writes the bundle.
        """
        with writing(self.folder, "noting a measurement"):
            card = self.card_now()
            if card.device not in (None, device):
                raise ExportError(
                    f"a card must be of one device, but '{self.folder / CARD}' is of {card.device} and the measurement of {device}; "
                    "specialize a bundle for that device"
                )
            return self.note(device=device, measured_ms=measured_ms, measured_conditions=conditions)

    def note(self, **facts: Any) -> Bundle:
        """Write fields of the card (by name), and return the bundle with the new card; errors as of ``note_measurement``."""
        with writing(self.folder, "noting on a card"):
            card = replace(self.card_now(), **facts)
            self._write_card(card)
        return replace(self, card=card)

    def _write_card(self, card: Card) -> None:
        """Write the card, and the README unless it was removed."""
        write_json(card.to_json(), self.folder / CARD)
        if (self.folder / README).exists():
            write_readme(replace(self, card=card))


def write_bundle(
    folder: str | os.PathLike[str],
    network: nn.Module,
    arch: Arch,
    card: Card,
    *,
    space: Space | None = None,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
    batch: int | None = None,
    opset: int = OPSET,
    rule: ImageRule | None = None,
    task: Task = CLASSIFICATION,
) -> Bundle:
    """Write a bundle atomically. An existing bundle is replaced, including its engines.

    Args:
        folder: the bundle's folder; its parent must exist.
        network: the network of ``arch``, with storage of its own (``Supernet.extract``); it is not changed.
        arch: the network's arch.
        card: measured values; the four costs are computed here and need not be given.
        space: the space of ``arch``; None is ofa's space of that name, for as many classes as there are names.
        class_names: one name for each class, in the order of the logits.
        mean: mean of each colour channel (images in 0..1), subtracted from the images.
        std: standard deviation of each colour channel (images in 0..1), by which the images are divided.
        generator: draws the random input on which ``network.onnx`` is compared with ``network``.
        batch: images per call of ``network.onnx``; None leaves the batch size open.
        opset: ONNX opset version.
        rule: how the network's training images were read; None is a central crop.
        task: the network's task.

    Returns:
        The bundle.

    Raises:
        WeightsError: ``network`` is not the network of ``arch``, or has weights that are not finite.
        ExportError: the network cannot be exported, ONNX Runtime's outputs differ, or ``mean`` or ``std`` do not fit the input.
        FileError: the folder cannot be written, or is neither empty nor a bundle.
    """
    space = named_space(arch.space, len(class_names)) if space is None else space
    lowered = lower(space, arch)
    check_classes(space, class_names)
    check_channels(lowered[0].block.in_channels, mean, std)
    tensors = network.state_dict()
    check_tensors(tensors, empty_network(lowered), f"the network of a bundle of {arch.space}")
    check_finite(tensors, f"the network of a bundle of {arch.space}")
    signature = Signature(
        class_names=tuple(class_names),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        rule=rule or ImageRule(channels=len(mean)),
        task=task.name,
        activation=task.activation,
    )
    check_place(Path(folder))
    with writing(folder, "writing a bundle"), replacing_folder(folder) as temporary:
        bundle = Bundle(folder=temporary, space=space, arch=arch, card=replace(card, costs=costs(lowered), files={}), signature=signature)
        save_arch(arch, space, temporary / ARCH)
        write_weights(tensors, temporary / WEIGHTS, bundle.metadata)
        write_json(list(signature.class_names), temporary / LABELS)
        write_json(preprocessing(bundle), temporary / PREPROCESSING)
        bundle.engines.mkdir()
        model = to_model(network, bundle.input_shape, metadata=bundle.metadata, dynamic_batch=True, opset=opset)
        put_model(bundle, model, bundle.onnx_path, batch=batch, network=network, companion=bundle.photo_file(), generator=generator)
        names = (ARCH, WEIGHTS, LABELS, PREPROCESSING, file_of(FLOAT), file_of(FLOAT, takes_photos=True))
        sums = {name: sha256_of(temporary / name, most=LARGEST_MODEL) for name in names}
        bundle = replace(bundle, card=replace(bundle.card, files=sums))
        write_json(bundle.card.to_json(), temporary / CARD)
        write_readme(bundle)
    return replace(bundle, folder=Path(folder))


def load_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Load a bundle, and check that its files are unchanged and belong together.

    Args:
        folder: the bundle's folder.

    Returns:
        The bundle.

    Raises:
        DamagedError: a file does not match its checksum.
        FileError: the folder is no bundle, or a file is missing or cannot be read.
        ArchError, ExportError, WeightsError: a file is damaged, of another kind, or of a newer version.
    """
    source = Path(folder)
    settle(source)
    while True:
        before = version_of(source)
        try:
            bundle = _load(source)
        except OfaError:
            if version_of(source) == before:
                raise
        else:
            if version_of(source) == before:
                return bundle


def _load(source: Path) -> Bundle:
    missing = [name for name in (ARCH, CARD, WEIGHTS, file_of(FLOAT)) if not (source / name).is_file()]
    if missing:
        raise FileError(f"'{source}' must be a bundle, but has no {', '.join(missing)}; write one with: ofa specialize")
    arch, card = Arch.load(source / ARCH), Card.load(source / CARD)
    check_files(source, card.files)
    weights = read_weights(source / WEIGHTS, kind=KIND)
    header = weights.metadata
    try:
        bundle = Bundle(folder=source, space=weights.space(), arch=arch, card=card, signature=Signature.of_header(header, card))
        written_for = Arch.from_text(header["arch"])
    except (DataError, SchemaError, KeyError) as error:
        raise WeightsError(
            f"'{source / WEIGHTS}' must carry the header of a bundle, but reading it met {type(error).__name__}: {error}; "
            "write the bundle again"
        ) from error
    if written_for != arch:
        raise WeightsError(
            f"'{source / WEIGHTS}' must be of the network of {ARCH}, but its header has another arch; write the bundle again"
        )
    return bundle
