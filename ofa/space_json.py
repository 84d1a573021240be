"""Spaces as JSON. Runs, tables, fronts and bundles carry their whole space, so that readers need not know its name.

A file never causes an import: a family that is not part of ofa can be read only if its class has already been imported.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ofa.choices import Gene, Stage
from ofa.errors import SpaceError
from ofa.resolution import resolutions_to_json

__all__ = ["SCHEMA", "family_of", "space_from_json", "space_to_json"]

S = TypeVar("S")

SCHEMA = 1
_LARGEST = 2**20
"""Largest number in a space file, above all channels, classes and expansions in use; much larger sizes overflow torch's integers."""
_KIND = "space"
_FAMILIES = "ofa.families"
_COMMON = ("name", "num_classes", "in_channels", "resolutions", "stages", "network")
_HEAD = ("kind", "schema", "family", *_COMMON, "fields")


def family_of(space: type) -> str:
    """Name of a class in files: the class name for families of ofa, ``module:class`` for all others."""
    own = space.__module__.startswith(f"{_FAMILIES}.")
    return space.__qualname__ if own else f"{space.__module__}:{space.__qualname__}"


def space_to_json(space: Any) -> dict[str, Any]:
    """Convert a ``Space`` to JSON values; see ``Space.to_json``."""
    own = {field.name: getattr(space, field.name) for field in fields(space) if field.name not in _COMMON}
    return {
        "kind": _KIND,
        "schema": SCHEMA,
        "family": family_of(type(space)),
        "name": space.name,
        "num_classes": space.num_classes,
        "in_channels": space.in_channels,
        "resolutions": resolutions_to_json(space.resolutions),
        "stages": [{"depths": list(stage.depths), "genes": _genes_to_json(stage.genes)} for stage in space.stages],
        "network": _genes_to_json(space.network),
        "fields": {name: _to_json(value, f"{space.name}.{name}") for name, value in own.items()},
    }


def space_from_json(value: Any, base: type[S], source: str) -> S:
    """Rebuild a space from the JSON values of ``space_to_json``.

    Args:
        value: JSON values.
        base: the base class of all spaces.
        source: origin of the values in words, for messages.

    Raises:
        SpaceError: the values are no space, of a newer version, or of a class that has not been imported.
    """
    if not isinstance(value, Mapping) or value.get("kind") != _KIND or not isinstance(value.get("schema"), int):
        raise SpaceError(
            f'{source} must be a space with "kind": "{_KIND}" and its schema, but is something else; write one with: ofa space'
        )
    if value["schema"] > SCHEMA:
        raise SpaceError(
            f"{source} has schema {value['schema']}, but this version reads up to {SCHEMA}; upgrade with: pip install -U ofa-nas"
        )
    missing, unknown = [key for key in _HEAD if key not in value], [key for key in value if key not in _HEAD]
    if missing or unknown:
        found = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)}"
        raise SpaceError(f"{source} must have the keys {', '.join(_HEAD)}, but {found}; write it anew with: ofa space")
    family: Callable[..., S] = _family(value, base, source)
    try:
        hints = get_type_hints(family)
        own = {name: _from_json(field, hints[name], name) for name, field in value["fields"].items()}
        return family(
            name=_from_json(value["name"], str, "name"),
            num_classes=_from_json(value["num_classes"], int, "num_classes"),
            in_channels=_from_json(value["in_channels"], int, "in_channels"),
            resolutions=tuple(value["resolutions"]),
            stages=tuple(_stage_from_json(stage) for stage in value["stages"]),
            network=_genes_from_json(value["network"], "network"),
            **own,
        )
    except SpaceError as error:
        raise SpaceError(f"{source}: {error}") from error
    except (TypeError, KeyError, AttributeError, ValueError, NameError) as error:
        raise SpaceError(
            f"{source} must describe a space of {value['family']}, but reading it raised {type(error).__name__}: {error}; write it with: "
            "ofa space"
        ) from error


def _family(value: Mapping[str, Any], base: type[S], source: str) -> type[S]:
    """The class of a space: a family of ofa, or another class that has already been imported."""
    importlib.import_module(_FAMILIES)  # not at the top of the file: families import Space, which imports this module
    known = {family_of(found): found for found in _derived(base)}
    if not isinstance(value["family"], str) or value["family"] not in known:
        raise SpaceError(
            f"the class of a space must be part of ofa or already imported, but {source} has the space {value['name']} of class "
            f"{value['family']}; name the space again with --space module:attribute, or import its module first"
        )
    return known[value["family"]]


def _derived(base: type[S]) -> Iterator[type[S]]:
    for found in base.__subclasses__():
        yield found
        yield from _derived(found)


# -- values -----------------------------------------------------------------------------------------------------------


def _genes_to_json(genes: tuple[Gene, ...]) -> dict[str, list[int | float]]:
    return {gene.name: list(gene.values) for gene in genes}


def _genes_from_json(value: Any, where: str) -> tuple[Gene, ...]:
    return tuple(Gene(name, _from_json(values, tuple[int | float, ...], f"{where}.{name}")) for name, values in value.items())


def _stage_from_json(value: Any) -> Stage:
    return Stage(_from_json(value["depths"], tuple[int, ...], "depths"), _genes_from_json(value["genes"], "genes"))


def _to_json(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, tuple):
        return [_to_json(item, where) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _to_json(getattr(value, field.name), f"{where}.{field.name}") for field in fields(value)}
    raise SpaceError(
        f"the fields of a space must be numbers, text, tuples and dataclasses of these, so that files can carry them, but {where} is "
        f"{value!r}; express it by such values"
    )


def _from_json(value: Any, hint: Any, where: str) -> Any:
    """Convert a JSON value to the type of a field."""
    if get_origin(hint) is tuple:
        return _tuple(value, get_args(hint), where)
    if get_origin(hint) is Literal:
        kinds: tuple[Any, ...] = get_args(hint)
        fits = value in kinds
    elif get_origin(hint) in (Union, UnionType):
        return _first_fitting(value, get_args(hint), where)
    elif is_dataclass(hint) and isinstance(hint, type):
        inner = get_type_hints(hint)
        return hint(**{name: _from_json(item, inner[name], f"{where}.{name}") for name, item in value.items()})
    else:
        kinds = (hint,)
        fits = type(value) is hint or (hint is float and type(value) is int) or (hint is NoneType and value is None)
    if not fits:
        raise SpaceError(
            f"{where} must be {' or '.join(getattr(kind, '__name__', str(kind)) for kind in kinds)}, but is {value!r}; correct it"
        )
    if isinstance(value, int | float) and abs(value) > _LARGEST:
        raise SpaceError(f"{where} must be at most {_LARGEST}, but is {value}; correct it")
    return float(value) if hint is float else value


def _tuple(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise SpaceError(f"{where} must be a list, but is {value!r}; put it in brackets")
    each = [hints[0]] * len(value) if hints[-1] is ... else list(hints)
    if len(each) != len(value):
        raise SpaceError(f"{where} must have {len(each)} values, but has {len(value)}; give each of them")
    return tuple(_from_json(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, each, strict=True)))


def _first_fitting(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    problem: SpaceError | None = None
    for hint in hints:
        try:
            return _from_json(value, hint, where)
        except SpaceError as error:
            problem = error
    assert problem is not None
    raise problem
