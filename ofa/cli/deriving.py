"""The options of ``ofa space`` that make a space from another, and the file that is written of it."""

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
        "--resolutions", parser=parse_resolutions, metavar="LIST", help="Input sizes in pixels in place of its own: 96,128,160x96."
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="GENE=VALUES", help="Keep only these values of a gene, or of depth: kernel=3,5. Once for each."),
]
ChannelsOption = Annotated[int | None, typer.Option("--channels", min=1, help="Channels of the images: 1 is grey, 3 is colour.")]
ClassesOption = Annotated[int | None, typer.Option("--classes", min=2, help="Classes; training takes as many as the data has.")]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What to call the space that is written; by default as its file.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE.json", help="Write the space as a file, which every option --space and recipe takes."),
]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the options say is to be another than in the space that is named; None for nothing."""

    resolutions: list[Resolution] | None = None
    keep: list[str] | None = None
    channels: int | None = None
    classes: int | None = None
    name: str | None = None

    @property
    def any(self) -> bool:
        """Whether anything is."""
        return any(value is not None for value in vars(self).values())

    def of(self, space: Space, output: Path | None) -> Space:
        """The changed space.

        Args:
            space: what was named.
            output: where it is to be written, which names it unless ``--name`` does.

        Raises:
            SpaceError: a change that cannot be.
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
        SpaceError: it is called as a space of ofa.
        FileError: it is there already and may not be replaced, its name is none of a space file, or it cannot be written.
    """
    from ofa.cli.outputs import check_output
    from ofa.families import check_name

    check_name(space, f"'{output}'")
    check_output(output, overwrite=overwrite, ending=".json", must_end=True)
    space.save(output)
