"""TensorRT or TensorRT for RTX, imported only when it is needed.

This module holds all that differs between the two: names of modules, and subclasses of base classes that exist only after the import.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any

from ofa.errors import ExportError, MissingExtraError, nearest
from ofa.progress import Progress

__all__ = ["FLAVOURS", "Package"]

FLAVOURS: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""Import names of each flavour: of the whole package, and of the bindings alone."""


@dataclass(frozen=True)
class Package:
    """TensorRT or TensorRT for RTX, imported, with the log that its objects write to."""

    flavour: str
    module: Any
    log: Any

    @classmethod
    def load(cls, flavour: str) -> Package:
        """Import the package of a flavour.

        Raises:
            MissingExtraError: the package is not installed.
            ExportError: the flavour is unknown, or the package does not load on this machine.
        """
        if flavour not in FLAVOURS:
            raise ExportError(f"'{flavour}' must be a flavour of TensorRT; {nearest(flavour, FLAVOURS)}")
        for name in FLAVOURS[flavour]:
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError:
                continue
            except (ImportError, OSError) as error:
                raise ExportError(
                    f"the installed {flavour} must load on this machine, but {error}; install it again for this system"
                ) from error
            return cls(flavour, module, _log(module))
        raise MissingExtraError(f"building and reading {flavour} engines", flavour)

    @property
    def version(self) -> str:
        """Version of the package."""
        return str(self.module.__version__)

    def start(self, kind: str) -> Any:
        """A ``Builder`` or ``Runtime``; None if the package does not work on this machine, for lack of a GPU."""
        try:
            return getattr(self.module, kind)(self.log)
        except TypeError:  # the bindings' only sign that the C++ function returned null
            return None

    def network_flags(self) -> int:
        """Flags for a strongly typed network, so that both flavours compute in the file's precision; 0 if that is the only mode."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def monitor(self, progress: Progress) -> Any:
        """A progress monitor for a build. If ``progress`` raises, the build is cancelled and ``raised`` holds the exception."""
        return _monitor(self.module, progress)

    def refusal(self, path: str | os.PathLike[str], reason: str = "") -> ExportError:
        """The error about a file from which no engine can be built."""
        return ExportError(
            f"'{path}' must be a network that {self.flavour} {self.version} can build on this machine, "
            f"but it reports: {reason or self.log.summary()}; change the network, the GPUs or the precision"
        )

    def foreign(self, path: str | os.PathLike[str], problem: str) -> ExportError:
        """The error about a file that is no engine of this package."""
        return ExportError(f"'{path}' must be a whole engine of {self.flavour} {self.version}, but {problem}; build it again")


def _log(module: Any) -> Any:
    """A logger that keeps errors instead of printing them; its base class exists only once the package is loaded."""

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))

        def summary(self) -> str:
            """The first error; later errors are its consequences."""
            return self.errors[0] if self.errors else "no reason"

    return Log()


def _monitor(module: Any, progress: Progress) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """Reports the steps of the outermost phase; the number of inner phases is not known beforehand."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.outermost: tuple[str, int] | None = None
            self.raised: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self.outermost is None:
                self.outermost = (phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self.outermost is not None and phase_name == self.outermost[0] and self.raised is None:
                try:
                    progress(min(step + 1, self.outermost[1]), self.outermost[1], phase_name)
                except BaseException as error:  # must not cross the C++ code: cancel, then raise again
                    self.raised = error
            return self.raised is None

        def phase_finish(self, phase_name: str) -> None:
            """Do nothing."""

    return Monitor()
