"""The bundle: one specialized network in a folder, ready to ship, with the numbers that were measured of it.

BUNDLE/
  README.md              what it is, what it does, and the lines that run it, with network.svg, its picture
  arch.json              which network of which space
  card.json              accuracy, latencies, costs, device, provenance
  labels.json            the classes in the order of the outputs
  preprocessing.json     how an image becomes the input of network.onnx
  network.safetensors    weights; the header says how to prepare images and what the classes are
  network.onnx           the same network for any runtime and any number of images; carries the same header
  photo.onnx             the same from a photo to probabilities: nothing is to be prepared
  network-int8.onnx      likewise in another precision, and photo-int8.onnx, once `ofa export` has written them
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
    """A bundle on disk, which may be changed."""

    @contextmanager
    def only_writer(self, *paths: str | os.PathLike[str]) -> Iterator[None]:
        """Inside the block this process is the only writer of files: of the whole bundle, if one of them is within it (``ofa.locking``).

        Raises:
            FileError: somebody else writes there, or the bundle is another one than that which was read.
        """
        with ExitStack() as locks:
            for path in dict.fromkeys(self.folder if self._name(path) else Path(path) for path in paths):
                locks.enter_context(writing(path, "exporting a bundle"))
            if any(map(self._name, paths)):
                self.card_now()
            yield

    @contextmanager
    def changing(self, *paths: str | os.PathLike[str]) -> Iterator[None]:
        """Inside the block files may be written; of those within the bundle the card names none then, and the new ones afterwards.

        Whenever the process is killed, the card names only files that are as it says.

        Raises:
            FileError, ExportError: the card or a file cannot be read or written, or somebody else writes there.
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
                # Where nothing came of it, the card names again what is as it was.
                kept = {name: digest for name, digest in there.items() if done or digest == before.files.get(name)}
                self._write_card(replace(before, files={**rest, **kept}))

    def _name(self, path: str | os.PathLike[str]) -> str:
        """How the card calls a file, if it is within the bundle; otherwise nothing."""
        folder, file = self.folder.resolve(), Path(path).resolve()
        return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else ""

    def card_now(self) -> Card:
        """The card as it is now: an engine or a measurement may have been added since it was read.

        Raises:
            FileError, ExportError: it cannot be read, or is of a bundle that took the place of this one.
        """
        card = Card.load(self.folder / CARD)
        if any(card.files.get(name) != self.card.files.get(name) for name in (ARCH, WEIGHTS)):
            raise FileError(
                f"a bundle must stay while it is worked on, but '{self.folder}' was written anew meanwhile; run the command again"
            )
        return card

    def note_measurement(self, device: str, measured_ms: float, conditions: Mapping[str, Any] | None = None) -> Bundle:
        """Write a measured latency to the card and return the bundle with it.

        Args:
            device: name of the device; it must be the one that the card's promise is of, if there is one.
            measured_ms: latency of one call.
            conditions: what it holds under, as JSON values.

        Raises:
            ExportError: the card promises a latency on another device.
            FileError: the card cannot be written, or somebody else writes the bundle.
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
        """Write facts to the card, by the names that it has for them, and return the bundle with it; errors as of ``note_measurement``."""
        with writing(self.folder, "noting on a card"):
            card = replace(self.card_now(), **facts)
            self._write_card(card)
        return replace(self, card=card)

    def _write_card(self, card: Card) -> None:
        """Write the card, and what people read of it unless somebody took that away."""
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
    """Write a bundle, all or nothing; a bundle that is already there is replaced, with its engines.

    Args:
        folder: the bundle; the folder it stands in must exist.
        network: of ``arch``, with storage of its own (``Supernet.extract``); left as it is.
        arch: the network's arch.
        card: what was measured; the four costs are counted here and need not be given.
        space: what ``arch`` is of; None for the one of ofa that it names, for as many classes.
        class_names: one name a class, in the order of the logits.
        mean: of each colour channel on the scale 0..1, subtracted from the images.
        std: of each colour channel on the scale 0..1, the images are divided by it.
        generator: where the random input comes from by which ``network.onnx`` is checked against ``network``.
        batch: images a call of ``network.onnx``; None leaves them open.
        opset: version of the operators.
        rule: how the images were read that the network knows; None cuts the middle part.
        task: what the network is for.

    Raises:
        WeightsError: ``network`` is not the network of ``arch``, or holds weights that are not finite.
        ExportError: it cannot be exported, ONNX Runtime computes something else, or ``mean`` or ``std`` do not fit its input.
        FileError: the folder cannot be written, or there is something else than a bundle.
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
    """Read a bundle and check that its files are as they were written, and belong together.

    Raises:
        DamagedError: a file of it is not as it was written.
        FileError: the folder is no bundle, or a file of it is missing or cannot be read.
        ArchError, ExportError, WeightsError: a file of it is damaged, of something else, or newer than this version.
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
