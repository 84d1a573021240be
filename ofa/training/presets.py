"""Built-in recipes, as the TOML files of ``ofa/training/recipes``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ofa.errors import FileError, nearest
from ofa.training.recipe import Recipe

__all__ = ["demo_recipe", "load_recipe", "preset_about", "preset_names", "preset_text"]


def preset_names() -> tuple[str, ...]:
    """The names of the built-in recipes."""
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in files("ofa.training.recipes").iterdir() if entry.name.endswith(".toml"))
    )


def preset_text(name: str) -> str:
    """The TOML of a built-in recipe.

    Raises:
        FileError: no recipe has this name.
    """
    if name not in preset_names():
        raise FileError(f"'{name}' must be the name of a recipe; {nearest(name, preset_names())}")
    return files("ofa.training.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def preset_about(name: str) -> str:
    """The leading comment of a built-in recipe.

    Raises:
        FileError: no recipe has this name.
    """
    comment = []
    for line in preset_text(name).splitlines():
        if not line.startswith("# ") or line.startswith("#   "):  # an example
            break
        comment.append(line.removeprefix("# "))
    return " ".join(comment)


def load_recipe(source: str, overrides: Sequence[str] = (), *, trust: bool = False) -> Recipe:
    """Read a recipe from a file, or a built-in one by its name.

    Args:
        source: the path or name.
        overrides: changes as of ``Recipe.from_toml``.
        trust: whether a ``module:attribute`` that only the file names may be imported; one in an override always is.

    Returns:
        The recipe.

    Raises:
        FileError: there is neither such a file nor such a name.
        RecipeError: the file is not a valid recipe.
    """
    if os.path.isdir(source):
        raise FileError(
            f"a recipe must be a TOML file or the name of one, but '{source}' is a folder; if it is a run, add --resume to continue it, "
            f"or begin another by '{Path(source) / 'config.toml'}'"
        )
    if os.path.exists(source) or source.endswith(".toml"):
        return Recipe.load(source, overrides, trust=trust)
    if source not in preset_names():
        raise FileError(f"'{source}' must be a TOML file or the name of a recipe; {nearest(source, preset_names())}")
    return Recipe.from_toml(preset_text(source), overrides)


def demo_recipe(*, epochs: int = 36, seed: int = 0) -> Recipe:
    """A small MobileNetV3 supernet on scikit-learn's handwritten digits: about a minute on two CPU cores.

    Args:
        epochs: epochs of all phases together.
        seed: seed of every random choice.

    Returns:
        The recipe.
    """
    return load_recipe("digits", (f"progressive_shrinking.epochs={epochs}", f"seed={seed}"))
