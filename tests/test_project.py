"""The project's own promises: names that are public, their docstrings, the pinned versions."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ofa
from tests.sources import PACKAGES, ROOT, Source, sources

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INSTALLED_EXTRAS = ("dev", "docs", "grpc", "postgresql", "tensorrt-rtx")
IMPORT_NAMES = {
    "pillow": "PIL",
    "protobuf": "google",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
    "tensorrt-rtx-cu13-libs": "tensorrt_rtx_libs",
}


def exported(source: Source) -> list[str] | None:
    """The value of ``__all__``."""
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def declared_names(source: Source) -> set[str]:
    """The functions, classes, constants and imported names of a module."""
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def classes() -> dict[str, list[ast.ClassDef]]:
    """Every class of the project by its name, which several may have."""
    found: dict[str, list[ast.ClassDef]] = {}
    for node in (node for source in sources() for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)):
        found.setdefault(node.name, []).append(node)
    return found


def explains(method: str, bases: Iterable[ast.expr], known: dict[str, list[ast.ClassDef]]) -> bool:
    """Whether a base class, or a base of it, has a docstring for a method."""
    names = [ast.unparse(base.value if isinstance(base, ast.Subscript) else base).rpartition(".")[2] for base in bases]
    if method == "forward" and "Module" in names:
        return True
    declared = [node for name in names for node in known.get(name, ())]
    own = [node for base in declared for node in base.body if isinstance(node, ast.FunctionDef) and node.name == method]
    return any(ast.get_docstring(node) for node in own) or any(explains(method, base.bases, known) for base in declared)


def public_modules() -> list[Source]:
    """The modules that others import: all but private ones and packages that hold nothing."""
    return [s for s in sources() if s.public and not (s.path.name == "__init__.py" and len(s.tree.body) <= 1)]


def requirements(*extras: str) -> Iterator[Requirement]:
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return map(Requirement, [*lines, *PYPROJECT["build-system"]["requires"]])


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("source", public_modules(), ids=lambda source: source.module)
def test_public_names_are_listed(source: Source) -> None:
    names = exported(source)
    assert names is not None, f"{source.module} must say in __all__ what is public"
    assert len(names) == len(set(names))  # ruff holds their order
    assert set(names) <= declared_names(source)


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.module)
def test_what_is_public_is_explained(source: Source) -> None:
    assert ast.get_docstring(source.tree), f"{source.module} needs a docstring"
    names = exported(source) or []
    definitions = [node for node in source.tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names]
    assert [node.name for node in definitions if not ast.get_docstring(node)] == []


def test_public_methods_are_explained_here_or_in_their_base() -> None:
    known = classes()
    exports = [node for s in sources() for node in s.tree.body if isinstance(node, ast.ClassDef) and node.name in (exported(s) or [])]
    unexplained = [
        f"{owner.name}.{method.name}"
        for owner in exports
        for method in owner.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
        if not ast.get_docstring(method) and not _is_setter(method) and not explains(method.name, owner.bases, known)
    ]
    assert unexplained == []


def _is_setter(method: ast.FunctionDef) -> bool:
    return any(isinstance(decorator, ast.Attribute) and decorator.attr == "setter" for decorator in method.decorator_list)


def test_what_ofa_gathers_is_what_the_rooms_export() -> None:
    assert all(getattr(ofa, name).__module__.startswith("ofa.") for name in ofa.__all__ if name != "__version__")
    assert ofa.__version__ in (PYPROJECT["project"]["version"], "0+uninstalled")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ofa.nonsense  # noqa: B018


def test_constraints_pin_every_dependency_to_a_version_that_fits() -> None:
    pins = constraints()
    needed = [r for r in requirements(*INSTALLED_EXTRAS) if r.name != "triton"]  # torch's builds for GPUs each pin one of their own
    unpinned = [r.name for r in needed if canonicalize_name(r.name) not in pins]
    assert unpinned == []
    unfitting = [str(r) for r in needed if not r.specifier.contains(pins[canonicalize_name(r.name)])]
    assert unfitting == []


def test_constraints_are_exact_and_of_no_local_build() -> None:
    assert all(Version(version).local is None for version in constraints().values())


def test_every_foreign_import_is_a_declared_dependency() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    declared = {IMPORT_NAMES.get(canonicalize_name(r.name), r.name) for r in requirements(*extras)}
    foreign = {(name.partition(".")[0], source.module) for source in sources() for _, name in source.imports()}
    allowed = declared | set(PACKAGES) | set(sys.stdlib_module_names)
    assert sorted((name, module) for name, module in foreign if name not in allowed) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_ship_their_types(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
