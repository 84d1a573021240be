"""Spaces of one's own: as JSON, out of a module, with other image channels, and never taken for another of their name."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latency_tables import Estimator, LatencyTable, build_table
from ofa.arch import Arch
from ofa.blocks import Classifier, ConvBlock, PlacedBlock, Shape
from ofa.errors import ArchError, FileError, RecipeError, SpaceError, TableError
from ofa.families import derive, get_space, load_arch, lower, named_space, save_arch, space_names
from ofa.space import Gene, Space, Stage
from ofa.supernet import Supernet
from ofa.training import Recipe, begin_run, load_run, save_run
from ofa.training.phase import Phase
from search.predictor.accuracy_predictor import AccuracyPredictor
from tests.ofa.strategies import TINY_SPACES

TINY = "ofa-mbv3-tiny"


@dataclass(frozen=True, kw_only=True)
class Pair(Space):
    """One convolution and a classifier; ``gap`` pixels of size and ``extra`` channels are wrong between them."""

    gap: int = 0
    extra: int = 0
    scale: float = 1.0

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        first = ConvBlock(in_channels=self.in_channels, out_channels=8, kernel=int(arch.stages[0][0]["kernel"]))
        last = Classifier(in_channels=8 + self.extra, out_channels=self.num_classes, pool=True)
        side = int(arch.resolution)
        shapes = (Shape(self.in_channels, side, side), Shape(8, side - self.gap, side - self.gap))
        return PlacedBlock("stages.0.0", first, shapes[0]), PlacedBlock("classifier", last, shapes[1])


def pair(**changes: Any) -> Pair:
    return Pair(**{"name": "pair", "resolutions": (8,), "stages": (Stage((1,), (Gene("kernel", (1, 3)),)),), "num_classes": 2, **changes})


PAIR = pair()
NOT_A_SPACE = 3


def fails() -> Space:
    raise RuntimeError("no such disk\nfor two lines")


def of_a_list() -> Space:
    return pair(network=[])


def of_an_object() -> Space:
    return pair(scale=object())


def ill_fitting() -> Space:
    return pair(gap=1)


def too_deep() -> Space:
    """Looks for a block that the smallest network does not have."""
    return pair(stages=())


def other_tiny(name: str = "mine") -> Space:
    """A space that differs from the tiny one in what no choice shows: the width of its head."""
    return replace(get_space(TINY), name=name, head_widths=(104, 128))  # type: ignore[call-arg]


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", space_names())
def test_a_space_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    space = derive(get_space(name, 7), "mine", in_channels=2)
    space.save(tmp_path / "mine.json")
    assert Space.load(tmp_path / "mine.json") == get_space(str(tmp_path / "mine.json")) == space


def test_a_class_of_ones_own_comes_back_where_it_is_known() -> None:
    space = pair(scale=2.0)
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_reading_a_space_needs_no_other_import(tmp_path: Path) -> None:
    get_space(TINY).save(tmp_path / "tiny.json")
    code = f"from ofa.space import Space; assert Space.load({str(tmp_path / 'tiny.json')!r}).name == '{TINY}'"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "has schema 99, but this version reads up to 1"),
        ({"kind": "front"}, 'must be a space with "kind": "space"'),
        ({"schema": None}, 'must be a space with "kind": "space"'),
        ({"family": "theirs:Space"}, "must be part of ofa or already imported, but .* of class theirs:Space"),
        ({"name": 3}, "name must be str, but is 3"),
        ({"colour": "red"}, "but has colour"),
        ({"resolutions": [32, "big"]}, "ofa-mbv3-tiny: a resolution must be whole pixels"),
        ({"resolutions": [32, 16]}, "must ascend"),
        ({"resolutions": [0]}, "must be whole pixels from 1 to 16384, .* but is 0"),
        ({"in_channels": 0}, "at least 1 channel"),
        ({"stages": [{}]}, "reading it raised KeyError"),
        ({"stages": 3}, "reading it raised TypeError"),
        ({"network": None}, "reading it raised AttributeError"),
        ({"fields": {"stem_width": 8}}, "reading it raised TypeError"),
        ({"fields": {"wide": 8}}, "reading it raised KeyError"),
        ({"fields": {"stem_width": 8, "head_widths": [1, 2, 3]}}, "head_widths must have 2 values, but has 3"),
        ({"fields": {"plans": [{"width": 8, "stride": 2, "activation": "sin"}]}}, "activation must be relu or relu6"),
    ],
)
def test_a_damaged_newer_or_foreign_file_is_refused_in_one_sentence(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_text(json.dumps({**get_space(TINY).to_json(), **change}))
    with pytest.raises(SpaceError, match=words) as caught:
        get_space(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"space": "ofa-mbv3-tiny"}'])
def test_what_is_no_space_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(text)
    with pytest.raises((SpaceError, FileError), match=r"space\.json"):
        get_space(str(tmp_path / "space.json"))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    value = get_space(TINY).to_json()
    del value["stages"]
    with pytest.raises(SpaceError, match="but lacks stages"):
        Space.from_json(value)


def test_a_field_that_no_file_can_carry_is_refused() -> None:
    with pytest.raises(SpaceError, match="numbers, text, tuples and dataclasses of these"):
        pair(scale=object()).to_json()


def test_equal_spaces_have_equal_hashes_in_every_process() -> None:
    hash(PAIR)
    assert "_hash" not in PAIR.__getstate__()
    assert hash(pickle.loads(pickle.dumps(PAIR))) == hash(pair())


# -- naming a space ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["PAIR", "pair"])
def test_a_module_has_a_space_or_makes_one(attribute: str) -> None:
    assert get_space(f"{__name__}:{attribute}") == PAIR
    assert get_space(f"{__name__}:{attribute}", 5) == pair(num_classes=5)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("NOT_A_SPACE", "but is int"),
        ("Pair", "but is type"),
        ("absent", "raised AttributeError"),
        ("fails", "raised RuntimeError: no such disk; check both"),
        ("other_tiny.__name__", "but is str"),
        ("of_a_list", "must be tuples"),
        ("of_an_object", "so that files can carry them"),
        ("ill_fitting", "blocks with matching shapes"),
        ("too_deep", r"its class raised IndexError: .*; correct Pair\.lower"),
    ],
)
def test_what_a_module_has_else_is_refused(attribute: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        get_space(f"{__name__}:{attribute}")


def test_names_of_ofa_are_not_for_other_networks(tmp_path: Path) -> None:
    other_tiny(TINY).save(tmp_path / "tiny.json")
    with pytest.raises(SpaceError, match="is called ofa-mbv3-tiny and has other networks"):
        get_space(str(tmp_path / "tiny.json"))
    with pytest.raises(SpaceError, match="must have another name"):
        derive(get_space(TINY), TINY, resolutions=(20,))


def test_names_in_files_are_never_imported() -> None:
    with pytest.raises(SpaceError, match="must be the name of a space that comes with ofa"):
        named_space(f"{__name__}:PAIR")


# -- what is built ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_SPACES)
@pytest.mark.parametrize("channels", [1, 4])
def test_networks_read_images_of_any_channels(name: str, channels: int) -> None:
    space = derive(get_space(name), "mine", in_channels=channels)
    supernet = Supernet(space).eval()
    arch = space.sample(np.random.default_rng(0))
    x_BCHW = torch.randn(2, channels, arch.resolution, arch.resolution)
    assert torch.equal(supernet.subnet(arch)(x_BCHW), supernet.extract(arch)(x_BCHW))
    assert lower(space, arch)[0].block.in_channels == channels


@pytest.mark.parametrize(
    ("change", "words"),
    [({"gap": 1}, "blocks with matching shapes, but stages.0.0 gives 8 channels of 8 px"), ({"extra": 1}, "classifier takes 9 channels")],
)
def test_blocks_that_do_not_fit_are_told(change: dict[str, int], words: str) -> None:
    space = pair(**change)
    with pytest.raises(SpaceError, match=words):
        lower(space, space.largest())


def test_a_space_that_does_not_say_what_is_built_is_told() -> None:
    space = Space(name="bare", resolutions=(8,), stages=())
    with pytest.raises(SpaceError, match="define lower"):
        lower(space, space.largest())


def test_choices_are_narrowed_and_other_sizes_are_possible() -> None:
    space = derive(get_space("ofa-resnet50"), "mine", resolutions=(97, 96), keep={"depth": (3, 4), "expand": (0.25,)})
    assert space.resolutions == (96, 97)
    assert [stage.depths for stage in space.stages] == [(3, 4), (3, 4), (4,), (3, 4)]
    with pytest.raises(SpaceError, match=r"depth must keep some of \[2, 3, 4, 5, 6\]"):
        derive(get_space("ofa-resnet50"), "mine", keep={"depth": (9,)})
    with pytest.raises(SpaceError, match="kernel must keep some of"):
        derive(get_space(TINY), "mine", keep={"kernel": (4,)})


# -- what is made for one space is not used for another of its name ---------------------------------------------------


def test_a_part_is_of_its_whole_and_not_the_other_way_round() -> None:
    whole = get_space(TINY)
    part = whole.restrict(resolution=[16], kernel=[3])
    assert part.is_part_of(whole)
    assert not whole.is_part_of(part)
    assert not other_tiny(TINY).is_part_of(whole)
    assert not get_space(TINY, 3).is_part_of(whole)
    assert get_space(TINY, 3).is_part_of(whole, any_classes=True)


def test_a_table_of_another_space_of_the_name_is_refused(fake_table: Callable[[Space], LatencyTable]) -> None:
    table = fake_table(pair())
    assert Estimator(pair(num_classes=3), table).space.num_classes == 3
    with pytest.raises(TableError, match="of another space that is called pair too"):
        Estimator(pair(scale=2.0), table)


@pytest.fixture
def fake_table() -> Callable[[Space], LatencyTable]:
    from devices import get_device

    return lambda space: build_table(space, get_device("fake"), rng=np.random.default_rng(0))


def test_a_predictor_of_another_space_of_the_name_is_refused(tmp_path: Path) -> None:
    space, rng = other_tiny(), np.random.default_rng(0)
    archs = list(dict.fromkeys(space.sample(rng) for _ in range(12)))
    fitted = AccuracyPredictor.fit(space, archs, rng.random(len(archs)), rng)
    fitted.save(tmp_path / "predictor")
    loaded = AccuracyPredictor.load(tmp_path / "predictor", space)
    assert loaded.whole == space
    assert np.array_equal(loaded(archs), fitted(archs))
    with pytest.raises(SpaceError, match="another that is called mine too"):
        AccuracyPredictor.load(tmp_path / "predictor", replace(get_space(TINY), name="mine"))


def test_an_arch_of_another_space_of_the_name_is_refused(tmp_path: Path) -> None:
    space = other_tiny()
    save_arch(space.largest(), space, tmp_path / "arch.json")
    assert load_arch(tmp_path / "arch.json", space) == Arch.load(tmp_path / "arch.json") == space.largest()
    with pytest.raises(ArchError, match="of another space with the same name, mine"):
        load_arch(tmp_path / "arch.json", replace(get_space(TINY), name="mine"))


# -- runs -------------------------------------------------------------------------------------------------------------


def recipe_of(space: str) -> Recipe:
    return Recipe(space=space, data="digits", phases=(Phase(name="all", epochs=1, learning_rate=0.1),))


def test_a_run_carries_its_space_and_imports_nothing(tmp_path: Path) -> None:
    """Also when somebody writes ``module:attribute`` into its recipe."""
    space = other_tiny()
    space.save(tmp_path / "mine.json")
    recipe = recipe_of(str(tmp_path / "mine.json"))
    save_run(tmp_path / "run", recipe.build_supernet(10), recipe, ())
    (tmp_path / "mine.json").unlink()
    config = tmp_path / "run" / "config.toml"
    _seal, _, text = config.read_text().partition("\n")
    config.write_text(text.replace('space = "space.json"', 'space = "antigravity:SPACE"'))
    assert load_run(tmp_path / "run").supernet.space == load_run(tmp_path / "run").recipe.get_space(10) == space
    (tmp_path / "run" / "space.json").unlink()
    with pytest.raises(RecipeError, match="code is imported only on the user's request"):
        load_run(tmp_path / "run")
    assert "antigravity" not in sys.modules


def test_a_run_of_a_named_space_has_no_space_file(tmp_path: Path) -> None:
    begin_run(tmp_path / "run", recipe_of(f"{__name__}:PAIR"))
    assert (tmp_path / "run" / "space.json").is_file()
    begin_run(tmp_path / "run", recipe_of(TINY))
    assert not (tmp_path / "run" / "space.json").exists()


def test_a_space_file_is_found_beside_the_recipe(tmp_path: Path) -> None:
    other_tiny().save(tmp_path / "mine.json")
    (tmp_path / "recipe.toml").write_text(recipe_of(TINY).to_toml("mine.json"))
    assert Recipe.load(tmp_path / "recipe.toml").get_space() == other_tiny()
