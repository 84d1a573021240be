"""What is released: one wheel from one source archive, complete, and at work where there is no repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata

from tests.photos import write_photos
from tests.sources import PACKAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BESIDE = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml")
"""What the source archive has besides the packages."""
ROAD = (
    "train small-budget --set data=photos --set space=ofa-mbv3-tiny --set batch_size=16 --set progressive_shrinking.epochs=6 -o run",
    "table build --space ofa-mbv3-tiny --classes 3 --device fake -o fake.parquet",
    "table calibrate fake.parquet --space ofa-mbv3-tiny --classes 3 --device fake --nets 9",
    "predictor fit run --nets 12 --rounds 0 -o run.predictor",
    "search --predictor run.predictor --table fake.parquet --trials 16 --evaluations 500 -o front.parquet",
    "query front.parquet --latency 1s",
    "specialize run --front front.parquet --latency 1s --epochs 1 -o network",
    "verify network --device fake --data photos",
    "report front.parquet -o report.html",
)
"""The road of the demo, as small as it can be."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that is built of it; built of a copy, so that nothing is left in the repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*BESIDE, "constraints.txt"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "tests", source / "tests", ignore=shutil.ignore_patterns("__pycache__"))  # which must stay behind
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], out)
    return out


@pytest.fixture(scope="module")
def ofa(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the wheel, in an environment that has what it depends on and not the repository."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], built)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Only folders are added: what lies in them to be read at the start, such as the repository's own path, is not.
    (packages / "installed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")), encoding="utf-8")
    for package in PACKAGES:
        where = run([python, "-c", f"import {package}; print({package}.__file__)"], built)
        assert Path(where).is_relative_to(packages)
    return folder / "bin" / "ofa"


def run(command: list[str | Path], folder: Path) -> str:
    """What a command prints in a folder, without the repository on its path."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=clean)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout


def files_of_packages() -> set[str]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_has_the_files_of_the_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files_of_packages()


def test_the_source_archive_has_what_builds_the_wheel(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {member.name.partition("/")[2] for member in opened if member.isfile()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - made == files_of_packages() | set(BESIDE)


def test_the_wheel_says_what_it_is(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"ofa_nas-{PROJECT['version']}-py3-none-any.whl"
    opened = ZipFile(wheel)
    (info,) = {name.partition("/")[0] for name in opened.namelist() if ".dist-info/" in name}
    said = opened.read(f"{info}/METADATA")
    metadata = Metadata.from_email(said, validate=True)  # raises for what a package index would refuse
    assert BytesParser(policy=compat32).parsebytes(said)["Description-Content-Type"].startswith("text/markdown")
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert metadata.license_expression == PROJECT["license"]
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= set(opened.namelist())
    assert set(metadata.provides_extra or ()) == set(PROJECT["optional-dependencies"])


def test_the_wheel_works_without_the_repository(ofa: Path, tmp_path: Path) -> None:
    assert run([ofa, "--version"], tmp_path) == f"ofa {PROJECT['version']}\n"
    assert {"digits", "small-budget"} <= set(json.loads(run([ofa, "recipes", "--json"], tmp_path))["recipes"])
    assert "local-cpu" in run([ofa, "devices", "list"], tmp_path)
    write_photos(tmp_path / "photos", 32, dirt=False)
    for words in ROAD:
        run([ofa, *words.split()], tmp_path)
    assert (tmp_path / "network" / "README.md").read_text(encoding="utf-8").startswith("#")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_demo_runs_from_the_wheel(ofa: Path, tmp_path: Path) -> None:
    assert "Best networks for three budgets" in run([ofa, "demo", "-o", "demo"], tmp_path)
