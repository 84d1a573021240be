"""``ofa data``: examines a data set, and shows the images as a network sees them."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.console import JsonOption, emit, progress_bar, warn
from ofa.cli.outputs import OverwriteOption, check_output
from ofa.cli.run_data import DataOption, TestDataOption, changes_of
from ofa.cli.spaces import TrustOption, parse_resolution_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ofa.data import LeftOut, Scan
    from ofa.data.overview import Overview, PlacedImage
    from ofa.resolution import Resolution
    from ofa.training import Recipe
    from ofa.training.record import DataRecord

__all__ = ["data", "register"]

_EXAMPLES = "Example: ofa data photos/ -o photos.html"
_RESOLUTIONS = (32, 64, 96, 128, 160, 192, 224)
_MOST_CLASSES = 40
_NAMED = 3


def register(app: typer.Typer) -> None:
    """Add ``ofa data``."""
    app.command("data", epilog=_EXAMPLES)(data)


def data(
    source: Annotated[
        str, typer.Argument(metavar="DATA|RUN|RECIPE", help="Images (as in a recipe's `data`), a run's folder, or a recipe.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, such as fractions, seed, space or test_data."),
    ] = None,
    resolution: Annotated[
        Any,
        typer.Option(
            "--resolution",
            parser=parse_resolution_option,
            metavar="PIXELS",
            help="Input of the network on the contact sheet: 224 or 224x160.",
        ),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Images of each class on the contact sheet.")] = 6,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="HTML", help="Also write a page with a contact sheet of the network's inputs.")
    ] = None,
    given: DataOption = None,
    test_data: TestDataOption = None,
    trust: TrustOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Count images by class and part, their sizes, formats and copies, and list every file that is left out with the reason."""
    if output is not None:
        check_output(output, overwrite=overwrite, ending=".html")
    look = _look(source, [*(changes or ()), *changes_of(data=given, test_data=test_data)], resolution, trust=trust)
    report = look.to_json()
    if output is not None:
        look.save_page(output, each)
        report["page"] = str(output)
    emit(report, json=json, render=lambda: _render(report), warnings=warn(report.pop("warnings")))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Look:
    """The examined data set."""

    recipe: Recipe
    scans: tuple[Scan, ...]
    images: tuple[PlacedImage, ...]
    resolution: Resolution
    notes: tuple[str, ...]

    @cached_property
    def overview(self) -> Overview:
        """Counts and copies, with warnings."""
        from ofa.data.overview import overview

        found = overview(self.images, self.scans[0].class_names, self.resolution)
        return replace(found, warnings=(*self.notes, *found.warnings, *_about_unreadable(self.left_out)))

    @property
    def left_out(self) -> list[LeftOut]:
        """The files left out of all sources."""
        return [each for scan in self.scans for each in scan.left_out]

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``ofa data --json``."""
        from ofa.resolution import resolution_to_json

        return {
            "data": self.recipe.data,
            "test_data": self.recipe.test_data,
            "resolution": resolution_to_json(self.resolution),
            "rule": self.scans[0].rule.to_json(),
            **asdict(self.overview),
            "left_out": [each._asdict() for each in self.left_out],
        }

    def save_page(self, path: Path, each: int) -> None:
        """Write the page, with ``each`` images of every class."""
        from ofa.data.sheet import contact_sheet
        from search.report.data_page import DataSource, save_data_page

        images, generator = self.scans[0].images(unreadable="skip"), self.recipe.generator("training")
        source = DataSource(
            data=self.recipe.data,
            resolution=self.resolution,
            overview=self.overview,
            left_out=self.left_out,
            strips=contact_sheet(images, self.resolution, each=each, augmentation=self.recipe.augmentation, generator=generator),
            rule=images.rule,
        )
        save_data_page(source, path)


def _look(source: str, changes: list[str], resolution: Resolution | None, *, trust: bool) -> _Look:
    """Read all images of a source, and assign them to parts.

    Raises:
        OfaError: the source does not exist, or contains no images.
    """
    from ofa.data import ImageRule, scan_data
    from ofa.data.labels import label_sets
    from ofa.data.overview import PlacedImage

    recipe, record, sized = _recipe_of(source, changes, trust=trust)
    recipe = replace(recipe, unreadable="skip")
    rule = ImageRule(channels=recipe.get_space().in_channels, fit=recipe.fit) if record is None else record.facts.rule
    with progress_bar(f"reading {recipe.data}") as progress:
        scans = [scan_data(recipe.data, rule=rule, progress=progress)]
        if recipe.test_data:
            classes = scans[0].class_names
            scans.append(scan_data(recipe.test_data, rule=scans[0].rule, classes=classes, progress=progress))
    parts, notes = _parts(recipe, scans[0], record)
    images = [
        PlacedImage(facts, tuple(scan.class_names[label] for label in sets[which]), "test" if number else parts.get(facts.key, "unused"))
        for number, scan in enumerate(scans)
        for sets, places in [label_sets(scan.labels)]
        for facts, which in zip(scan.facts, places.tolist(), strict=True)
    ]
    if not images:
        scans[0].images(unreadable="skip")  # raises if there are none
    shown = resolution or (recipe.get_space().resolutions[-1] if sized else _usual_resolution(images))
    return _Look(recipe=recipe, scans=tuple(scans), images=tuple(images), resolution=shown, notes=tuple(notes))


def _recipe_of(source: str, changes: list[str], *, trust: bool) -> tuple[Recipe, DataRecord | None, bool]:
    """The recipe, the run's record of its data, and whether the user chose the space."""
    from ofa.training import Recipe
    from ofa.training.checkpoint import CONFIG
    from ofa.training.presets import load_recipe, preset_names
    from ofa.training.record import DataRecord

    if (Path(source) / CONFIG).is_file():
        return Recipe.load(Path(source) / CONFIG, changes, trust=trust), DataRecord.load(source), True
    if source.endswith(".toml") or (source in preset_names() and source != "digits"):
        return load_recipe(source, changes, trust=trust), None, True
    keys = {change.partition("=")[0].strip() for change in changes}
    own = [f"data={json_format.dumps(source)}"]
    if "test_data" in keys and "fractions" not in keys:
        own.append("fractions=[0.9, 0.1, 0]")
    return load_recipe("small-budget", [*own, *changes]), None, "space" in keys


