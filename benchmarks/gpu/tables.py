"""The part `tables`: latency tables of PyTorch on the card, eager and compiled, and their error on whole networks beside the noise floor.

Run by run.py. Cases come in order of value, and one is begun only when there is time for it. For what is compiled, inductor's cache is
filled first by processes on all cores, because the process that measures would compile one network after the other.
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parts import GIB, Report, part_arguments, require_card

if TYPE_CHECKING:
    from devices import Device, TimingPolicy
    from ofa.arch import Arch
    from ofa.space import Space

SPACE, RESOLUTION_PX, NETS, CALIBRATION_NETS = "ofa-mbv3-w1.0", 224, 60, 20
"""What is measured, and on how many networks tables are checked and calibrated."""
PROCESSES = 2
"""In which whole networks are timed. Each starts CUDA and loads all networks, which takes longer than to time them; two are the least
that a noise floor can be told by."""
ENERGY_S = 0.1
"""Over which a block's energy is counted, and then to the next step of NVML's counter, of which some come in this time."""
FEW_NETS, LEAST_NETS, AGAIN, MARGIN = 9, 20, 8, 1.2
"""The least that a calibration takes, where loading a network takes seconds; the least of a check, where the time is short; networks of
the calibration that a check times again; and by how much a step may take longer than expected."""
LEAST_MEMORY_BYTES = 8 * GIB
WORKER_BYTES = 2 * GIB
"""Of the card, for a process that compiles."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: as on the command line and in the report.
        batch: images a call.
        compiled: by ``torch.compile``.
        table: whether blocks are measured; otherwise a few whole networks are, eager beside compiled.
        least_s: seconds below which it is not begun.
    """

    name: str
    batch: int
    compiled: bool
    table: bool
    least_s: float


CASES = (
    Case("eager-1", 1, False, True, 0),
    Case("eager-32", 32, False, True, 90),
    Case("compiled-networks", 1, True, False, 60),
    Case("compiled-1", 1, True, True, 240),
)
DRY_CASES = ("eager-1",)
"""A compiler for processors takes seconds a block, and a minute for all of the smallest space."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured; see the constants above."""

    space: Space
    resolution_px: int
    nets: int
    calibration_nets: int
    policy: TimingPolicy


