"""The examples of docs/extending.md as a user has them: files in a folder of one's own, installed, and none of them in the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.photos import write_photos
from tests.sources import ROOT

__all__ = ["EXAMPLES", "Workplace", "make_workplace"]

EXAMPLES = ROOT / "docs" / "examples"


@dataclass(frozen=True)
class Workplace:
    """A folder with the examples, their package installed, photos, and another environment, which is this one by another path."""

    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What finds the installed package and this project's source tree."""
        return {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}

    def python(self, *arguments: str, given: str = "") -> str:
        """What an interpreter there says, all of it, if it ends well."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout


def make_workplace(folder: Path) -> Workplace:
    """Copy the examples, and write what ``pip install -e .`` writes of their package."""
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    write_photos(folder / "photos", each=16, dirt=False)
    (folder / "older").symlink_to(sys.prefix)
    return Workplace(folder)
