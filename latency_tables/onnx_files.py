"""Model files of networks and blocks for timing: built with random weights and exported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import onnx
import torch
from torch import nn

from devices.device import Device
from latency_tables.table import block_key
from ofa.blocks import Block, PlacedBlock, build_network
from ofa.exporting.formats import write_file
from ofa.exporting.onnx import at_size, to_model
from ofa.exporting.precision import PRECISIONS
from ofa.files import temporary_folder
from ofa.progress import Progress

__all__ = ["ModelFiles", "randomize"]


class ModelFiles:
    """Model files in a temporary folder.

    A network is exported once, a block once for all input sizes. The random weights depend on the blocks alone, so that a block always
    gives the same file, and a device that has the file already need not receive it again.

    Args:
        device: the device, which sets batch, precision, opset and format of the files.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(temporary_folder("build"))
        self._models: dict[Block, onnx.ModelProto] = {}
        self._paths: dict[tuple[PlacedBlock, ...], Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, named: Mapping[str, Sequence[PlacedBlock]], progress: Progress) -> dict[str, Path]:
        """Write blocks and networks; returns their files by name."""
        paths = {}
        for number, (name, lowered) in enumerate(named.items()):
            if tuple(lowered) not in self._paths:
                progress(number, len(named), f"exporting {name}")
                self._paths[tuple(lowered)] = self._export(lowered)
            paths[name] = self._paths[tuple(lowered)]
        return paths

    def _export(self, lowered: Sequence[PlacedBlock]) -> Path:
        precision = PRECISIONS.get(self._device.precision)
        if len(lowered) == 1:
            model = precision.of_block(self._block(lowered[0]))
        else:
            model = precision.of(self._model(build_network(lowered), *lowered))
        content = model.SerializeToString()
        return write_file(content, self._folder, self._device.format)

    def _block(self, placed: PlacedBlock) -> onnx.ModelProto:
        if not placed.block.any_size:
            return self._model(placed.block.build(), placed)
        if placed.block not in self._models:
            self._models[placed.block] = self._model(placed.block.build(), placed)
        return at_size(self._models[placed.block], placed.input)

    def _model(self, network: nn.Module, *lowered: PlacedBlock) -> onnx.ModelProto:
        first = lowered[0]
        key = "".join(block_key(placed.block) for placed in lowered)
        randomize(network, torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")))
        shape = (self._device.batch, *first.input)
        return to_model(network.eval(), shape, opset=self._device.opset)


def randomize(network: nn.Module, generator: torch.Generator) -> None:
    """Set random weights that keep activations of order one (He et al., ICCV 2015).

    PyTorch's default initialization shrinks activations at every layer, down to denormal numbers, which slow processors down.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
