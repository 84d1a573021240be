"""``ofa adopt``: makes a user's own trained model a supernet, whose networks are parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.adopted_sheets import render
from ofa.cli.console import JsonOption, emit, progress_bar, remark
from ofa.cli.outputs import OverwriteOption, check_output_folder
from ofa.cli.spaces import parse_resolutions
from ofa.cli.untrained import untrained_recipe, write_untrained_run
from ofa.locking import writing

if TYPE_CHECKING:
    from ofa.adopting.adoption import Adoption
    from ofa.data.images import Normalization
    from ofa.resolution import Resolution

__all__ = ["adopt_into_run", "register"]

_EXAMPLE = "Example: ofa adopt nets:mine --weights mine.pth --input 3x224x224 -o mine.run"
_MEAN = "What its images were normalized by, a number a channel: 0.485,0.456,0.406; by default what the data has."
_IMAGES = 640
"""Images that rank blocks; a tenth of them are run through each of the networks without one block."""
_DATA = "unknown"
"""``data`` in the recipe of the run if the user named no images."""


def register(app: typer.Typer) -> None:
    """Add ``ofa adopt``."""
    app.command("adopt", epilog=_EXAMPLE)(adopt)


def parse_input(text: str) -> tuple[int, int, int]:
    """Channels, height and width of an option such as ``3x224x224``."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"an input must be channels x height x width, but got '{text}'; write for example 3x224x224.")
    channels, height, width = map(int, parts)
    return channels, height, width


def parse_numbers(text: str) -> list[float]:
    """The numbers of an option such as ``0.5,0.75,1``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"numbers must have commas between, but got '{text}'; write for example 0.5,0.75,1.") from error


def adopt(
    model: Annotated[
        str, typer.Argument(metavar="MODULE:ATTRIBUTE", help="A torch.nn.Module, or a function without arguments that returns one.")
    ],
    image: Annotated[Any, typer.Option("--input", parser=parse_input, metavar="CxHxW", help="Size of its images: 3x224x224.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder to write as a run.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its weights, if the model has none: a state dict, .safetensors or .pth.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of its space; by default from the model's class.")] = None,
    widths: Annotated[
        Any,
        typer.Option(
            parser=parse_numbers,
            metavar="LIST",
            help="Shares of the model's channels and heads that networks may have; default: 0.25,0.5,0.75,1.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="PATTERN", help="Layers or tensors with fixed sizes, such as 'layer4.*'. Repeatable."),
    ] = None,
    min_depth: Annotated[
        int | None, typer.Option("--min-depth", metavar="N", help="Fewest blocks in a sequence of equal blocks; by default half of them.")
    ] = None,
    resolutions: Annotated[
        Any,
        typer.Option(parser=parse_resolutions, metavar="LIST", help="Further input sizes: 160,192,224x192; by default some smaller ones."),
    ] = None,
    classes_from: Annotated[
        Path | None, typer.Option("--classes-from", metavar="FILE", help="Names of its classes in the order of the logits: lines, or JSON.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="Images that rank the blocks by importance; they are recorded for later commands."),
    ] = None,
    mean: Annotated[Any, typer.Option("--mean", parser=parse_numbers, metavar="LIST", help=_MEAN)] = None,
    std: Annotated[Any, typer.Option("--std", parser=parse_numbers, metavar="LIST", help="And their deviation: 0.229,0.224,0.225.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Make a trained model of your own a supernet.

    Its channels, heads, sequences of equal blocks and input size become elastic; the largest network is the model itself.
    """
    report = adopt_into_run(
        model,
        image,
        output,
        weights=weights,
        name=name,
        widths=widths,
        keep=keep or (),
        min_depth=min_depth,
        resolutions=resolutions,
        classes_from=classes_from,
        data=data,
        normalization=_normalization(mean, std, image[0]),
        overwrite=overwrite,
    )
    for sentence in report["remarks"]:
        remark(sentence)
    emit(report, json=json, render=lambda: render(report))


