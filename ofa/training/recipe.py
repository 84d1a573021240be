"""Recipe: a whole training run as a value, read from and written to TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ofa.data import Augmentation, Splits, load_data, split
from ofa.errors import FileError, RecipeError, SpaceError
from ofa.families import get_space
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.phase import Phase
from ofa.training.shrinking import progressive_shrinking
from ofa.training.tables import build, check_range, toml_lines

__all__ = ["Phase", "Recipe", "progressive_shrinking"]

Purpose = Literal["split", "weights", "training", "specialization"]
_PURPOSES: tuple[Purpose, ...] = ("split", "weights", "training", "specialization")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides how a supernet is trained.

    Attributes:
        space: name of the space.
        data: name of the data set.
        phases: one after the other, each from the weights that the one before left.
        batch_size: images a step.
        momentum: of SGD with Nesterov's step.
        weight_decay: of convolution and linear weights.
        label_smoothing: share of a label that is spread over all classes.
        dropout: share of the classifier's inputs that are dropped in training.
        augmentation: how training images are moved at random.
        fractions: share of the images to train on, to select networks on, and to test on.
        seed: of every random choice: the split, the first weights, the order of images and the subnets.

    Raises:
        RecipeError: an impossible value, or a phase beyond its space.
    """

    space: str
    data: str
    phases: tuple[Phase, ...]
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 3e-5
    label_smoothing: float = 0.1
    dropout: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, 2)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("seed", self.seed, 0)
        for name in ("momentum", "label_smoothing", "dropout"):
            check_range(name, getattr(self, name), 0, 0.999)
        if not self.phases:
            raise RecipeError("a recipe must have at least one phase, but phases is empty; add [[phases]] or [progressive_shrinking]")
        names = [phase.name for phase in self.phases]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(f"each phase must have a name of its own, but {names.count(name)} are called '{name}'; rename them")
        try:
            space = get_space(self.space)
        except SpaceError as error:
            raise RecipeError(f"space: {error}") from error
        for phase in self.phases:
            phase.restrict(space)

    # -- what it makes ------------------------------------------------------------------------------------------------

    def get_space(self, num_classes: int) -> Space:
        """The space for as many classes as the data has."""
        return get_space(self.space, num_classes)

    def load_splits(self) -> Splits:
        """The three parts of the data; the same for the same seed."""
        return Splits(*split(load_data(self.data), self.fractions, self.generator("split")))

    def build_supernet(self, num_classes: int) -> Supernet:
        """An untrained supernet; the same for the same seed."""
        return Supernet(self.get_space(num_classes), generator=self.generator("weights"), dropout=self.dropout)

    def generator(self, purpose: Purpose) -> torch.Generator:
        """Torch's randomness for one purpose, independent of that for the others."""
        return torch.Generator().manual_seed(int(self._seeds(purpose).generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def rng(self, purpose: Purpose) -> np.random.Generator:
        """NumPy's randomness for one purpose, independent of that for the others."""
        return np.random.default_rng(self._seeds(purpose))

    def _seeds(self, purpose: Purpose) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(_PURPOSES.index(purpose),))

    # -- TOML ---------------------------------------------------------------------------------------------------------

    def to_toml(self) -> str:
        """The recipe as TOML that ``from_toml`` reads back."""
        lines = toml_lines(self, leave_out="phases")
        for phase in self.phases:
            lines += ["", "[[phases]]", *toml_lines(phase)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe whose phases are listed as ``[[phases]]``, or made by a table ``[progressive_shrinking]``.

        Args:
            text: TOML with the attributes of a recipe; ``progressive_shrinking`` holds the arguments of that function.
            overrides: changes of the form ``key=value``; a dot leads into a table (``augmentation.shift=0.1``), and into a
                phase by its name (``phases.kernel.epochs=3``).

        Raises:
            RecipeError: not TOML, unknown or missing keys, impossible values.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"a recipe must be TOML, but {error}; correct that line") from error
        for override in overrides:
            _override(table, override)
        return build(cls, table, "the recipe", phases=_phases(table))

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
        """Read a TOML file; arguments and errors as of ``from_toml``, or FileError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise FileError(f"'{path}' must be a readable text file, but {reason}; check the path") from error
        try:
            return cls.from_toml(text, overrides)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error


def _phases(table: dict[str, Any]) -> tuple[Phase, ...]:
    """Take the phases out of a recipe's table."""
    listed, shrinking = table.pop("phases", None), table.pop("progressive_shrinking", None)
    if (listed is None) == (shrinking is None):
        found = "neither" if listed is None else "both"
        raise RecipeError(f"a recipe must have either [[phases]] or [progressive_shrinking], but this one has {found}; write one of them")
    if shrinking is not None:
        if not isinstance(shrinking, Mapping):
            raise RecipeError(f"progressive_shrinking must be a table, but is {shrinking!r}; write [progressive_shrinking] and its epochs")
        space = _space_of(table)
        return build(progressive_shrinking, shrinking, "progressive_shrinking", space=space)
    if not isinstance(listed, list) or not all(isinstance(phase, Mapping) for phase in listed):
        raise RecipeError(f"phases must be a list of tables, but is {listed!r}; write [[phases]] above each")
    return tuple(build(Phase, phase, f"phases.{phase.get('name', number)}") for number, phase in enumerate(listed))


def _space_of(table: Mapping[str, Any]) -> Space:
    try:
        return get_space(str(table.get("space", "")))
    except SpaceError as error:
        raise RecipeError(f"space: {error}") from error


def _override(table: dict[str, Any], override: str) -> None:
    """Apply one ``key=value`` to the table of a recipe."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"a change must be written key=value, but is '{override}'; for example batch_size=32")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
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
