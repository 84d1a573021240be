"""The options of ``ofa space`` that derive a space from another one, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.spaces import parse_resolutions

if TYPE_CHECKING:
    from ofa.choices import Number
    from ofa.resolution import Resolution
    from ofa.space import Space

__all__ = ["Changes", "ChannelsOption", "ClassesOption", "KeepOption", "NameOption", "OutputOption", "ResolutionsOption", "write_space"]

_ENDINGS = (".json", ".space")
_UNWRITTEN = "{name}, changed"


def _numbers(text: str, rule: str, example: str) -> list[Number]:
    try:
        return [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{rule} with commas between, but got '{text}'; write for example {example}.") from error


ResolutionsOption = Annotated[
    Any,
    typer.Option(
        "--resolutions", parser=parse_resolutions, metavar="LIST", help="Input sizes in pixels instead of its own: 96,128,160x96."
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="GENE=VALUES", help="Keep only these values of a gene, or of depth: kernel=3,5. Repeatable."),
]
ChannelsOption = Annotated[int | None, typer.Option("--channels", min=1, help="Channels of the images: 1 is grey, 3 is colour.")]
ClassesOption = Annotated[int | None, typer.Option("--classes", min=2, help="Number of classes; training takes it from the data.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name of the written space; by default the name of its file.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE.json", help="Write the space as a file for --space and for recipes."),
]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The options' changes of the named space; None for no change."""

    resolutions: list[Resolution] | None = None
    keep: list[str] | None = None
    channels: int | None = None
    classes: int | None = None
    name: str | None = None

    @property
    def any(self) -> bool:
        """Whether there is any change."""
        return any(value is not None for value in vars(self).values())

    def of(self, space: Space, output: Path | None) -> Space:
        """The changed space.

        Args:
            space: the named space.
            output: path of its file, which names it unless ``--name`` does.

        Raises:
            SpaceError: an impossible change.
        """
        from ofa.families import derive

        if not self.any:
            return space
        return derive(
            space,
            self._name(space, output),
            resolutions=self.resolutions,
            in_channels=self.channels,
            num_classes=self.classes,
            keep=dict(map(_kept, self.keep or ())),
        )

    def _name(self, space: Space, output: Path | None) -> str:
        if self.name is not None:
            return self.name
        if self.resolutions is None and self.keep is None and self.channels is None:
            return space.name
        if output is None:
            return _UNWRITTEN.format(name=space.name)
        name = output.name
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        return name


def _kept(text: str) -> tuple[str, list[Number]]:
    gene, equals, values = text.partition("=")
    if not equals or not gene.strip():
        raise typer.BadParameter(f"what to keep must be written gene=values, but is '{text}'; for example kernel=3,5.", param_hint="--keep")
    return gene.strip(), _numbers(values, f"the values of {gene} must be numbers", f"{gene}=3,5")


def write_space(space: Space, output: Path, *, overwrite: bool) -> None:
    """Write a space file.

    Raises:
        SpaceError: it has the name of a space of ofa.
        FileError: the file exists and may not be replaced, its name has another ending, or it cannot be written.
    """
    from ofa.cli.outputs import check_output
    from ofa.families import check_name

    check_name(space, f"'{output}'")
    check_output(output, overwrite=overwrite, ending=".json", must_end=True)
    space.save(output)
