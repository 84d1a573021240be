from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.cli.shadow import SIBLINGS, check_siblings
from ofa.errors import OfaError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fresh_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The siblings as if no test had imported them yet."""
    for name in [name for name in sys.modules if name.partition(".")[0] in SIBLINGS]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()


def test_the_packages_beside_ofa_pass() -> None:
    check_siblings()


@pytest.mark.usefixtures("fresh_siblings")
@pytest.mark.parametrize("name", SIBLINGS)
def test_a_module_on_the_import_path_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('the check must not run this file')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OfaError) as caught:
        check_siblings()
    assert str(tmp_path / f"{name}.py") in str(caught.value)
    assert "PYTHONPATH" in str(caught.value)


@pytest.mark.usefixtures("fresh_siblings")
def test_a_package_on_the_import_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OfaError, match="shadows"):
        check_siblings()


@pytest.mark.usefixtures("fresh_siblings")
def test_a_plain_folder_of_that_name_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "devices").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    check_siblings()


def test_python_m_in_a_folder_with_a_search_py(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text("raise RuntimeError('the check must not run this file')\n", encoding="utf-8")
    done = ofa_in(tmp_path, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, ""), "the working folder is not looked into, though python -m does"


def test_a_wheel_like_layout_passes_and_an_incomplete_one_does_not(tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site-packages", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for package in ("ofa", *SIBLINGS):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = ofa_in(elsewhere, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(site / "devices")
    done = ofa_in(elsewhere, PYTHONPATH=str(site))
    assert (done.returncode, done.stdout) == (1, "")
    assert "devices" in done.stderr


def ofa_in(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ofa", "--version"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment}, check=False)