def adopt_into_run(
    model: str,
    image: Sequence[int],
    output: Path,
    *,
    weights: Path | None = None,
    name: str | None = None,
    widths: Sequence[float] | None = None,
    keep: Sequence[str] = (),
    min_depth: int | None = None,
    resolutions: Sequence[Resolution] | None = None,
    classes_from: Path | None = None,
    data: str | None = None,
    normalization: Normalization | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Open a model, adopt it and write it as a run.

    Args:
        model: ``module:attribute``, which is imported.
        image: C, H and W of its images.
        output: folder of the run.
        weights: file with its state dict; None if the model has its weights.
        name: name of the space; None derives it from the model's class.
        widths: shares of the model's channels and heads that networks may have; None for ``SHARES``.
        keep: patterns of layers or tensors with fixed sizes.
        min_depth: fewest blocks in a sequence of equal blocks; None for half of them.
        resolutions: further resolutions besides the one of ``image``; None for some smaller ones.
        classes_from: file with the names of its classes.
        data: images for later commands with the run, which are read and recorded.
        normalization: mean and std of each channel of its images, in 0..1; None for those of the data it will be trained on.
        overwrite: whether an existing run may be replaced.

    Returns:
        The JSON object of ``ofa adopt --json``.

    Raises:
        OfaError: the model cannot be opened or adopted, a file cannot be read, or the run cannot be written.
    """
    from ofa.adopting.adoption import adopt_model
    from ofa.families import SPACES, check_name
    from ofa.families.adopted import SHARES
    from ofa.interop.own_weights import load_weights
    from ofa.own_modules import MODELS

    with writing(output, "adopting a model"):
        check_output_folder(output, overwrite=overwrite)
        class_names = None if classes_from is None else read_class_names(classes_from)
        made = MODELS.make(model)
        if weights is not None:
            load_weights(made, weights)
        with progress_bar(f"adopting {model}") as progress:
            found = adopt_model(
                made,
                image,
                name=name,
                shares=widths or SHARES,
                keep=keep,
                min_depth=min_depth,
                resolutions=resolutions,
                progress=progress,
            )
        check_name(found.space, "the model")
        if class_names is not None:
            _check_count(class_names, found.space.num_classes, classes_from)
        # The recipe of a run must name its space; the run itself stores the space.
        if data is not None:
            found = _ranked(found, data, normalization)
        with SPACES.registered(found.space.name, found.space):
            remarks = write_untrained_run(
                output, found.supernet, found.space.name, data, without=_DATA, class_names=class_names, normalization=normalization
            )
        found.record(model, class_names).save(output)
    return {"run": str(output), **_facts(found), "class_names": class_names, "remarks": remarks}


def _normalization(mean: list[float] | None, std: list[float] | None, channels: int) -> Normalization | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None or not len(mean) == len(std) == channels or min(std) <= 0:
        raise typer.BadParameter(f"give both with {channels} numbers, one per channel, and std above 0", param_hint="--mean, --std")
    return tuple(mean), tuple(std)


def _ranked(found: Adoption, data: str, normalization: Normalization | None) -> Adoption:
    """The adoption with blocks ranked by importance on some of the images, so that shallower networks drop the least important ones."""
    import torch

    from ofa.adopting.ranking import rank_blocks
    from ofa.data import make_batch
    from ofa.families import SPACES

    if all(len(stage.depths) == 1 for stage in found.space.stages):
        return found
    with SPACES.registered(found.space.name, found.space), progress_bar("ranking blocks") as progress:
        images = untrained_recipe(found.space, found.space.name, data, normalization).load_splits(progress, most=_IMAGES).selection
        numbers = torch.arange(min(len(images), _IMAGES // 10))
        batch, _ = make_batch(images, numbers, resolution=found.space.resolutions[-1], device=torch.device("cpu"))
        space, supernet = rank_blocks(found.supernet, [batch], progress)
    return replace(found, space=space, supernet=supernet)


def read_class_names(path: Path) -> list[str]:
    """The names in a file: a JSON list if it ends in .json, otherwise one name per line.

    Raises:
        FileError: the file cannot be read, has another content, or contains a name twice.
    """
    from ofa.errors import FileError
    from ofa.reading import LARGEST_TOML, read_json, read_text

    found: Any
    if path.suffix == ".json":
        found = read_json(path)
    else:
        found = [line.strip() for line in read_text(path, most=LARGEST_TOML, what="file of class names").splitlines() if line.strip()]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise FileError(f"class names must be lines of text, or a JSON list of texts, but '{path}' holds something else; write one")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise FileError(f"each class must have a name of its own, but '{path}' has '{twice}' twice; rename one")
    return found


def _check_count(names: Sequence[str], classes: int, path: Path | None) -> None:
    from ofa.errors import FileError

    if len(names) != classes:
        raise FileError(
            f"each logit must have the name of its class, but '{path}' has {len(names)} and the model {classes} logits; add them all"
        )


def _facts(found: Adoption) -> dict[str, Any]:
    """The fields of the report about an adoption."""
    from ofa.adopting.describing import depths_of, sizes_of
    from ofa.costs import costs
    from ofa.families import lower
    from ofa.resolution import resolution_to_json, resolutions_to_json
    from ofa.schema import to_json

    space, record = found.space, found.record("")
    ends = {"smallest": space.smallest(), "largest": space.largest()}
    return {
        "space": space.name,
        "size": space.size,
        "resolutions": resolutions_to_json(space.resolutions),
        "in_channels": space.in_channels,
        "num_classes": space.num_classes,
        "groups": [{**to_json(size), "members": list(record.members.get(size.name, ()))} for size in sizes_of(space)],
        "depths": to_json(depths_of(space)),
        "fixed": to_json(found.fixed),
        "elastic_share": found.elastic_share,
        "difference": found.difference,
        **{end: {"resolution": resolution_to_json(arch.resolution), **costs(lower(space, arch))} for end, arch in ends.items()},
    }
