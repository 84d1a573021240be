"""A transport: another virtual environment of this machine, such as one with an older release of a runtime."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devices import Address
from devices.transports import Agent, Connection
from devices.transports.archive import agent_archive


@dataclass(frozen=True, kw_only=True)
class OtherEnvironment(Address):
    """The interpreter of an environment, to which the agent is copied.

    Args:
        environment: folder of the virtual environment, with numpy and the runtime.
        folder: where the agent is written.
    """

    kind: ClassVar[str] = "other-environment"
    environment: str
    folder: str

    def start(self) -> Connection:
        """Start the agent; what it says comes over its output, one JSON value a line."""
        agent = Path(self.folder) / "agent.pyz"
        agent.write_bytes(agent_archive())
        python = Path(self.environment) / "bin" / "python"
        return Connection([str(python), "-I", str(agent)], place=f"environment '{self.environment}'")

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        """Files are where they are; a transport to another machine sends them here."""
        return {key: str(path.resolve()) for key, path in paths.items()}
