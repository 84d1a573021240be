"""Nothing is sent, and nothing is written outside of the output and the temporary folder: seen by Python, and by the system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from devices import Device, describe
from ofa.exporting.onnx import export, verify_outputs
from ofa.families import get_space
from ofa.supernet import Supernet
from search.plot import save_front_picture
from search.report import save_report
from tests.search.fronts import make_front

__all__ = ["Device", "describe", "work"]

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = ("/dev/", "/proc/")
"""What is written there is kept by no disk. Modules that Python compiles are its own business, and not looked at either."""
ELSEWHERE = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def work() -> None:
    """A little of what reaches for libraries that report, or keep something in the user's home."""
    space = get_space("ofa-mbv3-tiny")
    network = Supernet(space).extract(space.smallest(16)).eval()
    export(network, (1, 3, 16, 16), "network.onnx")
    verify_outputs(network, "network.onnx", (1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    save_front_picture(make_front(networks=20), "front.png")
    save_report(make_front(networks=20), "front.html")


class _Watch:
    """What Python does between ``on`` and ``off``; a hook cannot be removed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and (event in ELSEWHERE or event in ("os.mkdir", "os.rename") or (event == "open" and arguments[2] & WRITING)):
            self.seen.append((event, str(arguments[0])))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("home", "out", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def allowed(path: str, place: Path) -> bool:
    return f"{path}/".startswith((*NOWHERE, f"{place / 'out'}/", f"{place / 'tmp'}/")) or "__pycache__" in path


def environment(place: Path) -> dict[str, str]:
    own = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(ROOT)}
    return {**{key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_", "MPL"))}, **own}


def traced(place: Path, *command: str) -> list[str]:
    """What the system saw a command do: each connection to a network, and each file outside of its folders that it opened to write."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = place / "trace"
    watched = ("-e", "trace=openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,symlink,connect,sendto,sendmsg,socket")
    done = subprocess.run(
        ["strace", "-f", "-q", "-y", *watched, "-o", str(trace), *command],
        cwd=place / "out",
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr and not trace.stat().st_size:
        pytest.skip(f"this machine allows no strace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr[-2000:]
    return list(_forbidden(trace.read_text(errors="replace"), place))


def _forbidden(trace: str, place: Path) -> Iterator[str]:
    for line in trace.splitlines():
        call, _, result = line.rpartition(" = ")
        if re.search(r"AF_INET6?\b", call):
            yield call
        if result.startswith("-1") or not (
            re.search(r"O_WRONLY|O_RDWR|O_CREAT", call) or re.search(r" (mkdir|rename|link|symlink|creat)", call)
        ):
            continue
        base = re.search(r"AT_FDCWD<([^>]*)>", call)
        for text in re.findall(r'"((?:[^"\\\\]|\\\\.)*)"', call):
            path = os.path.normpath(os.path.join(base[1] if base else place / "out", text))
            if not allowed(path, place):
                yield call


def test_python_sees_no_connection_and_no_file_elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "out")
    monkeypatch.setattr("tempfile.tempdir", str(place / "tmp"))
    watch = _Watch()
    watch.on = True
    work()
    watch.on = False
    assert not [each for each in watch.seen if each[0] in ELSEWHERE]
    written = [str(place / "out" / path) for _, path in watch.seen]
    assert [path for path in written if not allowed(path, place)] == []
    assert any("front.png" in path for path in written), "what is written is seen"


@pytest.mark.slow
def test_the_system_sees_no_connection_and_no_file_elsewhere(place: Path) -> None:
    code = "from tests.faults.test_telemetry import *; work(); describe(Device(name='here', runtime='onnxruntime'))"
    assert traced(place, sys.executable, "-c", code) == []
    assert list((place / "home").iterdir()) == []
    assert list((place / "tmp").glob("ofa-*")) == []


@pytest.mark.slow
def test_the_demo_sends_nothing_and_writes_into_its_folder_alone(place: Path) -> None:
    assert traced(place, sys.executable, "-m", "ofa", "demo", "-o", "demo") == []
    assert list((place / "home").iterdir()) == []
    assert list((place / "tmp").glob("ofa-*")) == []


def test_the_trace_would_show_it(place: Path) -> None:
    told = f"""
1 openat(AT_FDCWD</x>, "/home/u/.cache/a", O_RDWR|O_CREAT, 0644) = 3</home/u/.cache/a>
1 openat(AT_FDCWD<{place}/out>, "../outside", O_WRONLY|O_CREAT, 0644) = 3
1 openat(AT_FDCWD<{place}/out>, "inside", O_WRONLY|O_CREAT, 0644) = 3
1 openat(AT_FDCWD</x>, "/etc/passwd", O_RDONLY) = 3
1 openat(AT_FDCWD</x>, "/home/u/b", O_WRONLY) = -1 ENOENT (No such file or directory)
1 connect(3<socket:[1]>, {{sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.1.1.1")}}, 16) = -1 EINPROGRESS
1 mkdir("/home/u/.config", 0777) = 0
"""
    assert len(list(_forbidden(told, place))) == 4
