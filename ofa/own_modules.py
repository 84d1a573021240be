"""User-defined modules, by a registered name or as ``module:attribute``."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ofa.errors import OfaError, SpaceError
from ofa.reasons import reason_of
from ofa.registry import Registry

__all__ = ["MODELS", "ModuleRegistry"]


class ModuleRegistry(Registry[nn.Module | Callable[[], nn.Module]]):
    """Modules, or functions without arguments that return one, by name.

    Args:
        kind: what a module is, for messages, such as ``teacher``.
        error: class of the errors raised.
        group: entry-point group, as in ``Registry``.
    """

    def __init__(self, kind: str, *, error: type[OfaError], group: str | None = None) -> None:
        must_be = "a torch.nn.Module, or a function without arguments that returns one"
        super().__init__(kind, group=group, error=error, must_be=must_be)

    def make(self, text: str) -> nn.Module:
        """Find or build the module that a user named.

        Args:
            text: a registered name, or ``module:attribute``, which is imported.

        Raises:
            TrustError: a file, not the user, gave ``module:attribute``.
            OfaError: of the registry's ``error`` class: the module does not exist, cannot be imported or built, or is no module.
        """
        if ":" not in text and text not in self:
            raise self._error(f"a {self._kind} must be named module:attribute, but is '{text}'; name the Python module that has it")
        entry = self.find(text)
        if isinstance(entry, nn.Module):
            return entry
        try:
            made = entry()
        except Exception as error:  # user code may fail in any way
            raise self._error(f"{self._kind} '{text}' must be made without arguments, but: {reason_of(error)}; correct it") from error
        if not isinstance(made, nn.Module):
            raise self._error(f"a {self._kind} must be a torch.nn.Module, but '{text}' makes a {type(made).__name__}; correct it")
        return made


MODELS = ModuleRegistry("model", error=SpaceError)
"""Trained models to adopt; none is registered by default, so they are named as ``module:attribute``."""
