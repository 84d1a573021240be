"""Names that this project, a user's own code and installed packages give to things."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.data import DATA, ImageData, count_items, data_names, load_data
from ofa.errors import DataError, OfaError, SpaceError
from ofa.families import SPACES, derive, get_space, load_arch, save_arch, space_names
from ofa.registry import Registry
from ofa.training.checkpoint import begin_run
from ofa.training.recipe import Phase, Recipe


@pytest.fixture
def registry() -> Registry[type]:
    return Registry("thing", group="ofa.test_things", error=DataError, entries={"list": list}, lazy={"path": "pathlib:Path"})


Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Installs a distribution with one module and its entry points."""
    before = set(sys.modules)

    def install(name: str, code: str, group: str = "ofa.test_things", **points: str) -> None:
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items()))
        monkeypatch.syspath_prepend(folder)

    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_entries_are_found_by_name(registry: Registry[type]) -> None:
    registry.register("dict", dict)
    assert registry.get("list") is list
    assert registry.get("path") is Path
    assert registry.get("dict") is dict
    assert registry.names() == ("path", "list", "dict")
    assert registry.own == ("list", "path")
    assert "dict" in registry
    assert "tuple" not in registry


def test_an_unknown_name_names_the_nearest(registry: Registry[type]) -> None:
    with pytest.raises(DataError, match="there is no thing 'lists'; did you mean 'list'"):
        registry.get("lists")


@pytest.mark.parametrize("name", ["list", "path", "mine", "theirs"])
def test_a_second_registration_of_a_name_is_refused(registry: Registry[type], package: Package, name: str) -> None:
    package("theirs", "THING = set", theirs="theirs:THING")
    registry.register("mine", dict)
    with pytest.raises(DataError, match=rf"a name of its own, but '{name}' is already registered; register .* under another name"):
        registry.register(name, tuple)


def test_what_cannot_be_an_entry_is_refused(registry: Registry[type]) -> None:
    with pytest.raises(DataError, match="a thing must be a class or function, but 'three' is 3"):
        registry.register("three", 3)  # type: ignore[arg-type]
    assert "three" not in registry


def test_an_entry_may_be_registered_for_a_while(registry: Registry[type]) -> None:
    with registry.registered("dict", dict):
        assert registry.get("dict") is dict
    assert "dict" not in registry


def test_packages_bring_entries_that_are_imported_when_they_are_asked_for(registry: Registry[type], package: Package) -> None:
    package("brings_one", "class Thing: pass", theirs="brings_one:Thing")
    assert registry.names() == ("path", "list", "theirs")
    assert "brings_one" not in sys.modules
    assert registry.get("theirs").__name__ == "Thing"
    assert "theirs" not in registry.own


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nowhere", "'theirs' of package broken must be importable, but broken:THING is not: No module named 'nowhere'; reinstall"),
        ("", "must be importable, but broken:THING is not: .*no attribute 'THING'"),
        ("raise RuntimeError", "must be importable, but broken:THING is not: it says no reason; reinstall"),
        ("THING = 3", "must be a class or function, but 'theirs' of package broken is 3"),
    ],
)
def test_a_broken_package_is_a_sentence_that_names_it(registry: Registry[type], package: Package, code: str, words: str) -> None:
    package("broken", code, theirs="broken:THING")
    assert "theirs" in registry
    with pytest.raises(DataError, match=words) as caught:
        registry.get("theirs")
    assert "\n" not in str(caught.value)


def test_two_packages_of_one_name_are_a_sentence_that_names_both(registry: Registry[type], package: Package) -> None:
    package("first", "THING = set", theirs="first:THING")
    package("second", "THING = set", theirs="second:THING")
    with pytest.raises(DataError, match=r"both from package (first|second) and from package (first|second); remove one of the two"):
        registry.names()


def test_a_package_with_a_name_of_ours_is_a_sentence(registry: Registry[type], package: Package) -> None:
    package("first", "THING = set", list="first:THING")
    with pytest.raises(DataError, match="'list' comes both from ofa and from package first"):
        registry.names()


# -- spaces and sets of images ------------------------------------------------------------------------------------------


def test_a_registered_space_is_known_by_name_and_carried_by_files(tmp_path: Path) -> None:
    space = derive(get_space("ofa-mbv3-tiny"), "registered", resolutions=[16])
    with SPACES.registered(space.name, space):
        assert get_space("registered") == space
        assert get_space("registered", 3).num_classes == 3
        assert space_names()[-1] == "registered"
        save_arch(space.largest(), space, tmp_path / "arch.json")
        begin_run(tmp_path / "run", Recipe(space="registered", data="digits", phases=(Phase(name="all", epochs=1, learning_rate=0.1),)))
    assert load_arch(tmp_path / "arch.json", space) == space.largest()
    assert '"resolutions"' in (tmp_path / "arch.json").read_text()
    assert (tmp_path / "run" / "space.json").is_file()
    with pytest.raises(SpaceError):
        get_space("registered")


def test_a_space_is_registered_under_its_own_name() -> None:
    space = derive(get_space("ofa-mbv3-tiny"), "registered", resolutions=[16])
    with SPACES.registered("other", space), pytest.raises(SpaceError, match="registered under its own name"):
        get_space("other")
    with pytest.raises(SpaceError, match="a space must be a Space, but 'class' is"):
        SPACES.register("class", type(space))  # type: ignore[arg-type]


def images(channels: int) -> ImageData:
    pixels = np.random.default_rng(0).integers(0, 256, (6, channels, 8, 8), dtype=np.uint8)
    return ImageData(images=torch.from_numpy(pixels), labels=torch.tensor([0, 1, 2] * 2), class_names=("a", "b", "c"))


def test_a_registered_set_of_images_is_read_by_name() -> None:
    with DATA.registered("mine", images):
        assert data_names() == ("digits", "mine")
        data = load_data("mine", channels=1)
        assert data.class_names == ("a", "b", "c")
        assert count_items("mine") == len(data) == 6


def test_a_registered_set_that_is_none_is_a_sentence() -> None:
    with DATA.registered("mine", lambda channels: 3), pytest.raises(OfaError, match="'mine' returns int; correct the function"):  # type: ignore[arg-type, return-value]
        load_data("mine")
