"""``ofa export``: a bundle's network for a runtime, as an ONNX file or a TensorRT engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ofa.cli.console import JsonOption, emit, format_bytes, progress_bar
from ofa.cli.outputs import OverwriteOption, check_output
from ofa.cli.sheets import facts
from ofa.cli.spaces import OwnSpaceOption, check_named, named
from ofa.cli.stopping import stoppable
from ofa.opsets import OPSET, ir_version_for, least_release

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.exporting.bundle import Bundle
    from ofa.exporting.tensorrt import Flavour
    from ofa.progress import Progress

__all__ = ["export", "export_engine", "export_onnx", "register"]

Target = Literal["onnx", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "int8"]

_EXAMPLES = "Example: ofa export digits.bundle --to tensorrt-rtx --gpu ampere,ada"


_OPEN_BATCH = "network.dynamic.onnx"
"""The file in a bundle that takes any number of images, beside ``network.onnx``, which takes one."""


def register(app: typer.Typer) -> None:
    """Add ``ofa export``."""
    app.command("export", epilog=_EXAMPLES)(export)


def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `ofa specialize` wrote.")],
    to: Annotated[Target, typer.Option("--to", help="What to write.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write; by default network.onnx, network.dynamic.onnx or an engine in engines/ of the bundle.",
        ),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GPUS", help="Build for these GPUs: turing, ampere, ada, blackwell or compute capabilities, separated by commas."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option("--precision", help="Number format of weights and activations; int8 with --data.")
    ] = "fp32",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="IMAGES",
            help="What int8 is fitted to and judged on: images of the same classes, neither trained nor tested on.",
        ),
    ] = None,
    most_loss: Annotated[
        float, typer.Option("--most-loss", min=0, max=1, help="Of the score that int8 may lose; layers stay in float32 until it holds.")
    ] = 0.01,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch open (ONNX).")] = False,
    space: OwnSpaceOption = None,
    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            metavar="N",
            help=f"Version of the operators (ONNX); {OPSET} by default: old runtimes read it.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write a bundle's network for a runtime, and check what was written."""
    from ofa.exporting.bundle import load_bundle

    if output is not None:
        check_output(output, overwrite=overwrite, ending=".onnx" if to == "onnx" else "")
    _check_options(precision, data, dynamic_batch=dynamic_batch, opset=opset)
    wanted = named(space)
    source = load_bundle(bundle)
    check_named(wanted, source.space, f"'{bundle}'")
    if to == "onnx":
        if gpu:
            raise typer.BadParameter("--gpu is for TensorRT engines; use --to tensorrt-rtx.", param_hint="--to")
        chosen = OPSET if opset is None else opset
        # The bundle's own file stays as it was verified.
        path = output or (source.folder / _OPEN_BATCH if dynamic_batch else source.file(precision))
        with source.only_writer(path):
            check_output(path, overwrite=overwrite)
            if precision == "fp32":
                result = export_onnx(source, path, dynamic_batch=dynamic_batch, opset=chosen)
            else:
                result = export_precision(source, output, precision, data=data, most_loss=most_loss)
    else:
        if dynamic_batch or opset is not None:
            raise typer.BadParameter("--dynamic-batch and --opset are for ONNX files; use --to onnx.", param_hint="--to")
        gpus = [name.strip() for names in gpu or () for name in names.split(",") if name.strip()]
        result = export_engine(
            source, output, flavour=to, gpus=gpus, precision=precision, data=data, most_loss=most_loss, overwrite=overwrite
        )
    emit(result, json=json, render=lambda: _table(result))


def export_onnx(bundle: Bundle, path: Path, *, dynamic_batch: bool, opset: int = OPSET) -> dict[str, Any]:
    """Export a bundle's weights anew and run the file against PyTorch.

    Args:
        bundle: whose network.
        path: the file.
        dynamic_batch: whether the file leaves the batch open.
        opset: version of its operators.

    Returns:
        the JSON object of ``ofa export --json``; ``difference`` is the largest one of the outputs, as a share of their scale.

    Raises:
        OfaError: the bundle is damaged, the file cannot be written or computes something else.
    """
    difference = bundle.write_onnx(path, dynamic_batch=dynamic_batch, opset=opset)
    shape = ["batch" if dynamic_batch else 1, *bundle.input_shape[1:]]
    about = {"format": "onnx", "path": str(path), "file_bytes": path.stat().st_size, "input_shape": shape}
    return {**about, "opset": opset, "ir_version": ir_version_for(opset), "difference": difference}


def _check_options(precision: Precision, data: str | None, *, dynamic_batch: bool, opset: int | None) -> None:
    if (precision == "int8") != (data is not None):
        raise typer.BadParameter("--precision int8 and --data go together: int8 is fitted to images.", param_hint="--data")
    if precision != "fp32" and (dynamic_batch or opset is not None):
        raise typer.BadParameter("--dynamic-batch and --opset are for files in fp32.", param_hint="--precision")


