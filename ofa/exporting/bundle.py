"""The bundle: one specialized network in a folder, ready to ship, with the numbers that were measured of it.

BUNDLE/
  arch.json              which network of which space
  card.json              accuracy, latencies, costs, device, provenance
  network.safetensors    weights; the header says how to prepare images and what the classes are
  network.onnx           the same network for any runtime; carries the same header
  network-int8.onnx      likewise in another precision, once `ofa export` has written it
  engines/               engines built from network.onnx, each with its record
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa.arch import Arch
from ofa.blocks import empty_network
from ofa.costs import costs
from ofa.data import ImageRule
from ofa.errors import DamagedError, DataError, ExportError, FileError, OfaError, SchemaError, WeightsError
from ofa.exporting.bundle_checks import check_channels, check_classes, check_tensors
from ofa.exporting.card import Card
from ofa.exporting.onnx import OPSET, export, verify_outputs, write_model
from ofa.families import lower, named_space, save_arch
from ofa.files import replacing, replacing_folder, settle, unwritable, write_json
from ofa.locking import writing
from ofa.reading import parse_json, sha256_of
from ofa.reading.limits import LARGEST_MODEL
from ofa.resolution import resolution_to_json, sides
from ofa.schema import parse
from ofa.seal import seal
from ofa.space import Space
from ofa.weights import check_finite, read_weights, space_header, write_weights

__all__ = ["ENGINES", "Bundle", "load_bundle", "write_bundle"]

ENGINES = "engines"
"""Name of the folder of engines in a bundle."""

_KIND = "network"
_FLOAT = "fp32"
_ARCH, _CARD, _WEIGHTS, _ONNX = "arch.json", "card.json", "network.safetensors", "network.onnx"


@dataclass(frozen=True, eq=False, kw_only=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: where it is.
        space: what the network is of, for as many classes.
        arch: the network.
        card: what is known of it.
        class_names: one name a class, in the order of the logits.
        rule: how an image becomes the pixels 0..255 that are scaled to 0..1 for it.
        mean, std: of each colour channel on the scale 0..1; an image x in 0..1 enters the network as (x - mean) / std.
    """

    folder: Path
    space: Space
    arch: Arch
    card: Card
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rule: ImageRule

    @property
    def onnx_path(self) -> Path:
        """The network for any runtime."""
        return self.file(_FLOAT)

    def file(self, precision: str) -> Path:
        """Where the network's ONNX file of a precision stands; of others than ``fp32`` it is there once it was exported."""
        return self.folder / (_ONNX if precision == _FLOAT else f"network-{precision}.onnx")

    @property
    def engines(self) -> Path:
        """The folder of engines."""
        return self.folder / ENGINES

    @property
    def metadata(self) -> dict[str, str]:
        """What the files of the network carry: arch, classes and normalization, as text."""
        return _header(self.space, self.arch, self.class_names, self.mean, self.std, self.rule)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """[1, C, H, W] of one image."""
        return (1, len(self.mean), *sides(self.arch.resolution))

    def network(self) -> nn.Sequential:
        """The network with its weights, in evaluation mode, built anew from the arch.

        Raises:
            WeightsError: the weights are damaged, not finite, or not those of the arch.
        """
        weights = read_weights(self.folder / _WEIGHTS, kind=_KIND)
        network = empty_network(lower(self.space, self.arch))
        check_tensors(weights.tensors, network, f"'{weights.path}'")
        check_finite(weights.tensors, f"'{weights.path}'")
        # Copies, because tensors lie in the file at any address, and oneDNN's kernels for unaligned weights round otherwise.
        network.load_state_dict({name: tensor.clone() for name, tensor in weights.tensors.items()}, assign=True)
        return network.eval()

    def write_onnx(self, path: str | os.PathLike[str], *, dynamic_batch: bool = False, opset: int = OPSET) -> float:
        """Export the network anew, and run the file against PyTorch before it takes its place.

        Args:
            path: the file.
            dynamic_batch: whether it leaves the batch open.
            opset: version of its operators.

        Returns:
            The largest difference of the outputs, as a share of their scale.

        Raises:
            WeightsError: the weights are damaged.
            ExportError: the file cannot be exported, or computes something else.
            FileError: it cannot be written.
        """
        with self.only_writer(path):
            network = self.network()
            with self.changing(path), replacing(path) as temporary:
                write_model(network, self.input_shape, temporary, metadata=self.metadata, dynamic_batch=dynamic_batch, opset=opset)
                seal(temporary)  # or it would be read as a damaged file
                return verify_outputs(network, temporary, self.input_shape, generator=torch.Generator().manual_seed(0))

    def engine_path(self, flavour: str, gpus: Sequence[str] = (), *, precision: str = "fp32") -> Path:
        """Where an engine of this network stands: named by what builds it, the GPUs and the precision."""
        return self.engines / f"{'-'.join([flavour, *gpus, *[precision] * (precision != _FLOAT)])}.engine"

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
            write_json(replace(before, files=rest).to_json(), self.folder / _CARD)
            done = False
            try:
                yield
                done = True
            finally:
                there = {name: sha256_of(path, most=LARGEST_MODEL) for name, path in inside.items() if path.is_file()}
                # Where nothing came of it, the card names again what is as it was.
                kept = {name: digest for name, digest in there.items() if done or digest == before.files.get(name)}
                write_json(replace(before, files={**rest, **kept}).to_json(), self.folder / _CARD)

    def _name(self, path: str | os.PathLike[str]) -> str:
        """How the card calls a file, if it is within the bundle; otherwise nothing."""
        folder, file = self.folder.resolve(), Path(path).resolve()
        return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else ""

    def card_now(self) -> Card:
        """The card as it is now: an engine or a measurement may have been added since it was read.

        Raises:
            FileError, ExportError: it cannot be read, or is of a bundle that took the place of this one.
        """
        card = Card.load(self.folder / _CARD)
        if any(card.files.get(name) != self.card.files.get(name) for name in (_ARCH, _WEIGHTS)):
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
                    f"a card must be of one device, but '{self.folder / _CARD}' is of {card.device} and the measurement of {device}; "
                    "specialize a bundle for that device"
                )
            return self.note(device=device, measured_ms=measured_ms, measured_conditions=conditions)

    def note(self, **facts: Any) -> Bundle:
        """Write facts to the card, by the names that it has for them, and return the bundle with it; errors as of ``note_measurement``."""
        with writing(self.folder, "noting on a card"):
            card = replace(self.card_now(), **facts)
            write_json(card.to_json(), self.folder / _CARD)
        return replace(self, card=card)


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
    dynamic_batch: bool = False,
    opset: int = OPSET,
    rule: ImageRule | None = None,
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
        dynamic_batch: whether ``network.onnx`` leaves the batch open; otherwise it takes one image.
        opset: version of its operators.
        rule: how the images were read that the network knows; None cuts the middle part.

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
    card = replace(card, costs=costs(lowered))
    header = _header(space, arch, class_names, mean, std, rule or ImageRule(channels=len(mean)))
    _check_place(Path(folder))
    with writing(folder, "writing a bundle"), replacing_folder(folder) as temporary:
        bundle = _bundle(temporary, space, arch, card, header)
        save_arch(arch, space, temporary / _ARCH)
        write_weights(tensors, temporary / _WEIGHTS, header)
        export(network, bundle.input_shape, bundle.onnx_path, metadata=header, dynamic_batch=dynamic_batch, opset=opset)
        verify_outputs(network, bundle.onnx_path, bundle.input_shape, generator=generator)
        bundle.engines.mkdir()
        card = replace(card, files={name: sha256_of(temporary / name, most=LARGEST_MODEL) for name in (_ARCH, _WEIGHTS, _ONNX)})
        write_json(card.to_json(), temporary / _CARD)
    return replace(bundle, folder=Path(folder), card=card)


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
        before = _version(source)
        try:
            bundle = _load(source)
        except OfaError:
            if _version(source) == before:
                raise
        else:
            if _version(source) == before:
                return bundle


