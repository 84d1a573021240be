"""A space out of a module that the user named."""

from __future__ import annotations

from ofa.errors import OfaError, SpaceError, TrustError
from ofa.registry import import_attribute
from ofa.space import Space

__all__ = ["import_space"]


def import_space(spec: str) -> Space:
    """Import a space.

    Args:
        spec: ``module:attribute``; the attribute is a space, or a function without arguments that makes one.

    Raises:
        SpaceError: it cannot be imported, is no space, or has fields that no file can carry.
    """
    try:
        found = import_attribute(spec)
        # A space is no function, and the class alone has no name and no resolutions yet.
        space = found() if callable(found) and not isinstance(found, type) else found
    except TrustError:
        raise
    except OfaError as error:
        raise SpaceError(f"'{spec}': {error}") from error
    except Exception as error:  # a module of the user's may fail in any way
        raise SpaceError(
            f"'{spec}' must name a space as module:attribute, but importing it met {type(error).__name__}: {_first_line(error)}; check "
            "both names, the Python path and the module"
        ) from error
    if not isinstance(space, Space):
        raise SpaceError(
            f"'{spec}' must name a space, or a function without arguments that makes one, but is {type(space).__name__}; name another "
            "attribute"
        )
    try:
        hash(space)
    except TypeError as error:
        raise SpaceError(
            f"the fields of a space must be tuples where they are many, but '{spec}' has a list: {error}; make tuples"
        ) from error
    space.to_json()  # what no file can carry is told now, and not after training
    return space


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
