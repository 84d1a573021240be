"""The part `speed`: a training step beside MIT's package, in turns, and what makes it faster.

Run by run.py. Each side is a process of its own (step_worker.py). Ours and MIT's take turns on the card, each turn a few steps; between
turns a side gives its memory back. What helps is measured afterwards, each by itself, beside the median of MIT's turns. The step is that
of training_step.py: a teacher and four subnets of `ofa-mbv3-w1.0`.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from parts import GIB, ROOT, Report, part_arguments, require_card
from step_process import StepProcess

LEAST_MEMORY_BYTES = 12 * GIB
CONFIGURATIONS = (("bfloat16", 128, 224), ("float32", 128, 224), ("bfloat16", 256, 128), ("float32", 256, 128))
"""Precision, images and pixels, in order of value."""
DRY = (("float32", 2, 32),)
MAIN, PEER = "ofa", "mit"
WHAT_HELPS = (
    "own-depthwise",
    "cudnn-depthwise",
    "torch-kernels",
    "mit-tuned",
    "unfused-optimizer",
    "streams",
    "eager",
    "graph",
    "separate",
    "contiguous",
    "eager-torch-kernels",
)
"""Further sides, measured at the first two configurations; see step_worker.py."""
STEPS, TURNS = 5, 3
TURN_S = 8
"""Seconds that must be left for a turn to begin."""
PROFILED = (MAIN, PEER)
MATRIX = 8192
"""Side of the matrices by whose product the card's peak is measured."""


def main() -> None:
    arguments = part_arguments(__doc__).parse_args()
    with Report("speed", arguments) as report, ExitStack() as stack:
        require_card(arguments.device, LEAST_MEMORY_BYTES)
        names = [MAIN, *([PEER] if arguments.mit else [])]
        if not arguments.mit:
            report.row("MIT's package", "not packed (pack.py --mit), so there is nothing to compare with")
        sides = [stack.enter_context(started(name, report, arguments.device, arguments.mit)) for name in names]
        if arguments.device != "cpu":
            report.figure("peak_tflops", {kind: matrix_tflops(kind, arguments.device) for kind in ("bfloat16", "float32")})
        for configuration in DRY if arguments.dry else CONFIGURATIONS:
            compare(report, sides, configuration, TURNS, dry=arguments.dry)
        if not arguments.dry:
            what_helps(report, arguments.device, arguments.mit)


def what_helps(report: Report, device: str, mit: Path | None) -> None:
    """Measure the other sides one after the other; the next starts while one is measured."""
    names = [name for name in WHAT_HELPS if mit or not name.startswith(PEER)]
    following: StepProcess | None = started(names[0], report, device, mit)
    for number in range(len(names)):
        assert following is not None
        with following as side:
            following = started(names[number + 1], report, device, mit) if number + 1 < len(names) else None
            for configuration in CONFIGURATIONS[:2]:
                compare(report, [side], configuration, 1, dry=False)


def started(name: str, report: Report, device: str, mit: Path | None) -> StepProcess:
    # MIT's package and this project have one name; what comes first is imported.
    paths = [str(mit) if name.startswith(PEER) else str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # A dry run's steps are so small that threads would mostly wait for each other.
    options = ["--device", device, *(["--threads", "1"] if device == "cpu" else [])]
    return StepProcess(name, sys.executable, options, environment=environment, errors=report.work / f"{name}.err")


def compare(report: Report, sides: Sequence[StepProcess], configuration: tuple[str, int, int], turns: int, *, dry: bool) -> None:
    """Let some sides take turns, and keep what they find after each turn."""
    precision, batch, resolution = configuration
    key = f"{precision}, {batch} x {resolution} px"
    for turn in range(turns):
        for side in sides:
            found = report.content["figures"].setdefault("steps", {}).setdefault(key, {})
            mine = found.setdefault(side.name, {"seconds": [], "peak_mib": 0.0})
            if "failed" in mine or report.left_s < TURN_S:
                continue
            burst = {"steps": 1 if dry else STEPS, "batch": batch, "resolution": resolution, "precision": precision}
            try:
                answer = side.burst(**burst, profile=side.name in PROFILED and turn == 0 and not dry)
            except RuntimeError as error:
                mine["failed"] = str(error)
                continue
            mine["seconds"].append(answer["seconds"])
            mine["peak_mib"] = max(mine["peak_mib"], answer["peak_mib"])
            mine["profile"] = answer.get("profile") or mine.get("profile")
            summarize(report, key, batch)


def summarize(report: Report, key: str, batch: int) -> None:
    """Images a second of each side, and how many times faster than MIT's each is, turn by turn."""
    found = report.content["figures"]["steps"][key]
    peer = [statistics.median(turn) for turn in found.get(PEER, {}).get("seconds", [])]
    for name, mine in found.items():
        medians = [statistics.median(turn) for turn in mine["seconds"]]
        if not medians:
            continue
        mine["images_per_s"] = round(batch / statistics.median(medians), 1)
        beside = peer if len(medians) == len(peer) else [statistics.median(peer)] if peer else []
        ratios = [theirs / ours for ours, theirs in zip(medians, beside, strict=False)]
        text = f"{mine['images_per_s']:,.0f} images/s, {mine['peak_mib'] / 1024:.1f} GiB"
        if ratios:
            mine["speed_against_mit"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
            text += f", {mine['speed_against_mit']['median']:.2f} x MIT"
        if profile := mine.get("profile"):
            text += f", idle {profile['idle_ms'] / (profile['busy_ms'] + profile['idle_ms']):.0%}"
        report.row(f"{name}, {key}", text)
    peak = report.content["figures"].get("peak_tflops", {}).get(key.partition(",")[0])
    if peak and "images_per_s" in found.get(MAIN, {}):
        tflops = found[MAIN]["images_per_s"] * 2 * step_macs(key) / 1e12
        found[MAIN]["tflops"] = round(tflops, 2)
        found[MAIN]["share_of_peak"] = round(tflops / peak, 4)
        report.row(f"share of peak, {key}", f"{tflops:.1f} of {peak:.0f} TFLOP/s measured by a matrix product")


def step_macs(key: str) -> int:
    """Multiply-accumulates of a step for one image: the teacher forward, four subnets forward and twice that backward."""
    import torch  # noqa: F401  # the project's modules need it, and say so less clearly
    from step_worker import SEEDS, arch_of, settings

    from ofa.cost import macs
    from ofa.families import get_space, lower

    resolution = int(key.rpartition(" x ")[2].removesuffix(" px"))
    space = get_space("ofa-mbv3-w1.0")
    scale = (resolution / 224) ** 2
    subnets = sum(macs(lower(space, arch_of(space, settings(seed)))) for seed in SEEDS)
    return round(scale * (macs(lower(space, space.largest())) + 3 * subnets))


def matrix_tflops(precision: str, device: str) -> float:
    """What a large matrix product reaches on random data, in TFLOP/s; of float32 as torch's convolutions compute it, in TF32."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(MATRIX, MATRIX, device=device, generator=generator).to(getattr(torch, precision)) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        times = []
        for _ in range(8):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            a @ b
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return round(2 * MATRIX**3 / (statistics.median(times[3:]) / 1e3) / 1e12, 1)


if __name__ == "__main__":
    main()