def export_precision(bundle: Bundle, path: Path | None, precision: str, *, data: str | None, most_loss: float) -> dict[str, Any]:
    """Write a bundle's network in half precision, or in int8 as its images allow.

    Args:
        bundle: whose network.
        path: the file; None for the one in the bundle.
        precision: ``fp16`` or ``int8``.
        data: images for int8.
        most_loss: of the score that int8 may lose.

    Returns:
        the JSON object of ``ofa export --json``; of int8 with what came of it (``quantization``).

    Raises:
        OfaError: the bundle or the images are damaged or do not fit each other, or the loss is larger.
    """
    place = path or bundle.file(precision)
    quantization = None
    if data is None:
        from ofa.exporting.precision import write_precision

        write_precision(bundle, place, precision)
    else:
        with stoppable() as stop, progress_bar("int8") as progress:
            stop.words = "interrupted; of the file nothing is kept until it is whole, so the same command writes it anew"
            quantization = _quantized(bundle, data, path, most_loss, progress)
    about = {"format": "onnx", "path": str(place), "file_bytes": place.stat().st_size, "input_shape": list(bundle.input_shape)}
    return {**about, "precision": precision, "quantization": quantization}


def _quantized(
    bundle: Bundle, data: str, path: Path | None, most_loss: float, progress: Progress, *, signed: bool = False
) -> dict[str, Any]:
    from ofa.data import load_data
    from ofa.exporting.quantization.bundles import quantize_bundle

    images = load_data(data, rule=bundle.rule, classes=bundle.class_names, progress=progress).normalized((bundle.mean, bundle.std))
    return quantize_bundle(bundle, images, path, signed=signed, most_loss=most_loss, progress=progress).to_json()


def _readers(result: dict[str, Any]) -> str:
    """Who reads a file of these versions."""
    release = least_release(result["opset"], result["ir_version"])
    return "" if release is None else f": ONNX Runtime {release.onnxruntime} and newer read it"


def export_engine(
    bundle: Bundle,
    path: Path | None,
    *,
    flavour: Flavour,
    gpus: list[str],
    precision: Precision = "fp32",
    data: str | None = None,
    most_loss: float = 0.01,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Build an engine from a bundle's ONNX file and read it back.

    Args:
        bundle: whose network.
        path: the engine; None for one in the bundle that is named by flavour, GPUs and precision.
        flavour: which TensorRT builds.
        gpus: GPU generations or compute capabilities; empty leaves them to the package.
        precision: that it computes in.
        data: images for int8.
        most_loss: of the score that int8 may lose.
        overwrite: whether an engine that is there may be replaced.

    Returns:
        the JSON object of ``ofa export --json``: the engine's record, and whether this machine could load it (``loaded``).

    Raises:
        OfaError: the package is missing, or refuses the network, the GPUs or its own engine.
    """
    from ofa.exporting.engine_record import record_path
    from ofa.exporting.tensorrt import build_engine, inspect_engine

    if path is None:
        path = bundle.engine_path(flavour, gpus, precision=precision)
        path.parent.mkdir(exist_ok=True)
    source, quantization = bundle.onnx_path, None
    with bundle.only_writer(path), stoppable() as stop, progress_bar(f"building for {flavour}") as progress:
        stop.words = "interrupted; of an engine nothing is kept until it is whole, so the same command builds it anew"
        check_output(path, overwrite=overwrite)
        if data is not None:
            from ofa.exporting.quantization.bundles import SIGNED

            source, quantization = bundle.file(SIGNED), _quantized(bundle, data, None, most_loss, progress, signed=True)
        with bundle.changing(path, record_path(path)):
            build_engine(source, path, flavour=flavour, gpus=gpus, precision=precision, progress=progress)
    info = inspect_engine(path, flavour)
    answer = {"format": flavour, "path": str(path), **info.to_json(), "loaded": info.engine_layers is not None}
    return {**answer, "quantization": quantization}


def _rows_of(quantization: dict[str, Any] | None) -> list[tuple[str, str]]:
    if quantization is None:
        return []
    rows = [("score in float32", f"{quantization['float_score']:.2%}"), ("score in int8", f"{quantization['score']:.2%}")]
    kept = quantization["float_layers"]
    rows.append(("layers in float32", f"{len(kept)} of {quantization['layers']}{': ' * bool(kept)}{', '.join(kept)}"))
    rows.append(("quantized by", quantization["how"]))
    for tried in quantization["tried"]:
        some = f", {len(tried['float_layers'])} layers in float32" * bool(tried["float_layers"])
        rows.append((f"{tried['score']:.2%}", f"{tried['how']}{some}"))
    return rows


def _table(result: dict[str, Any]) -> RenderableType:
    rows = [("format", str(result["format"]))]
    if result["format"] == "onnx":
        rows.append(("size", format_bytes(result["file_bytes"])))
        rows.append(("input", " x ".join(str(size) for size in result["input_shape"])))
        if "precision" in result:
            return facts([*rows, ("precision", result["precision"]), *_rows_of(result["quantization"])], title=result["path"])
        rows.append(("opset, IR version", f"{result['opset']}, {result['ir_version']}{_readers(result)}"))
        rows.append(("difference from PyTorch", f"{result['difference']:.1e} of the output's scale"))
        return facts(rows, title=result["path"])
    rows.append(("version", result["version"]))
    rows.append(("size", format_bytes(result["engine_bytes"])))
    rows += [("precision", result["precision"]), *_rows_of(result["quantization"])]
    rows.append(("compute capabilities", ", ".join(result["compute_capabilities"]) or "left to the package"))
    for side in ("inputs", "outputs"):
        tensors = [f"{tensor['name']} {' x '.join(map(str, tensor['shape']))} {tensor['dtype']}" for tensor in result[side]]
        rows.append((side, ", ".join(tensors)))
    rows.append(("layers of the network", str(result["network_layers"])))
    loaded = f"loaded, {result['engine_layers']} layers" if result["loaded"] else "format, length and digest agree (no GPU here to load it)"
    rows.append(("read back", loaded))
    return facts(rows, title=result["path"])
