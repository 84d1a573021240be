"""The bytes of weights that a search counts in a precision are those of the file that the library writes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ofa.blocks import PlacedBlock, build_network
from ofa.cost import weight_bytes
from ofa.costs import COSTS, FLOAT32, NumberFormat
from ofa.exporting.onnx import to_model
from ofa.exporting.precision import PRECISIONS
from ofa.families import get_space, lower
from ofa.resolution import sides
from ofa.row_costs import costs_of

NAMES = ("ofa-mbv3-32px", "ofa-mbv4", "ofa-resnet50-tiny", "ofa-vit-tiny")


@lru_cache
def largest(name: str) -> tuple[tuple[PlacedBlock, ...], onnx.ModelProto]:
    """The largest network of a space at its least resolution, and its file."""
    space = get_space(name)
    arch = space.largest(space.resolutions[0])
    lowered = lower(space, arch)
    network = build_network(lowered, generator=torch.Generator().manual_seed(0)).eval()
    return lowered, to_model(network, (1, space.in_channels, *sides(arch.resolution)))


@pytest.mark.parametrize("precision", PRECISIONS.names())
@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_what_the_constants_of_a_file_take(name: str, precision: str) -> None:
    (lowered, model), chosen = largest(name), PRECISIONS.get(precision)
    estimate, model = COSTS.get("weight_bytes").in_file(lowered, chosen.stored), chosen.of(model)
    constants = sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    # Biases of transformers stay in float32, and are few in all but the smallest of them.
    assert estimate == pytest.approx(constants, rel=0.2 if (name, precision) == ("ofa-vit-tiny", "int8") else 0.01)
    if name == "ofa-mbv4":  # operators and names are the rest, of large networks a small one
        assert model.ByteSize() == pytest.approx(estimate, rel=0.03)


def test_arrays_count_as_blocks_do_in_every_format() -> None:
    space = get_space("ofa-mbv3-tiny")
    rows_NC = space.sample_rows(30, np.random.default_rng(0))
    for stored in (FLOAT32, PRECISIONS.get("fp16").stored, NumberFormat(weight=1, channel=5, bias=12, other=3)):
        found = costs_of(space, stored)(rows_NC, ("weight_bytes", "macs"))
        for row, value, macs in zip(rows_NC.tolist(), found["weight_bytes"], found["macs"], strict=True):
            lowered = lower(space, space.decode(row))
            assert value == COSTS.get("weight_bytes").in_file(lowered, stored)
            assert stored is not FLOAT32 or value == weight_bytes(lowered)
            assert macs == COSTS.get("macs").of(lowered) == COSTS.get("macs").in_file(lowered, stored)


def test_precisions_say_the_bits_of_a_weight() -> None:
    assert {name: PRECISIONS.get(name).bits for name in ("fp32", "fp16", "int8")} == {"fp32": 32, "fp16": 16, "int8": 8}
