"""Two recipes side by side, and a recipe that goes on where another ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from ofa.errors import RecipeError
from ofa.resolution import Resolution
from ofa.space import Gene
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.toml import to_toml

__all__ = ["IMMATERIAL", "Change", "changed_keys", "extended"]

IMMATERIAL = ("workers", "cuda_graphs", "checkpoint_steps", "evaluate_every", "evaluation_images")
"""Keys of a recipe that change how a run is carried out and watched, and not the weights that it ends with."""
_ABSENT, _ORDER = "absent", "the order of phases"
_RATE_IS_DIVIDED_BY = 10
"""A network that was trained to the end is near a minimum, which the whole rate would throw it out of."""
_MORE = "-more-"

Change = tuple[str, str, str]
"""A key with its dots, its value before and its value now, as TOML."""


def changed_keys(before: Recipe, now: Recipe) -> tuple[Change, ...]:
    """The keys whose values differ and change what a run comes to; a phase that only one recipe has counts as one key."""
    old, new = dict(_flat(before)), dict(_flat(now))
    changes = [(key, old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in {**old, **new}]
    lone = tuple(f"{key}." for key, *values in changes if key.startswith("phases.") and _ABSENT in values and key.count(".") == 1)
    hidden = (*IMMATERIAL, *([_ORDER] if lone else []))
    return tuple(each for each in changes if each[1] != each[2] and each[0] not in hidden and not each[0].startswith(lone))


def _flat(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for key, value in _pairs(recipe):
        if key == "phases":
            for phase in recipe.phases:
                yield f"phases.{phase.name}", "present"
                yield from ((f"phases.{phase.name}.{inner}", text) for inner, text in _texts(phase))
            yield _ORDER, ", ".join(phase.name for phase in recipe.phases)
        elif is_dataclass(value):
            yield from ((f"{key}.{inner}", text) for inner, text in _texts(value))
        elif value is not None:
            yield key, _text(key, value)


def _pairs(instance: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(instance, field.name)) for field in fields(instance))


def _texts(instance: Any) -> Iterator[tuple[str, str]]:
    return ((key, _text(key, value)) for key, value in _pairs(instance))


def _text(key: str, value: Any) -> str:
    items = {"free": (Gene,), "resolutions": (Resolution,)}.get(key, ())
    return to_toml(value, items=items)


def extended(recipe: Recipe, epochs: int, learning_rate: float | None = None) -> Recipe:
    """The recipe of a run that goes on after its end: its last phase once more, from the weights that the run ended with.

    The added phase begins anew (``Phase.restart``), so that a run which is trained by the extended recipe from its first step ends as
    one that was extended.

    Args:
        recipe: of the run that ended.
        epochs: of the added phase.
        learning_rate: from which the added phase falls to zero along a cosine; by default a tenth of the last phase's, or as
            much as the last phase has if that was added itself.

    Raises:
        RecipeError: less than an epoch, or an impossible rate.
    """
    if epochs < 1:
        raise RecipeError(f"a run must go on for at least 1 epoch, but epochs is {epochs}; raise it")
    last = recipe.phases[-1]
    usual = last.learning_rate if last.restart else last.learning_rate / _RATE_IS_DIVIDED_BY
    rate = usual if learning_rate is None else learning_rate
    name = _next_name(last.name, {phase.name for phase in recipe.phases})
    added: Phase = replace(last, name=name, epochs=epochs, learning_rate=rate, warmup_epochs=0.0, reorder_channels=False, restart=True)
    return replace(recipe, phases=(*recipe.phases, added))


def _next_name(name: str, taken: set[str]) -> str:
    stem = name.partition(_MORE)[0]
    number = 1
    while f"{stem}{_MORE}{number}" in taken:
        number += 1
    return f"{stem}{_MORE}{number}"
