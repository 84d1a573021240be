"""``ofa export``: writes a bundle's network as an ONNX file or a TensorRT engine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ofa.cli.console import JsonOption, emit, format_bytes, progress_bar
from ofa.cli.outputs import OverwriteOption, check_output
from ofa.cli.sheets import facts
from ofa.cli.spaces import OwnSpaceOption, check_named, named
from ofa.cli.stopping import stoppable
from ofa.opsets import OPSET, least_release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from ofa.exporting.bundle import Bundle
    from ofa.exporting.targets import Written
    from ofa.exporting.tensorrt import Flavour

__all__ = ["MostLossOption", "Precision", "export", "export_to", "register"]

Target = Literal["onnx", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "int8"]
MostLossOption = Annotated[
    float, typer.Option("--most-loss", min=0, max=1, help="Largest loss of score by int8 (0..1); layers stay in float32 until it is kept.")
]

_EXAMPLES = "Example: ofa export network --to tensorrt-rtx --gpu ampere,ada"


def register(app: typer.Typer) -> None:
    """Add ``ofa export``."""
    app.command("export", epilog=_EXAMPLES)(export)


def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that `ofa specialize` wrote.")],
    to: Annotated[Target, typer.Option("--to", metavar="FORMAT", help="What to write: onnx, tensorrt or tensorrt-rtx.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write; by default in the bundle: network.onnx, network-int8.onnx and the like, or an engine in engines/.",
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
            help="Images that calibrate and judge int8: of the same classes, neither trained nor tested on.",
        ),
    ] = None,
    most_loss: MostLossOption = 0.01,
    tune_data: Annotated[
        str | None,
        typer.Option(
            "--tune-data",
            metavar="IMAGES",
            help="If int8 loses more than --most-loss, fine-tune it on these images, such as the training images; else it is refused.",
        ),
    ] = None,
    tune_epochs: Annotated[int, typer.Option("--tune-epochs", min=1, metavar="N", help="Passes over --tune-data.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of --tune-data.")] = 0,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, metavar="N", help="Images per call (ONNX); by default a dynamic dimension 'batch'.")
    ] = None,
    space: OwnSpaceOption = None,
    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            metavar="N",
            help=f"ONNX opset; {OPSET} by default, which old runtimes can read.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write a bundle's network for a runtime, and check the written file."""
    from ofa.exporting.bundle import load_bundle

    if output is not None:
        check_output(output, overwrite=overwrite, ending=".onnx" if to == "onnx" else "")
    _check_options(to, precision, data, tune_data, gpus=bool(gpu), batch=batch, opset=opset)
    wanted = named(space)
    source = load_bundle(bundle)
    check_named(wanted, source.space, f"'{bundle}'")
    of_batch = None if batch is None else source.file(precision).with_suffix(f".batch{batch}.onnx")  # its own file keeps a dynamic batch
    result = export_to(
        source,
        to,
        output or of_batch,
        batch=batch,
        opset=OPSET if opset is None else opset,
        gpus=[name.strip() for names in gpu or () for name in names.split(",") if name.strip()],
        precision=precision,
        data=data,
        most_loss=most_loss,
        tune_data=tune_data,
        tune_epochs=tune_epochs,
        seed=seed,
        overwrite=overwrite,
    )
    emit(result, json=json, render=lambda: _table(result))


def _check_options(
    to: Target, precision: Precision, data: str | None, tune_data: str | None, *, gpus: bool, batch: int | None, opset: int | None
) -> None:
    if to == "onnx" and gpus:
        raise typer.BadParameter("--gpu is for TensorRT engines; use --to tensorrt-rtx.", param_hint="--to")
    if to != "onnx" and (batch is not None or opset is not None):
        raise typer.BadParameter("--batch and --opset are for ONNX files; use --to onnx.", param_hint="--to")
    if precision != "fp32" and opset is not None:
        raise typer.BadParameter("--opset is for files in fp32.", param_hint="--precision")
    if (precision == "int8") != (data is not None):
        raise typer.BadParameter("--precision int8 and --data go together: int8 is calibrated on images.", param_hint="--data")
    if tune_data is not None and data is None:
        raise typer.BadParameter("--tune-data is for --precision int8, which --data judges.", param_hint="--tune-data")