def _version(folder: Path) -> tuple[int, ...]:
    """Which bundle it is, and which card it has: it may be replaced, and its files too, while others read it."""
    numbers: tuple[int, ...] = ()
    with suppress(OSError):
        numbers += (folder.stat().st_ino,)
        card = (folder / _CARD).stat()
        numbers += (card.st_ino, card.st_mtime_ns)
    return numbers


def _load(source: Path) -> Bundle:
    missing = [name for name in (_ARCH, _CARD, _WEIGHTS, _ONNX) if not (source / name).is_file()]
    if missing:
        raise FileError(f"'{source}' must be a bundle, but has no {', '.join(missing)}; write one with: ofa specialize")
    arch, card = Arch.load(source / _ARCH), Card.load(source / _CARD)
    _check_files(source, card.files)
    weights = read_weights(source / _WEIGHTS, kind=_KIND)
    header = weights.metadata
    try:
        bundle = _bundle(source, weights.space(), arch, card, header)
        written_for = Arch.from_text(header["arch"])
    except (DataError, SchemaError, KeyError) as error:
        raise WeightsError(
            f"'{source / _WEIGHTS}' must carry the header of a bundle, but reading it met {type(error).__name__}: {error}; "
            "write the bundle again"
        ) from error
    if written_for != arch:
        raise WeightsError(
            f"'{source / _WEIGHTS}' must be of the network of {_ARCH}, but its header has another arch; write the bundle again"
        )
    return bundle


def _header(
    space: Space, arch: Arch, class_names: Sequence[str], mean: Sequence[float], std: Sequence[float], rule: ImageRule
) -> dict[str, str]:
    """What both files of the network carry, as text."""
    return {
        "kind": _KIND,
        **space_header(space),
        "resolution": str(resolution_to_json(arch.resolution)),
        "arch": json.dumps(arch.to_json()),
        "class_names": json.dumps(list(class_names)),
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
        "image_rule": str(rule),
    }


def _bundle(folder: Path, space: Space, arch: Arch, card: Card, header: Mapping[str, str]) -> Bundle:
    class_names, mean, std = (_listed(header, key, kind) for key, kind in (("class_names", str), ("mean", float), ("std", float)))
    # Bundles of earlier versions do not say: their images were of one shape, or cut.
    rule = ImageRule.from_text(header["image_rule"]) if "image_rule" in header else ImageRule(channels=len(mean))
    return Bundle(folder=folder, space=space, arch=arch, card=card, class_names=class_names, mean=mean, std=std, rule=rule)


def _listed(header: Mapping[str, str], key: str, hint: Any) -> Any:
    return parse(tuple[hint, ...], parse_json(header[key], what=f"{key} in the header", error=SchemaError))


def _check_place(folder: Path) -> None:
    try:
        is_other = folder.exists() and not (folder / _CARD).is_file() and (not folder.is_dir() or any(folder.iterdir()))
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error
    if is_other:
        raise FileError(f"'{folder}' must be a new or empty folder or a bundle, but is something else; choose another folder")


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """See that the files of a bundle are those that its card names."""
    for name, digest in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ExportError(f"the card of a bundle must name files within it, but '{folder / _CARD}' names '{name}'; write it again")
        if sha256_of(folder / name, most=LARGEST_MODEL) != digest:
            raise DamagedError(
                f"'{folder / name}' must be the file that was written with its bundle, but has another content; write the bundle again, "
                "or the engine, or copy all of its files together"
            )
