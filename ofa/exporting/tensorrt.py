"""Builds TensorRT engines from ONNX files and reads them; one code path for TensorRT and TensorRT for RTX.

The two packages share one Python API; differences are found by inspecting the module. TensorRT for RTX (``tensorrt-rtx``) builds on a
machine without a GPU for any named GPU generation, and compiles for the actual GPU when the engine is loaded. TensorRT (``tensorrt``)
builds on and for the GPU of its machine.
(https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html)

Without a GPU little can be read from an engine, so a record, ``ENGINE.json``, is written beside it: its source, the version of the
package, its GPUs, and digests of engine and source.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from ofa.errors import ExportError, nearest
from ofa.exporting.engine_record import EngineInfo, EngineTensor, read_record, record_path, write_record
from ofa.exporting.onnx import at_batch
from ofa.exporting.precision import to_half
from ofa.exporting.tensorrt_layers import precisions_of_engine, precisions_of_network
from ofa.exporting.tensorrt_package import FLAVOURS, Package
from ofa.files import replacing
from ofa.progress import Progress, silent
from ofa.reading import LARGEST_TENSORS, read_bytes
from ofa.reading.models import parse_model, read_model_bytes

__all__ = ["FLAVOURS", "GPU_GENERATIONS", "Flavour", "build_engine", "compute_capabilities", "inspect_engine"]

Flavour = Literal["tensorrt", "tensorrt-rtx"]

GPU_GENERATIONS = {"turing": ("7.5",), "ampere": ("8.0", "8.6"), "ada": ("8.9",), "blackwell": ("12.0", "12.1")}
"""CUDA compute capabilities of the GPU generations that engines can be built for without such a GPU; Turing needs half precision."""

_NO_GPU = re.compile(r"(?:cudaError|CUDA initialization failure with error:) ?(?:34|35|38|100)\b")
"""CUDA errors in a message: a stub instead of the driver, a driver that is too old or absent, no device."""


def compute_capabilities(gpus: Sequence[str]) -> tuple[str, ...]:
    """The compute capabilities of GPUs, without repeats.

    Args:
        gpus: generations (``ada``) or compute capabilities (``8.9``).

    Returns:
        Compute capabilities.

    Raises:
        ExportError: a name is neither.
    """
    found: dict[str, None] = {}
    for gpu in gpus:
        if re.fullmatch(r"\d+\.\d", gpu):
            found[gpu] = None
        elif gpu.lower() in GPU_GENERATIONS:
            found.update(dict.fromkeys(GPU_GENERATIONS[gpu.lower()]))
        else:
            raise ExportError(
                f"'{gpu}' must be a GPU generation or a compute capability such as 8.9; {nearest(gpu.lower(), GPU_GENERATIONS)}"
            )
    return tuple(found)


def build_engine(
    onnx_path: str | os.PathLike[str],
    engine_path: str | os.PathLike[str],
    *,
    flavour: Flavour,
    gpus: Sequence[str] = (),
    precision: str = "fp32",
    batch: int | None = None,
    batches: tuple[int, int, int] = (1, 1, 8),
    progress: Progress = silent,
) -> EngineInfo:
    """Build an engine from an ONNX file, and write it and its record, each atomically.

    Args:
        onnx_path: a file that ``ofa.exporting.onnx.export`` wrote.
        engine_path: path of the engine; its record has the same name with ``.json`` appended.
        flavour: the package that builds.
        gpus: generations or compute capabilities to build for; empty leaves the choice to the package (``tensorrt-rtx``: Ampere and
            later; ``tensorrt``: the GPU of this machine).
        precision: ``fp32``; ``fp16``, to which a float32 file is converted; or ``int8`` for a quantized file with signed activations.
            Input and output stay float32.
        batch: images per call, if the file's batch size is open; None leaves it open.
        batches: smallest, usual and largest batch size of the optimization profile, used only if the batch size stays open.
        progress: told of the steps of the build.

    Returns:
        Facts about the engine, as in its record.

    Raises:
        MissingExtraError: the package is not installed.
        ExportError: the package refuses the file or the GPUs, or cannot build on this machine.
        FileError: a file cannot be read or written.
    """
    capabilities = compute_capabilities(gpus)
    package, source = Package.load(flavour), read_model_bytes(onnx_path)
    builder = package.start("Builder")
    if builder is None:
        raise package.refusal(onnx_path)
    network = builder.create_network(package.network_flags())
    _parse(package, network, _model_bytes(source, onnx_path, precision, batch), onnx_path)
    config = builder.create_builder_config()
    _target(package, config, capabilities)
    _add_profile(builder, network, config, batches)
    plan = _build(package, builder, network, config, progress)
    if plan is None:
        raise package.refusal(onnx_path)
    engine = bytes(memoryview(plan))
    with replacing(engine_path) as temporary:
        temporary.write_bytes(engine)
    info = EngineInfo(
        flavour=flavour,
        version=package.version,
        compute_capabilities=capabilities,
        precision=precision,
        inputs=tuple(_parsed_tensor(network.get_input(index)) for index in range(network.num_inputs)),
        outputs=tuple(_parsed_tensor(network.get_output(index)) for index in range(network.num_outputs)),
        network_layers=network.num_layers,
        network_precisions=precisions_of_network(package, network),
        engine_bytes=len(engine),
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        onnx_sha256=hashlib.sha256(source).hexdigest(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_record(info, engine_path)
    return info


def inspect_engine(path: str | os.PathLike[str], flavour: Flavour) -> EngineInfo:
    """Read and check an engine.

    Version and digest must match its record, and the package checks its format and length. With an NVIDIA GPU the engine is also loaded,
    and ``engine_layers`` and the tensors come from the loaded engine. Without a GPU no package can load an engine; then the result is the
    record, with ``engine_layers`` None.

    Args:
        path: path of the engine.
        flavour: the package that built it.

    Returns:
        Facts about the engine.

    Raises:
        MissingExtraError: the package of ``flavour`` is not installed.
        ExportError: the engine is damaged, of another version or flavour, or there is neither a GPU nor a record.
        FileError: a file cannot be read.
    """
    package, engine, record = Package.load(flavour), read_bytes(path, most=LARGEST_TENSORS, what="engine"), read_record(path)
    _check_record(package, record, engine, path)
    runtime = package.start("Runtime")
    loaded = None
    if runtime is not None:
        _check_format(package, runtime, engine, path)
        loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is not None:
        return _loaded_info(package, loaded, record, engine)
    if any(re.search(r"Error Code \d+: Serialization", error) for error in package.log.errors):
        raise package.foreign(path, "it is damaged")
    if not any(_NO_GPU.search(error) for error in package.log.errors):
        raise package.foreign(path, f"loading it reports: {package.log.summary()}")
    if record is None:
        raise ExportError(
            f"an engine can be read where its record is beside it or where there is an NVIDIA GPU, but '{record_path(path)}' is missing "
            f"and {flavour} reports: {package.log.summary()}; copy the record too, or read the engine on a machine with a GPU"
        )
    return record


# -- building ---------------------------------------------------------------------------------------------------------


def _model_bytes(source: bytes, path: str | os.PathLike[str], precision: str, batch: int | None) -> bytes:
    model = parse_model(source, f"'{path}'")
    if not model.graph.node:
        raise ExportError(f"'{path}' must be an ONNX file, but it holds no operators; export the network again")
    if (precision == "int8") != any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ExportError(
            f"an engine must have the precision of its file, but precision is {precision} and '{path}' is {'not ' * (precision == 'int8')}"
            "quantized; name the other file"
        )
    if batch is not None and not model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        model = at_batch(model, batch)
    typed: bytes = (to_half(model) if precision == "fp16" else model).SerializeToString()
    return typed


def _parse(package: Package, network: Any, source: bytes, path: str | os.PathLike[str]) -> None:
    parser = package.module.OnnxParser(network, package.log)
    if not parser.parse(source):
        raise package.refusal(path, "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors)))


def _target(package: Package, config: Any, capabilities: tuple[str, ...]) -> None:
    if not capabilities:
        return
    known = getattr(package.module, "ComputeCapability", None)
    if known is None:
        raise ExportError(
            f"{package.flavour} {package.version} builds for the GPU of its machine only, but was asked for {', '.join(capabilities)}; "
            "name no GPU and build on the target, or use tensorrt-rtx"
        )
    members = {name: member for name, member in known.__members__.items() if name.startswith("SM")}
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        member = members.get("SM" + capability.replace(".", ""))
        if member is None or not config.set_compute_capability(member, index):
            offered = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in members)
            raise ExportError(f"{package.flavour} {package.version} must know the compute capability {capability}; known: {offered}")


def _add_profile(builder: Any, network: Any, config: Any, batches: tuple[int, int, int]) -> None:
    shape = tuple(network.get_input(0).shape)
    if shape[0] != -1:
        return
    profile = builder.create_optimization_profile()
    smallest, usual, largest = batches
    if not 1 <= smallest <= usual <= largest:
        raise ExportError(f"batches must be smallest <= usual <= largest, each at least 1, but are {batches}; order them")
    profile.set_shape(network.get_input(0).name, *((batch, *shape[1:]) for batch in batches))
    config.add_optimization_profile(profile)


def _build(package: Package, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    monitor = package.monitor(progress)
    config.progress_monitor = monitor
    config.profiling_verbosity = package.module.ProfilingVerbosity.DETAILED  # so that the engine describes the precision of its layers
    plan = builder.build_serialized_network(network, config)
    if monitor.raised is not None:
        raise monitor.raised
    return plan


def _parsed_tensor(tensor: Any) -> EngineTensor:
    return EngineTensor(tensor.name, tuple(int(size) for size in tensor.shape), tensor.dtype.name)


# -- reading ----------------------------------------------------------------------------------------------------------


def _check_record(package: Package, record: EngineInfo | None, engine: bytes, path: str | os.PathLike[str]) -> None:
    if record is None:
        return
    if (record.flavour, record.version) != (package.flavour, package.version):
        # TensorRT for RTX reads only engines of its own version, and without a GPU it does not tell an engine's version.
        raise package.foreign(path, f"{record.flavour} {record.version} built it")
    if record.engine_sha256 != hashlib.sha256(engine).hexdigest():
        raise package.foreign(path, f"its {len(engine)} bytes do not match the digest in its record")


def _check_format(package: Package, runtime: Any, engine: bytes, path: str | os.PathLike[str]) -> None:
    """Check the engine's header with the package, the only check that works without a GPU."""
    if not engine:
        raise package.foreign(path, "it is empty")
    diagnose = getattr(runtime, "get_engine_validity", None)
    if diagnose is None:
        return
    flags, diagnostics = package.module.EngineInvalidityDiagnostics, int(diagnose(engine)[1])
    package.log.errors.clear()  # without a GPU the check works, but logs errors too
    if diagnostics & int(flags.MALFORMED_ENGINE):
        raise package.foreign(path, "it has another format")
    if diagnostics & int(flags.VERSION_MISMATCH):
        raise package.foreign(path, "another version built it")


def _loaded_info(package: Package, loaded: Any, record: EngineInfo | None, engine: bytes) -> EngineInfo:
    """Facts about a loaded engine, completed by its record, if there is one, with facts known only at build time."""
    names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
    sides: dict[str, list[EngineTensor]] = {"INPUT": [], "OUTPUT": []}
    for name in names:
        shape = tuple(int(size) for size in loaded.get_tensor_shape(name))
        sides[loaded.get_tensor_mode(name).name].append(EngineTensor(name, shape, loaded.get_tensor_dtype(name).name))
    facts = {"inputs": tuple(sides["INPUT"]), "outputs": tuple(sides["OUTPUT"]), "engine_layers": loaded.num_layers}
    facts["engine_precisions"] = precisions_of_engine(package, loaded)
    if record is not None:
        return replace(record, **facts)
    digest = hashlib.sha256(engine).hexdigest()
    return EngineInfo(flavour=package.flavour, version=package.version, engine_bytes=len(engine), engine_sha256=digest, **facts)
