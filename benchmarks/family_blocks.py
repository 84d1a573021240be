"""What blocks of MobileNetV4 and of vision transformers take on a device, by one size at a time: what their named spaces were chosen by.

    python benchmarks/family_blocks.py --device local-cpu --device local-openvino --out benchmarks/results/family_blocks.json

Blocks are timed as those of a latency table are, all of them interleaved, and told as ms and as ms a GMAC. docs/spaces.md says what follows
from the answers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during

from devices import Device, get_device
from devices.measure import Failure
from latency_tables.timing import measure_blocks
from ofa.blocks import FusedInvertedBottleneck, PlacedBlock, Shape, TransformerLayer, UniversalInvertedBottleneck
from ofa.progress import silent


def universal(side: int, channels: tuple[int, int], kernels: tuple[int, int], *, expand: int = 4, stride: int = 1) -> PlacedBlock:
    """A universal inverted bottleneck where images of that side reach it."""
    inputs, outputs = channels
    block = UniversalInvertedBottleneck(
        in_channels=inputs,
        mid_channels=inputs * expand,
        out_channels=outputs,
        first_kernel=kernels[0],
        middle_kernel=kernels[1],
        stride=stride,
        residual=stride == 1,
    )
    return PlacedBlock("block", block, Shape(inputs, side, side))


def fused(side: int, channels: tuple[int, int], *, expand: int = 4) -> PlacedBlock:
    """A fused inverted bottleneck of stride 2 where images of that side reach it."""
    inputs, outputs = channels
    block = FusedInvertedBottleneck(in_channels=inputs, mid_channels=inputs * expand, out_channels=outputs, stride=2)
    return PlacedBlock("block", block, Shape(inputs, side, side))


def layer(tokens: int, width: int, *, heads: int = 4, head_channels: int = 64, mlp_ratio: int = 3) -> PlacedBlock:
    """A layer of a transformer on that many tokens."""
    block = TransformerLayer(
        in_channels=width, out_channels=width, heads=heads, head_channels=head_channels, mid_channels=width * mlp_ratio, norm_eps=1e-6
    )
    return PlacedBlock("block", block, Shape(tokens, width))


_KERNELS = [(0, 0), (0, 3), (0, 5), (3, 0), (5, 0), (3, 3), (3, 5), (5, 3), (5, 5)]
_DOWN = [(112, (32, 32)), (56, (32, 64)), (28, (64, 128)), (14, (128, 192))]

QUESTIONS: Mapping[str, Mapping[str, PlacedBlock]] = {
    "fused or depthwise, both of stride 2": {
        f"{side} px {inputs}->{outputs} {kind}": placed
        for side, (inputs, outputs) in _DOWN
        for kind, placed in (
            ("fused", fused(side, (inputs, outputs))),
            ("IB", universal(side, (inputs, outputs), (0, 3), stride=2)),
            ("ExtraDW", universal(side, (inputs, outputs), (3, 3), stride=2)),
        )
    },
    "channels, 14 px": {f"{width}": universal(14, (width, width), (0, 3)) for width in (96, 104, 112, 120, 128, 144, 160)},
    "kernels, 14 px, 128 channels": {f"{first} and {middle}": universal(14, (128, 128), (first, middle)) for first, middle in _KERNELS},
    "expansion, 14 px, 128 channels": {f"{expand}": universal(14, (128, 128), (0, 3), expand=expand) for expand in (2, 3, 4, 6)},
    "embedding, 196 tokens, 4 heads": {f"{width}": layer(196, width) for width in (192, 224, 240, 256, 288, 320, 384)},
    "channels of a head, 256 in all, 196 tokens": {
        f"{heads} of {256 // heads}": layer(196, 256, heads=heads, head_channels=256 // heads) for heads in (2, 4, 8)
    },
    "heads of 64 channels, 196 tokens, embedding 256": {f"{heads}": layer(196, 256, heads=heads) for heads in (2, 3, 4, 5, 6)},
    "MLP ratio, 196 tokens, embedding 256": {f"{ratio}": layer(196, 256, mlp_ratio=ratio) for ratio in (1, 2, 3, 4)},
    "tokens, embedding 256": {f"{tokens}": layer(tokens, 256) for tokens in (64, 100, 144, 196, 256)},
}


def measured(device: Device) -> dict[str, dict[str, dict[str, float]]]:
    """By question and case: median ms of a call, MMACs, and ms a GMAC."""
    blocks = {f"{question}\t{case}": placed for question, cases in QUESTIONS.items() for case, placed in cases.items()}
    found: dict[str, dict[str, float]] = {}
    for name, timing in measure_blocks(blocks, device, anchors={}, rng=np.random.default_rng(0), progress=silent):
        if isinstance(timing, Failure):
            raise SystemExit(f"{name}: {timing}")
        macs, ms = blocks[name].block.macs(blocks[name].input), timing.median_ms
        found[name] = {"median_ms": round(ms, 4), "mmacs": round(macs / 1e6, 2), "ms_a_gmac": round(ms / macs * 1e9, 2)}
    return {question: {case: found[f"{question}\t{case}"] for case in cases} for question, cases in QUESTIONS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", action="append", required=True, help="name of a device; may be repeated")
    parser.add_argument("--out", type=Path, help="JSON of the results")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine(), "devices": {}}
    for name in arguments.device:
        with others_during() as others:
            found = measured(get_device(name))
        report["devices"][name] = {"others_cores": others.cores, "questions": found}
        for question, cases in found.items():
            print(f"\n{name}: {question}")
            for case, values in cases.items():
                print(f"  {case:24} {values['median_ms']:8.3f} ms {values['mmacs']:8.1f} MMACs {values['ms_a_gmac']:8.2f} ms a GMAC")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
