"""The README runs once for all tests of its pages."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.devices.conftest import SshServer, ssh_server  # noqa: F401
from tests.documented.fences import page_of, read_fences
from tests.documented.prepared import README, Prepared
from tests.documented.running import Page


@pytest.fixture(scope="session")
def read_readme(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Page]:
    """Runs the README when it is first called, in a folder that no test changes afterwards."""

    @cache
    def read() -> Page:
        page = Page(tmp_path_factory.mktemp("readme"))
        Prepared(tmp_path_factory.mktemp("files")).bring(README, page.folder)
        page.read(read_fences("README.md", page_of("README.md")))
        return page

    return read


@pytest.fixture(scope="session")
def prepared(read_readme: Callable[[], Page], tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """What pages begin with."""
    return Prepared(tmp_path_factory.mktemp("prepared"), read_readme().folder)


@pytest.fixture
def raspberry(ssh_server: SshServer, tmp_path: Path) -> Page:  # noqa: F811
    """A folder from which ``raspberrypi.local`` is this machine, by an OpenSSH server; its user and its Python are the test's."""
    config = ssh_server.config.read_text(encoding="utf-8")
    there = f"Host raspberrypi.local\n  HostName 127.0.0.1\n  Port {ssh_server.port}\n  IdentityFile {ssh_server.key}\n"
    ssh_server.config.write_text(there + config, encoding="utf-8")
    python = f'python = "{sys.executable}"\nfolder = "{ssh_server.folder}/remote"'
    texts = {
        'user = "pi"': f'user = "{getpass.getuser()}"\n{python}',
        '(bundle, "mine/pi.toml"': f'(bundle, __import__("devices").get_device("mine/pi.toml", ssh_config="{ssh_server.config}")',
    }
    (tmp_path / "page").mkdir()
    return Page(tmp_path / "page", {"OFA_SSH_CONFIG": str(ssh_server.config)}, texts)
