"""The source files of the four packages as syntax trees, for the tests that hold the house rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ofa", "search", "latency_tables", "devices")


@dataclass(frozen=True)
class Source:
    """A module: its dotted name, its file and its syntax tree."""

    module: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    @property
    def package(self) -> str:
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") for part in self.module.split("."))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of everything that is imported, wherever the statement stands; relative names are resolved."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)

    def aliases(self) -> dict[str, str]:
        """What each imported name stands for: ``np`` is ``numpy``."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names |= {
                    alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else alias.name.partition(".")[0]
                    for alias in node.names
                }
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return names

    def dotted_names(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of every name and attribute chain: ``np.random.seed`` gives ``numpy.random.seed``."""
        aliases = self.aliases()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name | ast.Attribute) and (name := _dotted(node)):
                first, dot, rest = name.partition(".")
                yield node.lineno, aliases.get(first, first) + dot + rest


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None


@lru_cache(maxsize=1)
def sources() -> tuple[Source, ...]:
    """Every module of the four packages."""
    found = []
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Source(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return tuple(found)


def source_of(code: str, module: str, folder: Path) -> Source:
    """A source that exists only for a test of these very rules."""
    path = folder / "sample.py"
    path.write_text(code, encoding="utf-8")
    return Source(module, path)