def _parts(recipe: Recipe, scan: Scan, record: DataRecord | None) -> tuple[dict[bytes, str], list[str]]:
    """The part of each image by its key, and warnings; parts are those of the run, or those that training would make."""
    from ofa.data.splitting import split_indices
    from ofa.errors import DataError
    from ofa.training.record import PARTS
    from ofa.training.run_data import data_of_run

    try:
        if record is None:
            images = scan.images(unreadable="skip")
            fractions = recipe.fractions[:2] if recipe.test_data else recipe.fractions
            chosen = split_indices(images, fractions, recipe.generator("split"))
            keys, notes = [images.keys[index] for index in chosen], []
        else:
            with progress_bar("comparing with the run's record") as progress:
                found = data_of_run(recipe, record, progress=progress)
            keys, notes = [part.keys for part in found.splits], list(found.changes.sentences())
    except DataError as error:
        return {}, [f"these images cannot be trained on as they are: {error}"]
    return {bytes(key): part for part, some in reversed(list(zip(PARTS, keys, strict=False))) for key in some.numpy()}, notes


def _usual_resolution(images: list[PlacedImage]) -> int:
    """The largest common resolution that most images reach."""
    from statistics import median

    side = median(min(image.facts.width, image.facts.height) for image in images)
    return max((each for each in _RESOLUTIONS if each <= side), default=_RESOLUTIONS[0])


def _about_unreadable(left_out: list[LeftOut]) -> list[str]:
    bad = [each for each in left_out if each.kind == "unreadable"]
    if not bad:
        return []
    names = ", ".join(f"{each.name} ({each.reason})" for each in bad[:_NAMED]) + (" ..." if len(bad) > _NAMED else "")
    return [f'{len(bad)} images cannot be read: {names}; training refuses them unless they are removed or unreadable = "skip" is set']


def _render(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    from ofa.cli.sheets import facts, records

    parts = [part for part in ("train", "selection", "test", "unused") if report["parts"].get(part)]
    classes = list(report["classes"].items())
    rows = [
        (name, f"{sum(counts.values()):,}", *(f"{counts.get(part, 0):,}" for part in parts)) for name, counts in classes[:_MOST_CLASSES]
    ]
    more = f"and {len(classes) - _MOST_CLASSES} classes more; --json has all" if len(classes) > _MOST_CLASSES else ""
    title = f"{report['data']}: {report['images']:,} images of {len(classes)} classes"
    return Group(records(("class", "images", *parts), rows, title=title, caption=more), facts(_facts(report)))


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    sizes = report["sizes"]
    small, large = ("{} x {}".format(*sizes[end]) for end in ("smallest", "largest"))
    rows = [
        ("sizes", f"{small} .. {large} px, {sizes['distinct']:,} different, median of the shorter sides {sizes['median_side']:g} px"),
        ("formats", _counts(report["formats"])),
        ("kinds of pixels", _counts(report["modes"])),
        ("copies", _copies(report["copies"])),
    ]
    for kind in ("unreadable", "no image", "no class", "hidden"):
        names = [each["name"] for each in report["left_out"] if each["kind"] == kind]
        if names:
            rows.append((f"left out, {kind}", f"{len(names):,}: {', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"))
    if not report["left_out"]:
        rows.append(("left out", "nothing"))
    if "page" in report:
        rows.append(("page", report["page"]))
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _copies(groups: list[dict[str, Any]]) -> str:
    if not groups:
        return "none"
    extra = sum(len(group["names"]) - 1 for group in groups)
    return f"{extra:,} of {len(groups):,} images, first {' = '.join(groups[0]['names'][:_NAMED])}"
