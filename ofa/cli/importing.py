"""``ofa import``: imports supernets, networks and the accuracy predictor of MIT's once-for-all package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, format_bytes, format_count, remark
from ofa.cli.outputs import OverwriteOption, check_output, check_output_folder
from ofa.cli.sheets import Name, facts
from ofa.cli.untrained import write_untrained_run
from ofa.locking import writing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.interop.checkpoints import Checkpoint
    from ofa.space import Space

__all__ = ["import_arch", "import_predictor", "import_weights", "register"]

SpaceOption = Annotated[str, typer.Option("--space", metavar="SPACE", help="Name of its space.")]
ClassesOption = Annotated[int | None, typer.Option("--classes", min=2, help="Classes of its classifier, if not the space's own number.")]

_WEIGHTS_EXAMPLE = "Example: ofa import mit-weights w1.0.pth --space ofa-mbv3-w1.0 -o mit.run"
_ARCH_EXAMPLE = "Example: ofa import mit-arch net.config --resolution 224 -o arch.json"
_PREDICTOR_EXAMPLE = "Example: ofa import mit-predictor acc_predictor.pth -o mit.safetensors"

# What MIT's published supernets were trained on; the recipe of a run must say something.
_DATA = "imagenet"


def register(app: typer.Typer) -> None:
    """Add ``ofa import``."""
    about = "What was made with MIT's once-for-all package."
    group = typer.Typer(help=about, epilog=_WEIGHTS_EXAMPLE, no_args_is_help=True)
    group.command("mit-weights", epilog=_WEIGHTS_EXAMPLE)(weights)
    group.command("mit-arch", epilog=_ARCH_EXAMPLE)(arch)
    group.command("mit-predictor", epilog=_PREDICTOR_EXAMPLE)(predictor)
    app.add_typer(group, name="import")


def weights(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A supernet's state dict or checkpoint as torch.save wrote it: ofa_mbv3_d234_e346_k357_w1.0."),
    ],
    space: SpaceOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUN", help="Folder to write as a run, or a file whose name ends in .safetensors.")
    ],
    classes: ClassesOption = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Images for later commands with the run; they are recorded.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Import the exponential moving average of the weights, if the file has both.")] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Import a trained supernet."""
    from ofa.families import get_space

    report = import_weights(file, get_space(space, classes), output, data=data, ema=ema, overwrite=overwrite, named=space)
    for sentence in report["remarks"]:
        remark(sentence)
    emit(report, json=json, render=lambda: _lines(report))


