"""Recipe: a whole training run as a value, read from and written to TOML."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ofa.data import Augmentation, ImageRule, Images, Splits, load_data, split
from ofa.data.rule import Fit
from ofa.errors import OfaError, RecipeError
from ofa.families import get_space, is_space_file, space_names
from ofa.importance import IMPORTANCES
from ofa.progress import Progress, silent
from ofa.reading import LARGEST_TOML, parse_toml, read_text
from ofa.registry import FromFile, from_file
from ofa.resolution import Resolution
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.tasks import TASKS, Task
from ofa.training.frozen import frozen_tensors
from ofa.training.methods import METHODS
from ofa.training.optimizer import SGD, Optimizer, read_optimizer
from ofa.training.phase import Phase
from ofa.training.schedule import Span
from ofa.training.start import SPACE, START, Start, settings_of_start
from ofa.training.step import Precision
from ofa.training.toml import LARGEST_BATCH, MOST_STEPS, build, check_range, line_of, toml_lines

__all__ = ["SPACE", "Phase", "Recipe"]

Purpose = Literal["split", "weights", "training", "specialization"]
_MOST_WORKERS = 1024
_PURPOSES: tuple[Purpose, ...] = ("split", "weights", "training", "specialization")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run.

    Attributes:
        space: the space: a name, the path of a space file, or ``module:attribute`` (see ``ofa.families.get_space``). ``start`` is the
            space of the run that training starts from.
        data: the images: the name of a data set, a Parquet file, a folder, or ``module:attribute`` (see ``ofa.data.load_data``).
        phases: the phases, in order; each starts from the weights of the phase before.
        task: the task: ``classification`` (one class per image), ``multi_label`` (any number of classes per image), or a registered task
            (see ``ofa.tasks``).
        start: weights of another supernet that training starts from; left out, they are drawn from the seed. ``ofa train --from`` sets it.
        frozen: layers that stay bit for bit the same in all phases: patterns with ``*`` of names such as ``stem*``, ``stages.0`` or
            ``*.norm``; ``matrices`` stands for all weights but norms and biases. Frozen batch norms still normalize by the batch, but do
            not update their running statistics. Channels of frozen layers keep their order.
        teacher: a network of your own that teaches instead of a copy of the largest: the folder of a run (its largest network) or of a
            bundle, a registered name, or ``module:attribute`` (see ``ofa.teachers``). In phases that distil in-place it teaches the
            step's largest network. ``start`` is the largest network of the weights that training starts from, before any training.
        teacher_resolution: height and width that images are resized to for the teacher, such as 224 or "224x160"; left out, a bundle gets
            its own resolution and any other teacher the batch's.
        test_data: further images like ``data`` to test on; empty cuts the test part from ``data``.
        fit: how an image gets the aspect ratio of the input: ``crop`` takes the largest central part of that ratio, ``stretch`` resizes
            both sides independently.
        unreadable: what happens to images that cannot be read: ``refuse`` the data, or ``skip`` and name them.
        mean, std: mean and standard deviation of each channel (images in 0..1) for normalization, as a network that was trained elsewhere
            needs them; left out, they are computed from the training images.
        workers: number of processes that decode images; left out, the data decides.
        batch_size: images per step.
        cosine: range of the cosine annealing of the learning rate to zero: each ``phase`` by itself, or the whole ``run``. With ``run``,
            one cosine over all phases multiplies each phase's own rate, so that phases of equal rate follow each other without a jump;
            a phase with ``restart`` begins a new cosine.
        optimizer: the optimizer: a name such as ``adamw``, or a table of settings with its ``name``; ``suited`` is SGD for networks with
            batch norms, AdamW for others.
        importance: criterion by which a phase with ``reorder_channels`` sorts channels: ``l1`` or ``l2`` norm of the weights that read a
            channel, ``batch_norm`` (its scale), ``taylor`` (first-order change of the loss without it), ``activation`` (its norm),
            ``random``, or a registered one (see ``ofa.importance``). ``taylor`` and ``activation`` use 16 batches of training images.
        label_smoothing: share of a label that is spread over all classes.
        dropout: share of the classifier's inputs that are dropped in training.
        precision: precision of the arithmetic: ``float32``, ``bfloat16`` or ``float16`` (with scaled gradients). On a GPU torch computes
            float32 convolutions in TF32, unless ``torch.backends.cudnn.allow_tf32`` is False.
        cuda_graphs: whether a single GPU records each block as a CUDA graph on its second use and replays it from then on, which saves
            kernel launches. Blocks of your own whose forward synchronizes with the GPU cannot be recorded.
        clip_norm: largest norm of a step's gradient; a longer gradient is scaled down. 0 is no limit.
        weight_averaging: decay per step of the weights' exponential moving average, which replaces the weights at the end of each phase
            (0.9999 averages over some 10,000 steps); 0 is no averaging.
        checkpoint_steps: steps between saved states. A state is also saved at the end of each epoch, and whenever four minutes would pass
            without one.
        evaluate_every: epochs between evaluations; 0 evaluates only at the end of each phase.
        evaluation_images: the most images of the selection part that these evaluations use.
        augmentation: random augmentation of training images.
        fractions: share of the images to train on, to select networks on, and to test on; the last is 0 with ``test_data``.
        seed: seed of every random choice: the split, the first weights, the order of images and the subnets.

    Raises:
        RecipeError: an impossible value, or a phase beyond its space.
    """

    space: str
    data: str
    phases: tuple[Phase, ...]
    task: str = "classification"
    batch_size: int = 64
    cosine: Span = "phase"
    optimizer: Optimizer = field(default_factory=SGD)
    importance: str = "l1"
    label_smoothing: float = 0.1
    dropout: float = 0.0
    precision: Precision = "float32"
    cuda_graphs: bool = True
    clip_norm: float = 0.0
    weight_averaging: float = 0.0
    start: Start | None = None
    frozen: tuple[str, ...] = ()
    teacher: str = ""
    teacher_resolution: Resolution | None = None
    test_data: str = ""
    fit: Fit = "crop"
    unreadable: Literal["refuse", "skip"] = "refuse"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    workers: int | None = None
    checkpoint_steps: int = 1000
    evaluate_every: int = 1
    evaluation_images: int = 1000
    augmentation: Augmentation = field(default_factory=Augmentation)
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, 2, most=LARGEST_BATCH)
        check_range("clip_norm", self.clip_norm, 0)
        for name in ("seed", "evaluate_every"):
            check_range(name, getattr(self, name), 0, most=MOST_STEPS)
        for name in ("checkpoint_steps", "evaluation_images"):
            check_range(name, getattr(self, name), 1, most=MOST_STEPS)
        if self.workers is not None:
            check_range("workers", self.workers, 0, most=_MOST_WORKERS)
        for name in ("label_smoothing", "dropout"):
            check_range(name, getattr(self, name), 0, 0.999)
        if not 0 <= self.weight_averaging < 1:
            raise RecipeError(
                f"weight_averaging must be in 0..1 (1 excluded), but is {self.weight_averaging}; 0.9999 is common", key="weight_averaging"
            )
        if not self.phases:
            raise RecipeError(
                "a recipe must have at least one phase, but phases is empty; add [[phases]] or a method such as [single_stage]"
            )
        names = [phase.name for phase in self.phases]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"each phase must have a name of its own, but {names.count(name)} are called '{name}'; rename them")
        self.get_task()
        IMPORTANCES.get(self.importance)
        space = _known_space(self.space)
        for phase in self.phases:
            phase.restrict(space)
        frozen_tensors(space, self.frozen)
        if {len(self.mean), len(self.std)} not in ({0}, {space.in_channels}) or min(self.std, default=1.0) <= 0:
            raise RecipeError(
                f"mean and std must have a number for each of the {space.in_channels} channels, and std be above 0, but are "
                f"{list(self.mean)} and {list(self.std)}; give both, or leave both out",
                key="std",
            )
        if self.teacher and all(phase.distillation_weight == 0 for phase in self.phases):
            raise RecipeError(
                f"a teacher must have a phase that distils, but beside the teacher '{self.teacher}' each distillation_weight is 0; set one "
                "to 1, or leave the teacher out",
                key="teacher",
            )
        if bool(self.test_data) == (self.fractions[2] > 0):
            raise RecipeError(
                f"the last of fractions must be 0 with test_data and above 0 without, but fractions is {list(self.fractions)} and "
                f"test_data '{self.test_data}'; for example fractions = [0.9, 0.1, 0] beside test_data",
                key="fractions",
            )

    def starting_from(self, path: str) -> Recipe:
        """The recipe with other initial weights: a run, or a file of a supernet's weights."""
        return replace(self, start=Start(path=path) if self.start is None else replace(self.start, path=path, sha256=""))

    # -- space, data, supernet, randomness ----------------------------------------------------------------------------

    def get_space(self, num_classes: int | None = None) -> Space:
        """The space, for as many classes as the data has."""
        return get_space(self.space, num_classes)

    def get_task(self) -> Task:
        """The task; RecipeError if none has that name."""
        return TASKS.get(self.task)

    def load_splits(self, progress: Progress = silent, *, most: int | None = None) -> Splits:
        """The three parts of the data, read with the channels of the space; the same for the same seed.

        Args:
            progress: told how many images have been scanned.
            most: approximate number of images of each source to scan; None is all.

        Returns:
            The images to train on, to select on and to test on.

        Raises:
            DataError: the data cannot be used.
        """
        data, test = self.load_sources(progress, most=most)
        if test is None:
            return Splits(*split(data, self.fractions, self.generator("split")))
        train, selection = split(data, self.fractions[:2], self.generator("split"))
        return Splits(train, selection, test.normalized(train.normalization))

    def load_sources(
        self,
        progress: Progress = silent,
        *,
        rule: ImageRule | None = None,
        test_classes: Sequence[str] | None = None,
        known: Container[bytes] = (),
        most: int | None = None,
    ) -> tuple[Images, Images | None]:
        """All images of ``data``, and of ``test_data`` if it is set.

        Args:
            progress: told how many images have been scanned.
            rule: how images are read, if it is known already.
            test_classes: names of all classes that ``test_data`` may have; None is the classes of ``data``.
            known: keys of images that were fully decoded before and need no check.
            most: approximate number of images of each source to scan; None is all.

        Returns:
            The images of ``data``, and of ``test_data`` or None.

        Raises:
            DataError: the data cannot be used.
        """
        rule = rule or ImageRule(channels=self.get_space().in_channels, fit=self.fit)
        how: dict[str, Any] = {"unreadable": self.unreadable, "known": known, "most": most, "progress": progress}
        data = load_data(self.data, rule=rule, **how)
        if self.mean:
            data = data.normalized((self.mean, self.std))
        if not self.test_data:
            return data, None
        names = test_classes or data.class_names
        test = load_data(self.test_data, rule=data.rule, classes=names, **how)
        return data, test

    def build_supernet(self, num_classes: int) -> Supernet:
        """An untrained supernet; the same for the same seed."""
        return Supernet(self.get_space(num_classes), generator=self.generator("weights"), dropout=self.dropout)

    def generator(self, purpose: Purpose, *stream: int) -> torch.Generator:
        """A torch generator for one ``stream`` of one ``purpose``, independent of all others."""
        return torch.Generator().manual_seed(int(self._seeds(purpose, stream).generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def rng(self, purpose: Purpose, *stream: int) -> np.random.Generator:
        """A NumPy generator for one ``stream`` of one ``purpose``, independent of all others."""
        return np.random.default_rng(self._seeds(purpose, stream))

    def _seeds(self, purpose: Purpose, stream: tuple[int, ...]) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(_PURPOSES.index(purpose), *stream))

    # -- TOML ---------------------------------------------------------------------------------------------------------

    def to_toml(self, space: str | None = None) -> str:
        """The recipe as TOML that ``from_toml`` reads back; ``space``, if given, is written instead of the recipe's own."""
        lines = toml_lines(self, leave_out="phases")
        if space is not None:
            lines = [f"space = {json.dumps(space)}" if line.startswith("space = ") else line for line in lines]
        for phase in self.phases:
            lines += ["", "[[phases]]", *toml_lines(phase)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, overrides: Sequence[str] = (), *, folder: Path | None = None, trust: bool = False) -> Recipe:
        """Read a recipe whose phases are listed as ``[[phases]]`` or made by a method's table.

        Args:
            text: TOML with the attributes of a recipe; a table such as ``progressive_shrinking`` holds the arguments of that method.
            overrides: changes of the form ``key=value``; dotted keys lead into tables (``augmentation.shift=0.1``) and into phases by
                name (``phases.kernel.epochs=3``).
            folder: folder in which a space file is looked for first; None is the working folder.
            trust: whether a ``module:attribute`` that only the text names may be imported. Otherwise only an override may name one, and
                ``space.json`` in ``folder`` replaces such a space.

        Raises:
            RecipeError: not TOML, unknown or missing keys, impossible values, or a space whose import is not trusted. Images and optimizer
                are imported, or refused, only when they are used.
        """
        table = parse_toml(text, what="a recipe", error=RecipeError)
        if not trust:
            table = from_file(table)
        _name_optimizer(table)
        for override in overrides:
            _override(table, override)
            _name_optimizer(table)
        if table.get("space") == START:
            start = table.get("start")
            found = settings_of_start(start.get("path") if isinstance(start, Mapping) else None)
            table = {**found, **table, "space": found["space"]}
        elif isinstance(table.get("space"), str):
            table["space"] = _place_of_space(table["space"], folder or Path())
        try:
            optimizer = read_optimizer(table.pop("optimizer"), lambda: _space_of(table))
            return build(cls, table, "the recipe", phases=_phases(table), optimizer=optimizer)
        except RecipeError as error:
            line = None if error.path is None or _is_overridden(error.path, overrides) else line_of(text, error.path)
            if line is None:
                raise
            raise RecipeError(f"line {line}: {error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = (), *, trust: bool = False) -> Recipe:
        """Read the TOML file ``path``; its folder may hold the space file. Arguments and errors as of ``from_toml``, and FileError."""
        text = read_text(path, most=LARGEST_TOML, what="recipe")
        try:
            return cls.from_toml(text, overrides, folder=Path(path).parent, trust=trust)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error


def _name_optimizer(table: dict[str, Any]) -> None:
    """Turn the optimizer of a recipe's table into a table with its name, so that an override can lead into it."""
    said = table.get("optimizer")
    if said is None:  # recipes of version 0.1 had the settings of SGD, the one optimizer, beside their other keys
        said = {"name": "sgd", **{key: table.pop(key) for key in ("momentum", "weight_decay") if key in table}}
    table["optimizer"] = {"name": said} if isinstance(said, str) else said


def _phases(table: dict[str, Any]) -> tuple[Phase, ...]:
    """Remove the phases from a recipe's table, and build them."""
    found = [key for key in ("phases", *METHODS) if key in table]
    if len(found) != 1:
        raise RecipeError(
            f"a recipe must have one of [[phases]], {', '.join(f'[{method}]' for method in METHODS)}, but this one has "
            f"{' and '.join(found) or 'none'}; write one of them"
        )
    key = found[0]
    listed = table.pop(key)
    if key in METHODS:
        if not isinstance(listed, Mapping):
            raise RecipeError(f"{key} must be a table, but is {listed!r}; write [{key}] and its epochs")
        return build(METHODS[key], listed, key, path=(key,), space=_space_of(table))
    if not isinstance(listed, list) or not all(isinstance(phase, Mapping) for phase in listed):
        raise RecipeError(f"phases must be a list of tables, but is {listed!r}; write [[phases]] above each")
    return tuple(build(Phase, phase, f"phases.{phase.get('name', number)}", path=("phases", number)) for number, phase in enumerate(listed))


def _space_of(table: Mapping[str, Any]) -> Space:
    said = table.get("space")
    return _known_space(said if isinstance(said, str) else "")


def _known_space(text: str) -> Space:
    try:
        return get_space(text)
    except OfaError as error:
        raise RecipeError(f"space: {error}", key="space") from error


def _place_of_space(text: str, folder: Path) -> str:
    """A recipe's space as a text that holds from any current folder."""
    carried = (folder / SPACE).absolute()
    if isinstance(text, FromFile) and text not in space_names() and os.path.isfile(carried):
        return str(carried)
    beside = (folder / text).absolute()
    return str(beside) if is_space_file(text) and os.path.isfile(beside) else text


def _is_overridden(path: tuple[str | int, ...], overrides: Sequence[str]) -> bool:
    """Whether a key's value came from an override, so that an error must not name its line in the file."""
    return any(override.partition("=")[0].strip().rpartition(".")[2] in path for override in overrides)


def _override(table: dict[str, Any], override: str) -> None:
    """Apply one ``key=value`` to the table of a recipe."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"a change must be written key=value, but is '{override}'; for example batch_size=32")
    try:
        value = parse_toml(f"value = {text.strip()}", what="a value", error=RecipeError)["value"]
    except RecipeError:
        value = text.strip()  # a string without its quotes, which a shell would have eaten
    *path, last = key.strip().split(".")
    for name in path:
        inner = _named_phase(table, name) if isinstance(table, list) else table.setdefault(name, {})
        if not isinstance(inner, dict | list):
            raise RecipeError(f"'{name}' in '{override}' must be a table, but is {inner!r}; remove what follows its name")
        table = inner  # type: ignore[assignment]
    if isinstance(table, list):
        raise RecipeError(f"a change of a phase must name its key, but is '{override}'; for example phases.{last}.epochs=3")
    table[last] = value


def _named_phase(phases: list[Any], name: str) -> dict[str, Any]:
    for phase in phases:
        if isinstance(phase, dict) and phase.get("name") == name:
            return phase
    known = ", ".join(str(phase.get("name")) for phase in phases if isinstance(phase, dict))
    raise RecipeError(f"'{name}' must be the name of a phase; known: {known}")
