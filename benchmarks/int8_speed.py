"""What int8 saves on this machine: networks of each family in float32 and in int8, and their blocks by kind.

    python benchmarks/int8_speed.py --out benchmarks/results/int8_speed.json

Random networks of each space are written in both precisions and timed by ONNX Runtime and by OpenVINO on one thread, in turns: each round
times all networks in one precision, then in the other. The blocks of the largest network are timed as those of a latency table are, in int8
with the integers that their neighbours share.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during

from devices import Device, Timing, time_models
from latency_tables.onnx_files import ModelFiles
from latency_tables.timing import measure_blocks
from ofa.blocks import PlacedBlock
from ofa.exporting.quantization.processor import instructions
from ofa.families import get_space, lower
from ofa.progress import silent

PRECISIONS = ("fp32", "int8")
SPACES = ("ofa-mbv3-32px", "ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50", "ofa-mbv4", "ofa-vit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", action="append", help=f"may be repeated; by default {', '.join(SPACES)}")
    parser.add_argument("--runtime", action="append", help="likewise; by default onnxruntime and openvino")
    parser.add_argument("--nets", type=int, default=20, help="of each space")
    parser.add_argument("--resolution", type=int, default=128, help="of networks that have it")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine(), "instructions": instructions(), "spaces": {}}
    for space in arguments.space or SPACES:
        report["spaces"][space] = {}
        for runtime, found in compared(space, arguments):
            report["spaces"][space][runtime] = found
            print(f"{space}, {runtime}: float32 / int8 {found['ratios']}")
            for kind, values in found["blocks"].items():
                print(f"  {kind:30} {values['fp32_ms']:9.3f} {values['int8_ms']:9.3f} ms  {values['ratio']:.2f}")
            if arguments.out:
                arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def compared(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """By runtime the networks and kinds of blocks of a space in both precisions."""
    space, rng = get_space(name), np.random.default_rng(0)
    side = arguments.resolution if arguments.resolution in space.resolutions else space.resolutions[0]
    archs = [replace(space.sample(rng), resolution=side) for _ in range(arguments.nets)]
    networks = {str(number): lower(space, arch) for number, arch in enumerate(archs)}
    with ExitStack() as stack:
        files = {each: stack.enter_context(ModelFiles(on("onnxruntime", each))).write(networks, silent) for each in PRECISIONS}
        for runtime in arguments.runtime or ("onnxruntime", "openvino"):
            with others_during() as others:
                times = in_turns(files, runtime, arguments.rounds)
                blocks = by_kind(lower(space, space.largest(side)), {each: on(runtime, each) for each in PRECISIONS})
            rows = [{each: times[each][key] for each in PRECISIONS} for key in networks]
            ratios = sorted(row["fp32"] / row["int8"] for row in rows)
            spread = {"least": round(ratios[0], 2), "median": round(float(np.median(ratios)), 2), "most": round(ratios[-1], 2)}
            yield runtime, {"resolution": side, "ratios": spread, "networks_ms": rows, "blocks": blocks, "others_cores": others.cores}


def on(runtime: str, precision: str) -> Device:
    """This machine, on one thread."""
    return Device(name=f"{runtime}-{precision}", runtime=runtime, precision=precision)


def in_turns(files: Mapping[str, Mapping[str, Path]], runtime: str, rounds: int) -> dict[str, dict[str, float]]:
    """By precision and network the median over the rounds, ms."""
    found: dict[str, dict[str, list[float]]] = {each: defaultdict(list) for each in files}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for precision, paths in files.items():
            for key, timing in time_models(on(runtime, precision), paths, rng=rng).items():
                found[precision][key].append(timing.median_ms)
    return {precision: {key: float(np.median(values)) for key, values in times.items()} for precision, times in found.items()}


def by_kind(lowered: Sequence[PlacedBlock], devices: Mapping[str, Device]) -> dict[str, dict[str, float]]:
    """What the blocks of a network take by their kind, ms of each added up."""
    blocks = {str(number): placed for number, placed in enumerate(lowered)}
    sums: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(PRECISIONS, 0.0))
    for precision, device in devices.items():
        for key, timing in measure_blocks(blocks, device, anchors={}, rng=np.random.default_rng(0), progress=silent):
            if isinstance(timing, Timing):
                sums[kind_of(blocks[key])][precision] += timing.median_ms
    return {
        kind: {"fp32_ms": round(each["fp32"], 3), "int8_ms": round(each["int8"], 3), "ratio": round(each["fp32"] / each["int8"], 2)}
        for kind, each in sums.items()
    }


def kind_of(placed: PlacedBlock) -> str:
    """Its kind, activation, and whether it has squeeze-and-excitation."""
    settings = vars(placed.block)
    parts = (placed.block.kind, settings.get("activation", ""), "SE" if settings.get("squeeze_excite") else "")
    return " ".join(filter(None, parts))


if __name__ == "__main__":
    main()