def main() -> None:
    parser = part_arguments(__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", choices=names, help="which; all by default, in a dry run the eager ones")
    arguments = parser.parse_args()
    with Report("tables", arguments) as report:
        require_card(arguments.device, LEAST_MEMORY_BYTES)
        sizes = sizes_of(arguments.dry)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(report.work.resolve() / "inductor")
        wanted = arguments.cases or (DRY_CASES if arguments.dry else names)
        failed = [case.name for case in CASES if case.name in wanted and not measured(case, sizes, arguments, report)]
        if failed:
            raise RuntimeError(f"all cases must be measured, but {', '.join(failed)} failed; see above and the log")


def measured(case: Case, sizes: Sizes, arguments: argparse.Namespace, report: Report) -> bool:
    """Measure a case if there is time for it; whether nothing went wrong, as the others are worth having all the same."""
    from ofa.errors import OfaError

    if report.left_s < case.least_s and not arguments.dry:
        report.row(case.name, f"not begun: {report.left_s:.0f} s are left, and it needs {case.least_s:.0f} s")
        return True
    try:
        (measure_table if case.table else compare_networks)(case, sizes, arguments.device, report)
    except OfaError as error:
        report.row(case.name, f"failed: {error}")
        traceback.print_exc()
        return False
    return True


def sizes_of(dry: bool) -> Sizes:
    from devices import TimingPolicy
    from ofa.families import get_space

    if dry:
        return Sizes(get_space("ofa-mbv3-tiny"), 16, 4, FEW_NETS, TimingPolicy(min_rounds=4, max_rounds=4, sample_ms=0.2))
    return Sizes(get_space(SPACE), RESOLUTION_PX, NETS, CALIBRATION_NETS, TimingPolicy(max_rounds=30, energy_s=ENERGY_S))


def device_of(case: Case, place: str) -> Device:
    from devices import Device

    options = (("compiled", case.compiled), ("device", place))
    return Device(name=f"pytorch-{case.name}", runtime="pytorch", batch=case.batch, clocks="governed", options=options)


def measure_table(case: Case, sizes: Sizes, place: str, report: Report) -> None:
    """Build, calibrate and check a table; each step's figures are kept as soon as they are known."""
    from latency_table import built, calibrated, checked

    device, figures = device_of(case, place), {}
    nets, calibration_nets = (FEW_NETS, FEW_NETS) if case.compiled else (sizes.nets, sizes.calibration_nets)
    before = report.content["figures"].get(CASES[0].name)
    if before and "check_s" in before and not case.compiled and time_of(before, LEAST_NETS) > report.left_s:
        report.row(case.name, f"not begun: {report.left_s:.0f} s are left, too few going by {CASES[0].name}")
        return
    table = report.work / f"{case.name}.parquet"
    table.unlink(missing_ok=True)

    def told(found: dict[str, Any]) -> None:
        figures.update(found)
        report.figure(case.name, {"device": device.to_json(), "processes": PROCESSES, **figures})
        for figure, value in rows_of(figures):
            report.row(f"{case.name}: {figure}", value)

    if case.compiled:
        told({"compile_s": fill_cache(sizes, device, calibration_nets, nets)})
    where: dict[str, Any] = {"resolutions": [sizes.resolution_px], "told": told, "policy": sizes.policy}
    found = built(sizes.space, device, table, **where)
    told({"energy": energy_of(table, sizes)})
    found = calibrated(found, sizes.space, device, table, nets=calibration_nets, processes=PROCESSES, **where)
    if not case.compiled:
        nets = nets_that_fit(figures, calibration_nets, report.left_s, nets)
    if nets < min(LEAST_NETS, sizes.nets) and not case.compiled:
        report.row(case.name, f"not checked: in the {report.left_s:.0f} s that are left only {max(0, nets)} networks could be timed")
        return
    checked(found, sizes.space, device, nets=nets, processes=PROCESSES, **where)


def nets_that_fit(figures: dict[str, Any], calibration_nets: int, left_s: float, most: int) -> int:
    """Networks that there is time to check a table on, if each takes what a network of the calibration took."""
    return max(0, min(most, int(left_s / MARGIN / figures["calibrate_s"] * calibration_nets) - AGAIN))


def time_of(before: dict[str, Any], nets: int) -> float:
    """Seconds that a table needs with so many networks in its check, going by another of the same kind."""
    return float(MARGIN * (before["build_s"] + before["calibrate_s"] + before["check_s"] * nets / before["nets"]))


def rows_of(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Lines of the table, from those figures that are there."""
    if "blocks" in figures:
        yield "blocks", f"{figures['blocks']}" + (f", {len(figures['failed'])} failed" if figures["failed"] else "")
    times = [
        f"{name.removesuffix('_s')} {figures[name]:.0f} s" for name in ("compile_s", "build_s", "calibrate_s", "check_s") if name in figures
    ]
    yield "time", ", ".join(times)
    if "mean_error" in figures:
        yield "error / floor", f"{figures['mean_error']:.1%} / {figures['noise_floor']:.1%} on {figures['nets']} networks"
        yield "Kendall / floor's", f"{figures['kendall']:.3f} / {figures['floor_kendall']:.3f}"
        yield "inside interval", f"{figures['inside_interval']:.0%}"
        yield "range", "{:.2f} .. {:.2f} ms".format(*figures["range_ms"])
    if figures.get("energy"):
        yield "energy of the largest", f"{figures['energy']['largest_mj']:.1f} mJ, {figures['energy']['watts']:.0f} W"


def energy_of(path: Path, sizes: Sizes) -> dict[str, float] | None:
    """Millijoules of a call of the largest network as the sum over its blocks, and the power that this is; None if nothing counts it."""
    from latency_tables import LatencyTable
    from ofa.families import lower

    table = LatencyTable.load(path)
    blocks = lower(sizes.space, sizes.space.largest(sizes.resolution_px))
    if not all(placed in table for placed in blocks) or table.rows["energy_mj"].isna().any():
        return None
    largest_mj = sum(table.energy_mj(placed) for placed in blocks)
    return {"largest_mj": largest_mj, "watts": largest_mj / sum(table.latency_ms(placed) for placed in blocks)}


def compare_networks(case: Case, sizes: Sizes, place: str, report: Report) -> None:
    """Time the smallest, the largest and two random networks, eager and compiled."""
    import numpy as np

    from latency_tables.timing import time_archs
    from ofa.progress import silent

    archs = some_archs(sizes, 2)
    compiled, eager = device_of(case, place), device_of(CASES[0], place)
    figures: dict[str, Any] = {"archs": [arch.to_json() for arch in archs], "compile_s": compile_all(sizes, compiled, archs)}
    for name, device in (("eager_ms", eager), ("compiled_ms", compiled)):
        times_N = time_archs(
            sizes.space, archs, device, rng=np.random.default_rng(0), progress=silent, policy=sizes.policy, processes=PROCESSES
        )
        figures[name] = times_N.tolist()
        report.figure(case.name, figures)
    for name, number in (("smallest", 0), ("largest", 1)):
        report.row(f"eager / compiled, {name}", f"{figures['eager_ms'][number]:.2f} / {figures['compiled_ms'][number]:.2f} ms")


def some_archs(sizes: Sizes, count: int) -> list[Arch]:
    import numpy as np

    allowed, rng = sizes.space.restrict(resolution=[sizes.resolution_px]), np.random.default_rng(2)
    return [allowed.smallest(), allowed.largest(), *(allowed.sample(rng) for _ in range(count))]


# -- compiling on all cores -----------------------------------------------------------------------------------------------


def fill_cache(sizes: Sizes, device: Device, calibration_nets: int, nets: int) -> float:
    """Compile all blocks, and the networks of the check, which are known beforehand; seconds."""
    import numpy as np

    from ofa.inventory import blocks_of_space

    allowed, rng = sizes.space.restrict(resolution=[sizes.resolution_px]), np.random.default_rng(1)
    checked = [allowed.sample(rng) for _ in range(nets)]
    return compile_all(sizes, device, checked, blocks_of_space(sizes.space, [sizes.resolution_px]))


def compile_all(sizes: Sizes, device: Device, archs: Sequence[Arch], blocks: Sequence[Any] = ()) -> float:
    """Load files in processes of their own, as many as there are cores and memory; their results lie in inductor's cache. Seconds."""
    from latency_tables.onnx_files import ModelFiles
    from ofa.families import lower
    from ofa.progress import silent

    started = time.perf_counter()
    named = {f"network {number}": lower(sizes.space, arch) for number, arch in enumerate(archs)}
    named |= {f"block {number}": (placed,) for number, placed in enumerate(blocks)}
    with ModelFiles(device) as files, one_compile_thread():
        paths = list(files.write(named, silent).values())
        with ProcessPoolExecutor(workers_for(str(device.option("device"))), mp_context=get_context("spawn")) as pool:
            list(pool.map(load, map(str, paths), [device.to_json()] * len(paths)))
    return round(time.perf_counter() - started, 1)


def workers_for(place: str) -> int:
    """As many processes as there are cores but one, and memory on the card."""
    import torch

    cores = max(1, (os.cpu_count() or 2) - 1)
    return cores if place == "cpu" else max(1, min(cores, torch.cuda.mem_get_info(torch.device(place))[0] // WORKER_BYTES))


def load(path: str, device: dict[str, Any]) -> None:
    """Compile one file, in a process of a pool."""
    from devices import Device
    from devices.runtimes import get_runtime

    read = Device.from_json(device)
    get_runtime(read.runtime).load(Path(path), read)


@contextmanager
def one_compile_thread() -> Iterator[None]:
    """Each process compiles by itself: without this each would start a pool of its own."""
    before = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS")
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["TORCHINDUCTOR_COMPILE_THREADS"]
        if before is not None:
            os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = before


if __name__ == "__main__":
    main()