def arch(
    file: Annotated[Path, typer.Argument(metavar="NET_CONFIG.json", help="The net.config of a published network.")],
    resolution: Annotated[int, typer.Option(help="Its input size in pixels: image_size in the run.config beside it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="A.json", help="File to write.")],
    space: Annotated[str | None, typer.Option("--space", metavar="SPACE", help="Its space; by default the one that contains it.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Import a published network's architecture."""
    report = import_arch(file, resolution, output, space=space, overwrite=overwrite)
    emit(report, json=json, render=lambda: _lines(report))


def predictor(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="MIT's acc_predictor.pth.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="P.safetensors", help="File to write.")],
    space: SpaceOption = "ofa-mbv3-w1.2",
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Import the accuracy predictor of MobileNetV3 networks."""
    report = import_predictor(file, output, space=space, overwrite=overwrite)
    emit(report, json=json, render=lambda: _lines(report))


def import_weights(
    file: Path, space: Space, output: Path, *, data: str | None = None, ema: bool = False, overwrite: bool = False, named: str = ""
) -> dict[str, Any]:
    """Read a supernet of MIT's package and write it as a run, or as one file.

    Args:
        file: a file that ``torch.save`` wrote.
        space: its space.
        output: folder of the run, or a file that ends in ``.safetensors``.
        data: images for later commands with the run, which are read and recorded; None if they are not available.
        ema: whether to import the exponential moving average of the weights, if the file has both.
        overwrite: whether existing output may be replaced.
        named: the user's name of the space; by default its own name, which suffices for spaces of ofa.

    Returns:
        The JSON object of ``ofa import mit-weights --json``.

    Raises:
        OfaError: the file does not fit, or the output cannot be written.
    """
    from ofa.costs import costs
    from ofa.families import lower
    from ofa.interop import mit
    from ofa.interop.checkpoints import open_checkpoint
    from ofa.resolution import resolution_to_json
    from ofa.training.checkpoint import WEIGHTS

    single = output.suffix == ".safetensors"
    target = output if single else output / WEIGHTS
    with writing(output, "importing weights"):
        (check_output if single else check_output_folder)(output, overwrite=overwrite)
        found = open_checkpoint(file, ema=ema)
        supernet = mit.load_supernet(found, space)
        remarks = [_which(found)] if found.entry and found.others else []
        if single:
            supernet.save(target, metadata={"source": f"{file.name}, imported from MIT's once-for-all"})
        else:
            remarks += write_untrained_run(output, supernet, named or space.name, data, without=_DATA)
    largest = costs(lower(space, space.largest()))
    return {
        "weights": str(target),
        "space": space.name,
        "num_classes": space.num_classes,
        "tensors": len(supernet.named_tensors()),
        "entry": found.entry,
        "remarks": remarks,
        "largest": {"resolution": resolution_to_json(space.resolutions[-1]), **largest},
    }


def import_arch(file: Path, resolution: int, output: Path, *, space: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Find the arch of a published network and write it.

    Args:
        file: its net config.
        resolution: its input size in pixels.
        output: JSON file of the arch.
        space: name of its space; None for the space that contains it.
        overwrite: whether an existing file may be replaced.

    Returns:
        The JSON object of ``ofa import mit-arch --json``.

    Raises:
        OfaError: no space contains the network, or a file cannot be read or written.
    """
    from ofa.costs import costs
    from ofa.families import get_space, lower, save_arch
    from ofa.interop import mit

    with writing(output, "importing an arch"):
        check_output(output, overwrite=overwrite, ending=".json")
        given = None if space is None else get_space(space)
        found = mit.arch_from_net_config(file, resolution, given)
        of = given or get_space(found.space)
        save_arch(found, of, output)
    return {"path": str(output), "arch": found.to_json(), **costs(lower(of, found))}


def import_predictor(file: Path, output: Path, *, space: str, overwrite: bool = False) -> dict[str, Any]:
    """Read MIT's predictor and write it as safetensors.

    Args:
        file: a file that ``torch.save`` wrote.
        output: path of the file; it must end in ``.safetensors``, which distinguishes it from a pickle.
        space: name of the space whose networks it predicts.
        overwrite: whether an existing file may be replaced.

    Returns:
        The JSON object of ``ofa import mit-predictor --json``.

    Raises:
        OfaError: the file does not fit, or the output cannot be written.
    """
    from ofa.families import get_space
    from ofa.interop import mit

    with writing(output, "importing a predictor"):
        check_output(output, overwrite=overwrite, ending=".safetensors", must_end=True)
        loaded = mit.load_predictor(file, get_space(space))
        loaded.save(output)
    return {"path": str(output), "space": loaded.space_name, **loaded.provenance}


def _which(found: Checkpoint) -> str:
    """Remark about which of a file's weights were imported."""
    kind = "the moving average of the weights" if found.averaged else "the weights"
    other = "leave out --ema" if found.averaged else "add --ema"
    return f"{kind} in '{found.entry}' are taken, and those in {', '.join(found.others)} left; {other} to take the others"


def _lines(report: dict[str, Any]) -> RenderableType:
    from ofa.resolution import pixels
    from search.units import called

    rows = []
    for key, value in report.items():
        if key == "remarks" or value == "":
            continue
        if key in ("macs", "params"):
            rows.append((called(key), format_count(value)))
        elif key.endswith("_bytes"):
            rows.append((called(key), format_bytes(value)))
        elif key == "largest":
            rows.append(("largest network", f"{format_count(value['macs'])} MACs, {format_count(value['params'])} parameters"))
        elif key == "arch":
            rows.append(("network", f"{value['space']} at {pixels(value['resolution'])}, {sum(map(len, value['stages']))} blocks"))
        else:
            rows.append((key.replace("_", " "), Name(value) if key in ("path", "weights") else str(value)))
    return facts(rows)
