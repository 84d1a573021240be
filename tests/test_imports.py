"""The direction of imports, and what the library must never do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.sources import PACKAGES, Source, source_of, sources

LAYERS = (
    ("ofa.errors", "ofa.lazy", "ofa.version", "ofa.progress", "ofa.opsets", "ofa.arrays", "ofa.latency", "ofa.reasons", "ofa.telemetry"),
    ("ofa.storage_url",),
    ("ofa.exchange", "ofa.leftovers", "ofa.seal"),
    ("ofa.files",),
    ("ofa.reading",),
    ("ofa.outputs", "ofa.figures"),
    ("ofa.registry", "ofa.resolution", "ofa.schema", "ofa.locking", "ofa.lines"),
    ("ofa.parquet", "ofa.journal"),
    ("ofa.arch", "ofa.choices"),
    ("ofa.encoding",),
    ("ofa.space_json",),
    ("ofa.space",),
    ("ofa.kernels",),
    ("ofa.depthwise", "ofa.leaves", "ofa.folded", "ofa.modes", "ofa.randomness", "ofa.synchronized", "ofa.own_modules"),
    ("ofa.conv_norm_act",),
    ("ofa.blocks",),
    ("ofa.groups",),
    ("ofa.importance",),
    ("ofa.families",),
    ("ofa.weights",),
    ("ofa.cost",),
    ("ofa.inventory",),
    ("ofa.lookup",),
    ("ofa.costs",),
    ("ofa.row_costs",),
    ("ofa.sharing",),
    ("ofa.pieces",),
    ("ofa.supernet",),
    ("ofa.adopting",),
    ("ofa.data",),
    ("ofa.tasks",),
    ("ofa.calibrate",),
    ("ofa.training",),
    ("ofa.exporting",),
    ("ofa.teachers",),
    ("ofa.running",),
    ("ofa.interop",),
    ("devices",),
    ("latency_tables",),
    ("search",),
    ("ofa.api",),
    ("ofa",),  # the package itself: the names that it gathers
    ("ofa.cli",),
    ("ofa.__main__",),
)
"""A module imports only from its own layer or from one above it in this list."""

DEVICES_MAY_IMPORT = (
    *("devices", "ofa.errors", "ofa.lazy", "ofa.progress", "ofa.files", "ofa.opsets", "ofa.reading", "ofa.reasons", "ofa.registry"),
    *("ofa.schema", "ofa.telemetry", "ofa.exporting.formats"),
)
ONLY_PACKAGE_WITH_OPTUNA = "search.study"
RUNS_ALONE = "devices.agent"
"""A process of its own on the device: it speaks through its stdin and stdout."""
WITHOUT_TORCH = (
    *("ofa.errors", "ofa.progress", "ofa.exchange", "ofa.leftovers", "ofa.seal", "ofa.files", "ofa.outputs", "ofa.opsets", "ofa.registry"),
    *("ofa.reading", "ofa.resolution", "ofa.arch", "ofa.choices", "ofa.encoding", "ofa.space", "ofa.space_json"),
)

FORBIDDEN = {
    "print": "only the command line prints",
    "sys.argv": "only the command line reads its arguments",
    "sys.stdout": "only the command line prints",
    "sys.stderr": "only the command line prints",
    "warnings.filterwarnings": "warnings belong to the user",
    "warnings.simplefilter": "warnings belong to the user",
    "torch.manual_seed": "randomness is an argument",
    "torch.random.manual_seed": "randomness is an argument",
    "torch.seed": "randomness is an argument",
    "torch.cuda.manual_seed": "randomness is an argument",
    "torch.cuda.manual_seed_all": "randomness is an argument",
    "numpy.random.seed": "randomness is an argument",
    "random.seed": "randomness is an argument",
    "os.chdir": "the working folder belongs to the user",
    "torch.hub": "nothing is downloaded",
    "urllib.request": "nothing is downloaded",
    "requests": "nothing is downloaded",
    "httpx": "nothing is downloaded",
    "http.client": "nothing is downloaded",
}
NEVER = {
    **dict.fromkeys(("eval", "exec", "__import__", "runpy", "os.system", "os.popen"), "nothing that a file says is executed"),
    **dict.fromkeys(("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal", "shelve", "joblib", "dill"), "nothing is unpickled"),
    **dict.fromkeys(("cloudpickle", "pandas.read_pickle", "numpy.load", "torch.jit.load"), "nothing is unpickled"),
    **dict.fromkeys(("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader"), "YAML makes no objects"),
    **dict.fromkeys(("tarfile", "zipfile.ZipFile.extractall", "shutil.unpack_archive"), "archives name files anywhere"),
    "torch.ops.load_library": "no library is loaded because a file says so",
}
"""Also not by the command line and by the agent."""


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def layer(module: str) -> int:
    fitting = [(len(package), index) for index, packages in enumerate(LAYERS) for package in packages if inside(module, package)]
    return max(fitting)[1]


def imported_modules(source: Source) -> Iterator[tuple[int, str]]:
    """The modules of the four packages that a source imports: `from ofa import arch` is a module, `from ofa import Arch` is not."""
    known = {other.module for other in sources()}
    for line, name in source.imports():
        if any(inside(name, package) for package in PACKAGES):
            yield line, name if name in known else name.rpartition(".")[0] or name


def wrong_imports(source: Source) -> list[str]:
    wrong = []
    for line, name in imported_modules(source):
        upwards = layer(name) <= layer(source.module)
        leaves_room = inside(source.module, "devices") and not any(inside(name, allowed) for allowed in DEVICES_MAY_IMPORT)
        if not upwards or leaves_room:
            wrong.append(f"{source.path}:{line} {source.module} imports {name}")
    return wrong


def circle_in(modules: Iterable[Source], *, rooms: bool = False) -> list[str]:
    """Modules, or rooms of a package such as ``search.front``, that import one another in a circle; [] if none do."""
    imports: dict[str, set[str]] = {}
    for source in modules:
        importer = room(source.module) if rooms else source.module
        names = {room(name) if rooms else name for _, name in imported_modules(source)}
        imports.setdefault(importer, set()).update(names - {importer})
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def forbidden_names(source: Source) -> list[str]:
    library = layer(source.module) < layer("ofa.cli") and source.module != RUNS_ALONE
    rules = {**NEVER, **(FORBIDDEN if library else {})}
    used = {(line, name) for line, name in [*source.imports(), *source.dotted_names()]}
    return sorted(f"{source.path}:{line} {rule} ({why})" for line, name in used for rule, why in rules.items() if inside(name, rule))


def test_every_room_is_found() -> None:
    assert {source.module.partition(".")[0] for source in sources()} == set(PACKAGES)


def test_every_module_has_a_layer_of_its_own() -> None:
    strays = [source.module for source in sources() if LAYERS[layer(source.module)] == ("ofa",) and source.module != "ofa"]
    assert strays == [], "enter each new module of ofa in LAYERS, where its imports point"


def test_imports_point_only_up_the_list() -> None:
    assert [wrong for source in sources() for wrong in wrong_imports(source)] == []


@pytest.mark.parametrize("rooms", [False, True])
def test_no_modules_and_no_rooms_import_one_another(rooms: bool) -> None:
    """So there is an order within each package as well, in which imports point only up."""
    assert circle_in(sources(), rooms=rooms) == []


def test_only_one_package_knows_optuna() -> None:
    knowing = [source.module for source in sources() if any(inside(name, "optuna") for _, name in source.imports())]
    assert [module for module in knowing if not inside(module, ONLY_PACKAGE_WITH_OPTUNA)] == []


def test_archs_and_spaces_need_no_torch() -> None:
    assert [
        source.module
        for source in sources()
        if source.module in WITHOUT_TORCH and any(inside(name, "torch") for _, name in source.imports())
    ] == []


def test_the_library_leaves_the_process_to_its_user() -> None:
    assert [use for source in sources() for use in forbidden_names(source)] == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("ofa.arch", "from ofa.space import Space"),
        ("ofa.arch", "from ofa import supernet"),
        ("ofa.arch", "from .space import Space"),
        ("ofa.space", "def late():\n    import ofa.blocks"),
        ("ofa.space", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import search.front.front"),
        ("ofa.supernet", "from ofa import Arch"),
        ("devices.timing", "from ofa.arch import Arch"),
        ("search.front.front", "from ofa.cli.console import emit"),
    ],
)
def test_a_wrong_import_is_seen(module: str, code: str, tmp_path: Path) -> None:
    assert wrong_imports(source_of(code, module, tmp_path)) != []


@pytest.mark.parametrize(
    ("code", "rooms", "circle"),
    [
        ({"search.a": "import search.b", "search.b": "import search.c", "search.c": "import search.a"}, False, True),
        (
            {"search.a": "if TYPE_CHECKING:\n    import search.b", "search.b": "import search.a"},
            False,
            True,
        ),
        ({"search.a.one": "import search.b.one", "search.b.one": "", "search.b.two": "import search.a.one"}, False, False),
        ({"search.a.one": "import search.b.one", "search.b.one": "", "search.b.two": "import search.a.one"}, True, True),
    ],
)
def test_a_circle_is_seen(code: dict[str, str], rooms: bool, circle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for module, text in code.items():
        (tmp_path / module).mkdir()
        made.append(source_of(text, module, tmp_path / module))
    monkeypatch.setattr("tests.test_imports.sources", lambda: tuple(made))
    assert bool(circle_in(made, rooms=rooms)) == circle


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("ofa.space", "from ofa.arch import Arch"),
        ("devices.timing", "from ofa.errors import OfaError"),
        ("search.front.front", "from ofa.arch import Arch"),
    ],
)
def test_a_right_import_passes(module: str, code: str, tmp_path: Path) -> None:
    assert wrong_imports(source_of(code, module, tmp_path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "import sys\nsys.argv[1]",
        "from sys import argv",
        "import numpy as np\nnp.random.seed(0)",
        "from warnings import simplefilter as quiet\nquiet('ignore')",
        "import torch\ndef f():\n    torch.manual_seed(0)",
        "import urllib.request",
        "from torch import hub",
        "import numpy as np\nnp.load('a.npy')",
        "from pickle import loads",
        "eval('1')",
    ],
)
def test_a_forbidden_use_is_seen(code: str, tmp_path: Path) -> None:
    assert forbidden_names(source_of(code, "ofa.arch", tmp_path)) != []


def test_generators_may_be_seeded(tmp_path: Path) -> None:
    assert forbidden_names(source_of("import torch\ntorch.Generator().manual_seed(0)", "ofa.arch", tmp_path)) == []
