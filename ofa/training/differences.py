"""Differences between two recipes, and the extension of a recipe by a further phase."""

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
"""Keys of a recipe that affect how a run is carried out and watched, but not its final weights."""
_ABSENT, _ORDER = "absent", "the order of phases"
_RATE_IS_DIVIDED_BY = 10
"""A fully trained network is near a minimum, which the full learning rate would leave."""
_MORE = "-more-"

Change = tuple[str, str, str]
"""A dotted key, its value before and its value now, both as TOML."""


def changed_keys(before: Recipe, now: Recipe) -> tuple[Change, ...]:
    """The keys whose values differ and affect a run's result; a phase that only one recipe has counts as one key."""
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
    """The recipe of a run that is extended after its end: its last phase once more, from the run's final weights.

    The added phase restarts optimizer and schedule (``Phase.restart``). Training by the extended recipe from the first step therefore
    ends with the same weights as extending a run.

    Args:
        recipe: the recipe of the run that ended.
        epochs: number of epochs of the added phase.
        learning_rate: initial learning rate of the added phase (cosine annealing to zero). The default is a tenth of the last phase's
            rate, or the last phase's rate if that phase was added itself.

    Raises:
        RecipeError: less than an epoch, or an impossible rate.
    """
    if epochs < 1:
        raise RecipeError(f"an extension of a run must have at least 1 epoch, but epochs is {epochs}; raise it")
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
