"""The part `tensorrt-rtx`: an engine of TensorRT for RTX built and run, beside ONNX Runtime on the processor.

Run by run.py; skipped where the package is not there or the card is none that it supports.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from parts import GIB, Report, SkipError, part_arguments, require_card

if TYPE_CHECKING:
    from devices import Device

SPACE, TOLERANCE = "ofa-mbv3-w1.0", 1e-3
"""What is built, and how far its output may be from ONNX Runtime's, as a share of the largest logit; both compute in float32."""
DRY_SPACE, DRY_GENERATION = "ofa-mbv3-tiny", "ada"
MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
LEAST_MEMORY_BYTES = 2 * GIB


def main() -> None:
    arguments = part_arguments(__doc__).parse_args()
    with Report("tensorrt-rtx", arguments) as report:
        require_package()
        if arguments.device == "cpu":
            run(report, DRY_SPACE, "")
            return
        require_card(arguments.device, LEAST_MEMORY_BYTES)
        capability = report.content["machine"]["card"]["compute_capability"]
        require_generation(capability)
        run(report, SPACE, capability)


def require_package() -> None:
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            raise SkipError(f"TensorRT for RTX must load, but: {' '.join(str(error).split())}; install it again") from error
        return
    raise SkipError(
        "TensorRT for RTX must be installed, but it is not; install tensorrt_rtx_cu13_bindings and tensorrt_rtx_cu13_libs there, for which "
        "no kit is large enough"
    )


def require_generation(capability: str) -> None:
    """Its supported cards are those with the cores that make an RTX: Ampere's and Hopper's cards for data centres (8.0, 9.0) are not."""
    from ofa.exporting.tensorrt import GPU_GENERATIONS

    known = sorted({each for generation in GPU_GENERATIONS.values() for each in generation} - {"8.0"})
    if capability not in known:
        raise SkipError(
            f"TensorRT for RTX supports cards of compute capability {', '.join(known)}, but this one has {capability}; use another card"
        )


def run(report: Report, name: str, capability: str) -> None:
    """Build, run, compare and time a space's largest network; without a card, that is with no capability, only build."""
    from devices import Device
    from latency_tables.onnx_files import ModelFiles
    from ofa.families import get_space, lower
    from ofa.progress import silent

    space, device = get_space(name), Device(name="tensorrt-rtx", runtime="tensorrt-rtx", clocks="governed")
    with ModelFiles(device) as files:
        (path,) = files.write({"largest": lower(space, space.largest())}, silent).values()
        if capability:
            compare(path, device, report)
            time_it(path, device, report)
        build(path, capability, report)


def compare(path: Path, device: Device, report: Report) -> None:
    """Hold the engine's output against ONNX Runtime's on the processor."""
    import numpy as np

    from devices import Device
    from devices.runtimes import get_runtime

    rng, outputs, image = np.random.default_rng(0), [], None
    for each in (Device(name="onnxruntime", runtime="onnxruntime"), device):
        started = time.perf_counter()
        session = get_runtime(each.runtime).load(path, each)
        loaded_s = time.perf_counter() - started
        ((name, (shape, _)),) = session.inputs().items()
        image = rng.standard_normal(shape, dtype=np.float32) if image is None else image
        outputs.append(session.run({name: image})[0])
    difference = float(np.abs(outputs[1] - outputs[0]).max() / np.abs(outputs[0]).max())
    report.figure("built_and_loaded_s", loaded_s)
    report.figure("difference_from_onnxruntime", difference)
    report.row("engine built and loaded in", f"{loaded_s:.1f} s")
    report.row("difference from ONNX Runtime", f"{difference:.1e} of the largest logit")
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the engine must compute what the file says to {TOLERANCE:g}, but differs by {difference:.1e}; compare layers")


def time_it(path: Path, device: Device, report: Report) -> None:
    """Time it as tables do, in a process of its own."""
    import numpy as np

    from devices import time_models

    timing = time_models(device, {"largest": path}, rng=np.random.default_rng(0))["largest"]
    report.figure("timing", asdict(timing))
    energy = "" if timing.energy_mj is None else f", {timing.energy_mj:.1f} mJ"
    report.row(f"{SPACE}, largest", f"{timing.median_ms:.3f} ms{energy}")


def build(path: Path, capability: str, report: Report) -> None:
    """Build an engine for a named generation, as `ofa export` does, and read it back: by the card, if there is one."""
    from ofa.exporting.tensorrt import build_engine, inspect_engine

    engine = report.work / "largest.engine"
    build_engine(path, engine, flavour="tensorrt-rtx", gpus=(capability or DRY_GENERATION,))
    info = inspect_engine(engine, "tensorrt-rtx")
    if capability and info.engine_layers is None:
        raise RuntimeError(f"an engine built for {capability} must load on a card of {capability}, but did not; build it for this card")
    report.figure("engine", {"bytes": info.engine_bytes, "layers": info.engine_layers, "for": info.compute_capabilities})
    report.row(f"engine for {', '.join(info.compute_capabilities)}", f"{info.engine_bytes:,} bytes" + ("" if capability else ", not run"))


if __name__ == "__main__":
    main()