def export_to(
    bundle: Bundle,
    to: Target,
    path: Path | None,
    *,
    batch: int | None = None,
    opset: int = OPSET,
    gpus: list[str] | None = None,
    precision: Precision = "fp32",
    data: str | None = None,
    most_loss: float = 0.01,
    tune_data: str | None = None,
    tune_epochs: int = 3,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a bundle's network for a runtime, with a progress bar; arguments as of ``ofa.api.export``, but images are named by path.

    Returns:
        The JSON object of ``ofa export --json``. For an ONNX file ``difference`` is the largest difference of the outputs from PyTorch's,
        as a share of their scale; for int8 ``quantization`` has the scores; for an engine it has the engine's record, and ``loaded``:
        whether this machine could load it.

    Raises:
        OfaError: bundle or images are damaged or do not fit each other, the file cannot be written, or its outputs differ from PyTorch's.
    """
    from ofa.data import load_data
    from ofa.exporting.quantization.tuning import tuning_on
    from ofa.exporting.targets import write_target

    with stoppable() as stop, progress_bar(f"writing for {to}") as progress:
        stop.words = "interrupted; an incomplete file is not kept, and the same command writes it anew"
        load = partial(load_data, rule=bundle.rule, classes=bundle.class_names, progress=progress)
        images, tuning_images = (None if each is None else load(each) for each in (data, tune_data))
        written = write_target(
            bundle,
            to,
            path,
            check=partial(check_output, overwrite=overwrite),
            batch=batch,
            opset=opset,
            gpus=gpus or (),
            precision=precision,
            data=images,
            most_loss=most_loss,
            tuning=tuning_on(tuning_images, epochs=tune_epochs, seed=seed),
            progress=progress,
        )
    facts = {"format": to, "path": str(written.path), "precision": precision}
    facts |= _facts_of_file(written) if to == "onnx" else _facts_of_engine(written.path, to)
    return {**facts, "quantization": None if written.quantized is None else written.quantized.to_json()}


def _facts_of_file(written: Written) -> dict[str, Any]:
    from ofa.exporting.onnx import read_model

    model = read_model(written.path)
    shape = [size.dim_value or size.dim_param for size in model.graph.input[0].type.tensor_type.shape.dim]
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    about = {"file_bytes": written.path.stat().st_size, "input_shape": shape, "opset": opset, "ir_version": model.ir_version}
    return {**about, "difference": written.difference}


def _facts_of_engine(path: Path, flavour: Flavour) -> dict[str, Any]:
    from ofa.exporting.tensorrt import inspect_engine

    info = inspect_engine(path, flavour)
    return {**info.to_json(), "loaded": info.engine_layers is not None}


def _readers(result: dict[str, Any]) -> str:
    """The oldest ONNX Runtime that reads a file of these versions, in words."""
    release = least_release(result["opset"], result["ir_version"])
    return "" if release is None else f": ONNX Runtime {release.onnxruntime} and newer read it"


def _rows_of(quantization: dict[str, Any] | None) -> list[tuple[str, str]]:
    if quantization is None:
        return []
    rows = [("score in float32", f"{quantization['float_score']:.2%}"), ("score in int8", f"{quantization['score']:.2%}")]
    kept = quantization["float_layers"]
    rows.append(("layers in float32", f"{len(kept)} of {quantization['layers']}{': ' * bool(kept)}{', '.join(kept)}"))
    rows.append(("quantized by", f"{quantization['how']}{_tuned(quantization)}"))
    for tried in quantization["tried"]:
        some = f", {len(tried['float_layers'])} layers in float32" * bool(tried["float_layers"])
        rows.append((f"{tried['score']:.2%}", f"{tried['how']}{_tuned(tried)}{some}"))
    rows += [("not possible", each["how"]) for each in quantization["impossible"]]
    return rows


def _counted(precisions: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(precisions.items())) or "unknown"


def _tuned(tried: dict[str, Any]) -> str:
    epochs = tried["tuned_epochs"]
    return f", tuned for {epochs} epoch{'s' * (epochs > 1)}" * bool(epochs)


def _table(result: dict[str, Any]) -> RenderableType:
    rows = [("format", str(result["format"]))]
    if result["format"] == "onnx":
        rows.append(("size", format_bytes(result["file_bytes"])))
        rows.append(("input", " x ".join(str(size) for size in result["input_shape"])))
        rows.append(("precision", result["precision"]))
        rows.append(("opset, IR version", f"{result['opset']}, {result['ir_version']}{_readers(result)}"))
        if result["difference"] is not None:
            rows.append(("difference from PyTorch", f"{result['difference']:.1e} of the output's scale"))
        return facts([*rows, *_rows_of(result["quantization"])], title=result["path"])
    rows.append(("version", result["version"]))
    rows.append(("size", format_bytes(result["engine_bytes"])))
    rows += [("precision", result["precision"]), *_rows_of(result["quantization"])]
    rows.append(("compute capabilities", ", ".join(result["compute_capabilities"]) or "left to the package"))
    for side in ("inputs", "outputs"):
        tensors = [f"{tensor['name']} {' x '.join(map(str, tensor['shape']))} {tensor['dtype']}" for tensor in result[side]]
        rows.append((side, ", ".join(tensors)))
    rows.append(("layers of the network", str(result["network_layers"])))
    rows.append(("its convolutions, products", _counted(result["network_precisions"])))
    told = "" if result["engine_precisions"] is None else f": {_counted(result['engine_precisions'])}"
    unread = "format, length and digest agree (no GPU here to load it)"
    loaded = f"loaded, {result['engine_layers']} layers{told}" if result["loaded"] else unread
    rows.append(("read back", loaded))
    return facts(rows, title=result["path"])
