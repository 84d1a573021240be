"""Makes the folder that run.py needs on a machine with a GPU that nothing can be downloaded to.

    python benchmarks/gpu/pack.py --out KIT --python 3.12 --data train.parquet test.parquet --mit

It holds the small packages that images with PyTorch for CUDA usually lack, in the versions of constraints.txt and each in a folder of its
own, so that run.py can leave out those that the machine has; CIFAR-10; and MIT's package for the comparison. Nothing is installed. What
does not fit into one folder goes into KIT-2, KIT-3 ..., to be carried one after the other, each with the source tree.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
LIMIT_MIB = 60
PACKED = (
    *("optuna", "alembic", "colorlog", "mako", "markupsafe", "sqlalchemy", "typing_extensions"),
    *("typer", "annotated-doc", "shellingham", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("hypothesis", "sortedcontainers", "pytest", "iniconfig", "pluggy", "packaging"),
    *("filelock", "jinja2", "safetensors", "threadpoolctl", "tqdm", "pyyaml"),
    *("kornia", "kornia_rs", "pydantic", "pydantic_core", "annotated-types", "typing-inspection"),
    *("onnx", "ml_dtypes", "protobuf"),
)
MIT = "ofa==0.1.0.post202307202001"
GLIBC_MINORS = (5, 12, 17, 24, 27, 28, 31, 34)
"""pip takes a wheel only for a platform that is named exactly."""
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS), *(f"manylinux{name}_x86_64" for name in (2014, 2010, 1)))
NOT_CARRIED = ("__pycache__", "tests", "bin")
"""Folders of packages that nothing imports."""


@dataclass(frozen=True)
class Unit:
    """What must stay together.

    Attributes:
        place: where it belongs within a kit, such as ``packages/optuna``.
        folder: where it lies now.
        size_bytes: of its files.
    """

    place: str
    folder: Path
    size_bytes: int


def main() -> None:
    arguments = parse()
    names = [name for name in (*PACKED, *arguments.also) if canonicalize_name(name) not in set(map(canonicalize_name, arguments.without))]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent, prefix=".pack-") as staging:
        packages = [fetch(name, Path(staging) / "packages" / name, arguments.python) for name in with_versions(names)]
        write_manifests(packages)
        folders = {}
        if arguments.data:
            folders["data"] = copy_data(arguments.data, Path(staging) / "data")
        if arguments.mit:
            folders["mit"] = fetch_mit(Path(staging) / "mit")
        folders |= {f"packages/{folder.name}": folder for folder in packages}
        units = [Unit(place, folder, size_of(folder)) for place, folder in folders.items()]
        beside_bytes = size_of(ROOT)
        try:
            kits = distribute(units, int(arguments.limit_mib * MIB) - beside_bytes)
        except ValueError as error:
            raise SystemExit(f"pack.py: {error}") from error
        missing = not_packed(packages)
        lay_out(kits, arguments.out)
    for number, kit in enumerate(kits):
        print(f"{kit_path(arguments.out, number)}: {sum(unit.size_bytes for unit in kit) / MIB:.1f} MiB")
        for unit in sorted(kit, key=lambda unit: -unit.size_bytes):
            print(f"  {unit.place:<30}{unit.size_bytes / MIB:8.1f} MiB")
    print(f"the source tree, beside each: {beside_bytes / MIB:.1f} MiB")
    print(f"not packed, and needed by what is: {', '.join(missing) or 'nothing'}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="KIT", help="folder to make; it must not be there yet")
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="packages that the machine is known to have")
    parser.add_argument("--also", nargs="+", default=[], metavar="NAME", help="further packages of constraints.txt")
    parser.add_argument("--data", type=Path, nargs=2, metavar=("TRAIN", "TEST"), help="CIFAR-10 as Parquet files")
    parser.add_argument("--mit", action="store_true", help=f"MIT's package, {MIT}")
    parser.add_argument("--limit-mib", type=float, default=LIMIT_MIB, help="of a folder together with the source tree")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"a kit is made anew, but '{arguments.out}' is there already; remove it or name another folder")
    return arguments


# -- fetching -------------------------------------------------------------------------------------------------------------


def with_versions(names: Iterable[str]) -> dict[str, str]:
    """The version of each package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}
    unknown = [name for name in names if canonicalize_name(name) not in pins]
    if unknown:
        raise SystemExit(f"pack.py: a package must have its version in constraints.txt, but {', '.join(unknown)} has none; leave it out")
    return {name: pins[canonicalize_name(name)] for name in names}


