"""Import of a space from a module that the user named."""

from __future__ import annotations

from ofa.errors import OfaError, SpaceError, TrustError
from ofa.registry import import_attribute
from ofa.space import Space

__all__ = ["import_space"]


def import_space(spec: str) -> Space:
    """Import a space.

    Args:
        spec: ``module:attribute``; the attribute is a space, or a function without arguments that returns one.

    Raises:
        SpaceError: the attribute cannot be imported, is no space, or has fields that cannot be stored in files.
        TrustError: ``spec`` comes from a file.
    """
    try:
        found = import_attribute(spec)
        # Functions are called. Space objects are not callable, and a class without arguments has no name and no resolutions.
        space = found() if callable(found) and not isinstance(found, type) else found
    except TrustError:
        raise
    except OfaError as error:
        raise SpaceError(f"'{spec}': {error}") from error
    except Exception as error:  # user code may fail in any way
        raise SpaceError(
            f"'{spec}' must name a space as module:attribute, but importing it raised {type(error).__name__}: {_first_line(error)}; check "
            "both names, the Python path and the module"
        ) from error
    if not isinstance(space, Space):
        raise SpaceError(
            f"'{spec}' must name a space, or a function without arguments that returns one, but is {type(space).__name__}; name another "
            "attribute"
        )
    try:
        hash(space)
    except TypeError as error:
        raise SpaceError(
            f"fields of a space with several values must be tuples, but '{spec}' has an unhashable field: {error}; make it a tuple"
        ) from error
    space.to_json()  # fields that cannot be stored are reported now, not after training
    return space


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
