"""A runtime, its file format and a transport that are defined here, and nowhere in the project."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import ClassVar

import numpy as np
import pytest

from devices import RUNTIMES, TRANSPORTS, Address, Device, Fake, Settings, describe, load_device, probe
from devices.transports import Agent, Connection
from devices.transports.archive import agent_archive
from latency_tables import build_table
from ofa.errors import DeviceError, ExportError
from ofa.exporting.formats import FORMATS, Format
from ofa.families import get_space
from tests.devices.runtime_contract import RuntimeContract
from tests.devices.transport_contract import QUICK, TransportContract
from tests.devices.zipped import Zipped, inner_runtime


@dataclass(frozen=True, kw_only=True)
class Folder(Address):
    """A machine to which files are copied, as into a container; the agent comes with them."""

    kind: ClassVar[str] = "folder"
    folder: str

    def start(self) -> Connection:
        agent = Path(self.folder) / "agent.pyz"
        agent.write_bytes(agent_archive())
        return Connection([sys.executable, "-I", str(agent)], environment={}, place=f"folder '{self.folder}'")

    def bring(self, agent: Agent, paths: Mapping[str, Path]) -> dict[str, str]:
        return {key: str(copyfile(path, Path(self.folder) / path.name)) for key, path in paths.items()}


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with (
        RUNTIMES.registered("zipped", Zipped),
        FORMATS.registered("zipped", Format(suffix=".z", convert=zlib.compress)),
        TRANSPORTS.registered("folder", Folder),
    ):
        yield


class TestZipped(RuntimeContract):
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(runtime="zipped")


class TestFolder(TransportContract):
    @pytest.fixture
    def address(self, tmp_path: Path) -> Address:
        (tmp_path / "there").mkdir()
        return Folder(folder=str(tmp_path / "there"))


def test_a_device_file_names_what_is_registered(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\nruntime = "zipped"\n[options]\nnoise = 0.1\n[transport]\nkind = "folder"\nfolder = "{tmp_path}"\n')
    assert load_device(path) == Device(name="mine", runtime="zipped", options=(("noise", 0.1),), address=Folder(folder=str(tmp_path)))


@pytest.mark.parametrize("line", [f'runtime = "{Zipped.__module__}:Zipped"', f'runtime = "fake"\ntransport = "{__name__}:Folder"'])
def test_a_device_file_imports_nothing(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{line}\n')
    with pytest.raises(DeviceError, match="must be a known one, but is"):
        load_device(path)


def test_blocks_are_built_in_the_runtimes_format_and_timed_by_a_process_that_imports_it() -> None:
    space = get_space("ofa-proxyless-tiny").restrict(kernel=[3], expand=[3])
    tables = [
        build_table(space, Device(name="fake", runtime=runtime), resolutions=[16], rng=np.random.default_rng(0), policy=QUICK)
        for runtime in ("fake", "zipped")
    ]
    plain, zipped = (table.rows.set_index("block").median_ms.to_dict() for table in tables)
    assert zipped == plain
    assert probe(Device(name="mine", runtime="zipped"))["probe"]["median_ms"] > 0


def test_a_runtime_that_the_device_lacks_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError,
        match=rf"runtime '{Zipped.__module__}:Zipped' must be importable as module:attribute, but: No module .*; check both names",
    ) as caught:
        describe(Device(name="mine", runtime="zipped", address=Folder(folder=str(tmp_path))))
    assert "\n" not in str(caught.value)
    with (
        RUNTIMES.registered("inner", inner_runtime()),
        pytest.raises(DeviceError, match=r"<locals>\.Inner' must be importable as module:attribute, but: "),
    ):
        describe(Device(name="mine", runtime="inner"))


def test_a_format_that_cannot_be_written_is_a_sentence() -> None:
    def convert(model: bytes) -> bytes:
        raise RuntimeError("Conv is not\nknown")

    class Other(Zipped):
        name, format = "other", "other"

    with RUNTIMES.registered("other", Other):
        device = Device(name="bench", runtime="other", address=Fake())
        with pytest.raises(ExportError, match="there is no file format 'other'; known: onnx, zipped"):
            probe(device)
        words = "from ONNX to the format 'other' of its runtime, but: Conv is not known; name a device"
        with FORMATS.registered("other", Format(suffix=".other", convert=convert)), pytest.raises(ExportError, match=words):
            probe(device)