def fetch(name: str, folder: Path, python: str) -> Path:
    """Unpack a package's wheel for another Python into a folder."""
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in PLATFORMS:
        target += ["--platform", platform]
    pip(f"{name}=={with_versions([name])[name]}", folder, target)
    return folder


def fetch_mit(folder: Path) -> Path:
    pip(MIT, folder, [])
    return folder


def pip(requirement: str, folder: Path, options: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-compile"]
    done = subprocess.run([*command, *options, "--target", str(folder), requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise SystemExit(
            f"pack.py: pip must be able to fetch {requirement}, but: {reason}; check the network, or leave it out with --without"
        )
    remove_dead_weight(folder)


def remove_dead_weight(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and path.name in NOT_CARRIED:
            shutil.rmtree(path)


def copy_data(files: Sequence[Path], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for purpose, path in zip(("train", "test"), files, strict=True):
        if not path.is_file():
            raise SystemExit(f"pack.py: CIFAR-10 must be two Parquet files, but '{path}' is no file; correct the path")
        shutil.copyfile(path, folder / f"{purpose}.parquet")
    return folder


# -- what run.py has to know of a package ---------------------------------------------------------------------------------


def write_manifests(folders: Sequence[Path]) -> None:
    """Beside each package: its name, its version, and the least version that the project or another packed package asks for."""
    packed = {canonicalize_name(found.name): (found, folder) for folder in folders for found in distributions(path=[str(folder)])}
    least = least_versions([*project_requirements(), *(each for found, _ in packed.values() for each in requirements_of(found))])
    for name, (found, folder) in packed.items():
        manifest = {"name": found.name, "version": found.version, "least": least.get(name, "")}
        (folder / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")


def project_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in (*project["dependencies"], *extras["dev"], *extras["augment"])]


def requirements_of(found: Distribution) -> list[Requirement]:
    """What a package needs without its extras."""
    requirements = [Requirement(line) for line in found.requires or ()]
    return [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def least_versions(requirements: Iterable[Requirement]) -> dict[str, str]:
    """The highest lower bound on each package."""
    least: dict[str, str] = {}
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        for specifier in requirement.specifier:
            if specifier.operator in (">=", "~=", "=="):
                version = re.sub(r"\.\*$", "", specifier.version)
                least[name] = max(least.get(name, "0"), version, key=Version)
    return least


def not_packed(folders: Sequence[Path]) -> list[str]:
    """Packages that the packed ones need and the machine must have."""
    found = [each for folder in folders for each in distributions(path=[str(folder)])]
    names = {canonicalize_name(each.name) for each in found}
    return sorted({canonicalize_name(need.name) for each in found for need in requirements_of(each)} - names)


# -- sizes ----------------------------------------------------------------------------------------------------------------


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; hidden and cached ones are left out."""
    total = 0
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        total += size_of(path) if path.is_dir() and not path.is_symlink() else path.lstat().st_size
    return total


def distribute(units: Sequence[Unit], limit_bytes: int) -> list[list[Unit]]:
    """Kits of at most ``limit_bytes`` each; every unit goes into the first that has room, so those that matter most belong in front.

    Raises:
        ValueError: a unit is larger than a kit may be.
    """
    kits: list[list[Unit]] = []
    for unit in units:
        if unit.size_bytes > limit_bytes:
            raise ValueError(
                f"each part of a kit must fit beside the source tree into {limit_bytes / MIB:.1f} MiB, but {unit.place} has "
                f"{unit.size_bytes / MIB:.1f} MiB; leave it out or raise --limit-mib"
            )
        room = (kit for kit in kits if sum(each.size_bytes for each in kit) + unit.size_bytes <= limit_bytes)
        kit = next(room, None)
        if kit is None:
            kits.append([unit])
        else:
            kit.append(unit)
    return kits


def kit_path(out: Path, number: int) -> Path:
    return out if number == 0 else out.with_name(f"{out.name}-{number + 1}")


def lay_out(kits: Sequence[Sequence[Unit]], out: Path) -> None:
    """Move every unit to its place."""
    for number, kit in enumerate(kits):
        for unit in kit:
            place = kit_path(out, number) / unit.place
            place.parent.mkdir(parents=True, exist_ok=True)
            unit.folder.replace(place)


if __name__ == "__main__":
    main()
