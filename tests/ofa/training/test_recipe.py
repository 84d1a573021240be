from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.errors import FileError, RecipeError
from ofa.families import derive, get_space, space_names
from ofa.space import Gene
from ofa.training import Phase, Recipe, demo_recipe, progressive_shrinking
from ofa.training.methods import METHODS, single_stage
from ofa.training.presets import load_recipe, preset_names
from ofa.training.sampling import Uniform, free
from tests.ofa.strategies import TINY_SPACES

TEXT = """
space = "ofa-mbv3-tiny"
data = "digits"
batch_size = 32
augmentation = {shift = 0.1}

[[phases]]
name = "full"
epochs = 3
learning_rate = 1
warmup_epochs = 0.5

[[phases]]
name = "kernel"
epochs = 2
learning_rate = 0.05
free = {kernel = [3, 5], depth = [0, 1]}
resolutions = [16, 24]
distillation_weight = 1.0
"""


def test_a_recipe_is_read_from_toml() -> None:
    recipe = Recipe.from_toml(TEXT)
    assert recipe.batch_size == 32
    assert recipe.augmentation.shift == 0.1
    full, kernel = recipe.phases
    assert isinstance(full.learning_rate, float)
    assert (full.warmup_epochs, full.free, full.resolutions) == (0.5, (), ())
    assert kernel.free == (Gene("kernel", (3, 5)), Gene("depth", (0, 1)))
    assert kernel.resolutions == (16, 24)


@pytest.mark.parametrize("recipe", [Recipe.from_toml(TEXT), demo_recipe(seed=3)], ids=["listed", "demo"])
def test_toml_keeps_all_of_a_recipe(recipe: Recipe) -> None:
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert hash(Recipe.from_toml(recipe.to_toml())) == hash(recipe)


def test_resolutions_of_height_and_width_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "wide.json"
    derive(get_space("ofa-mbv3-tiny"), "wide", resolutions=[16, "16x24", 24]).save(path)
    recipe = Recipe.from_toml(TEXT)
    first = replace(recipe.phases[0], resolutions=((16, 24), 16, (24, 24)))
    text = replace(recipe, space=str(path), phases=(first, *recipe.phases[1:])).to_toml()
    assert 'resolutions = ["16x24", 16, 24]' in text
    assert Recipe.from_toml(text).phases[0].resolutions == ((16, 24), 16, 24)


def test_phases_can_be_made_by_progressive_shrinking() -> None:
    recipe = Recipe.from_toml('space = "ofa-mbv3-tiny"\ndata = "digits"\n[progressive_shrinking]\nepochs = 12\nlearning_rate = 0.2')
    assert recipe.phases == progressive_shrinking(get_space("ofa-mbv3-tiny"), epochs=12, learning_rate=0.2)


def test_changes_reach_into_tables_and_phases() -> None:
    changes = ["batch_size=16", "augmentation.shift = 0.2", "phases.kernel.epochs=5", "phases.kernel.resolutions=[16]", "data=digits"]
    recipe = Recipe.from_toml(TEXT, changes)
    assert (recipe.batch_size, recipe.augmentation.shift, recipe.data) == (16, 0.2, "digits")
    assert [phase.epochs for phase in recipe.phases] == [3, 5]
    assert recipe.phases[1].resolutions == (16,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("batchsize=3", "no key 'batchsize' .*did you mean 'batch_size'"),
        ("batch_size=1", "batch_size must be at least 2, but is 1"),
        ("batch_size=2.5", "batch_size must be a whole number, but is 2.5"),
        ("batch_size=true", "a whole number, but is True"),
        ("optimizer.momentum=1.0", r"optimizer\.momentum must be in 0"),
        ("optimizer.momentum=nan", r"optimizer\.momentum must be in 0"),
        ("space=ofa-mbv3-tinny", "did you mean 'ofa-mbv3-tiny'"),
        ("augmentation=3", "must be a table"),
        ("augmentation.shift=2", "shift must be a share"),
        ("fractions=[0.5, 0.5]", "must have 3 values, but has 2"),
        ("phases.full.epochs=0", r"phases.full.epochs must be at least 1"),
        ("phases.full.epochs=ten", "phases.full.epochs must be a whole number, but is 'ten'"),
        ("phases.full.learning_rate=0", "phases.full.learning_rate must be above 0"),
        ("phases.full.warmup_epochs=4", r"warmup_epochs must be in 0\.\.3"),
        ("phases.full.lr=1", "no key 'lr'"),
        ("phases.kernel.resolutions=[20]", r"phases.kernel .* \[16, 24, 32\].* \[20\]"),
        ('phases.kernel.resolutions=["20x24"]', r"phases.kernel .* \[16, 24, 32\].* \[20x24\]"),
        ('phases.kernel.resolutions=[16, "big"]', "phases.kernel: a resolution must be whole pixels .* but is 'big'"),
        ("phases.kernel.free.kernel=[7]", r"phases.kernel .*\[3, 5\].* \[7\]"),
        ("phases.kernel.free.kernel=[5, 3]", "ascend"),
        ("phases.kernel.free.kernle=[3]", "did you mean 'kernel'"),
        ("phases.kernel.free.resolution=[16]", "use phases.kernel.resolutions"),
        ("phases.kernel.name=full", "2 are called 'full'"),
        ("phases.depth.epochs=1", "'depth' must be the name of a phase; known: full, kernel"),
        ("phases.epochs=1", "must be the name of a phase|must name its key"),
        ("phases=[]", "at least one phase"),
        ("phases=3", "must be a list of tables"),
        ("progressive_shrinking.epochs=9", "this one has phases and progressive_shrinking"),
        ("batch_size.x=9", "must be a table, but is 32"),
        ("batch_size", "must be written key=value"),
    ],
)
def test_a_wrong_key_or_value_is_named(change: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.from_toml(TEXT, [change])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("space = ", "a recipe must be TOML"),
        ('space = "ofa-mbv3-tiny"', "this one has none"),
        ('data = "digits"\nphases = [{name = "a", epochs = 1, learning_rate = 1.0}]', "must have the key 'space'"),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\nphases = [{name = "a"}]', "phases.a must have the key 'epochs'"),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\nprogressive_shrinking = {epoch = 9}', "did you mean 'epochs'"),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\nprogressive_shrinking = {epochs = 3}', "each of the 5 phases, but epochs is 3"),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\nprogressive_shrinking = 9', "must be a table"),
    ],
)
def test_an_incomplete_recipe_is_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.from_toml(text)


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    with pytest.raises(FileError, match=r"recipe\.toml"):
        Recipe.load(path)
    path.write_text(TEXT)
    assert Recipe.load(path, ["seed=7"]).seed == 7
    with pytest.raises(RecipeError, match=r"recipe\.toml: seed must be"):
        Recipe.load(path, ["seed=-1"])


def test_randomness_depends_on_the_seed_and_the_purpose_alone() -> None:
    def draw(seed: int, purpose: str) -> tuple[float, float]:
        recipe = replace(demo_recipe(), seed=seed)
        return float(torch.rand((), generator=recipe.generator(purpose))), float(recipe.rng(purpose).random())  # type: ignore[arg-type]

    assert draw(0, "training") == draw(0, "training")
    assert len({*draw(0, "training"), *draw(1, "training"), *draw(0, "split")}) == 6


# -- phases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", space_names())
def test_progressive_shrinking_opens_every_space_step_by_step(name: str) -> None:
    space = get_space(name)
    phases = progressive_shrinking(space, epochs=40, subnets_per_step=4)
    assert sum(phase.epochs for phase in phases) == 40
    parts = [phase.restrict(space) for phase in phases]
    assert parts[0].size == len(space.resolutions)
    assert parts[0].largest() == space.largest()
    assert parts[-1] == space
    assert all(before.size < after.size for before, after in pairwise(parts))
    assert all(small.smallest() in large for small, large in pairwise(parts))
    assert [bool(phase.distillation_weight) for phase in phases] == [False] + [True] * (len(phases) - 1)
    assert [phase.reorder_channels for phase in phases] == [phase.name.startswith("width") for phase in phases]


def test_the_paper_s_phases_for_mobilenet_v3() -> None:
    space = get_space("ofa-mbv3-w1.0")
    phases = progressive_shrinking(space, epochs=590, subnets_per_step=4)
    assert [phase.name for phase in phases] == ["full", "kernel", "depth-1", "depth-2", "width-1", "width-2"]
    assert [phase.epochs for phase in phases] == [180, 120, 25, 120, 25, 120]
    assert [phase.subnets_per_step for phase in phases] == [1, 1, 2, 2, 4, 4]
    depth, width = phases[2].restrict(space), phases[4].restrict(space)
    assert {stage.depths for stage in depth.stages} == {(3, 4)}
    assert {gene.values for stage in width.stages for gene in stage.genes if gene.name == "expand"} == {(4, 6)}


def test_few_epochs_can_go_to_the_phase_in_which_all_is_open() -> None:
    phases = progressive_shrinking(get_space("ofa-mbv3-w1.0"), epochs=100, shares=(15, 10, 15, 60))
    assert [phase.epochs for phase in phases] == [15, 10, 3, 13, 11, 48]
    with pytest.raises(RecipeError, match="shares must be above 0"):
        progressive_shrinking(get_space("ofa-mbv3-w1.0"), epochs=100, shares=(1, 0, 1, 1))


def test_resnet_opens_its_stem_with_the_depth_and_its_widths_last() -> None:
    space = get_space("ofa-resnet50")
    phases = {phase.name: phase.restrict(space) for phase in progressive_shrinking(space, epochs=40)}
    assert list(phases) == ["full", "depth-1", "depth-2", "width-1", "width-2"]
    genes = {gene.name: gene.values for gene in phases["depth-2"].network}
    assert genes["stem_depth"] == (2, 3)
    assert genes["stage_1_width"] == (1.0,)
    widths = [gene.values for gene in phases["width-1"].network if gene.name.endswith("width")]
    assert all(len(values) == 2 and values[-1] == 1.0 for values in widths)


def test_uniform_sampling_stays_in_the_phase_and_meets_every_value() -> None:
    space = get_space("ofa-mbv3-tiny")
    part = Phase(name="kernel", epochs=1, learning_rate=0.1, free=(Gene("kernel", (3, 5)),), resolutions=(16,)).restrict(space)
    archs = Uniform(free).draw(part, 60, np.random.default_rng(0))
    assert all(arch in part for arch in archs)
    assert {arch.stages[0][0]["kernel"] for arch in archs} == {3, 5}
    assert {arch.stages[0][0]["expand"] for arch in archs} == {6}
    assert archs == Uniform(free).draw(part, 60, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\nbatchsize = 3\n[single_stage]\nepochs = 2', 3, "did you mean 'batch_size'"),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\nbatch_size = 1\n[single_stage]\nepochs = 2', 3, "at least 2"),
        (
            'space = "ofa-mbv3-tiny"\ndata = "digits"\nprecision = "float8"\n[single_stage]\nepochs = 2',
            3,
            "known: bfloat16, float16",
        ),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\n\n[single_stage]\nepochs = 2\nsampling = "unform"', 6, "did you mean 'uniform'"),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\naugmentation = {shift = 2}\n[single_stage]\nepochs = 2', 3, "shift must be a share"),
        (
            'space = "ofa-mbv3-tiny"\ndata = "digits"\n[[phases]]\nname = "a"\nepochs = 2\nlearning_rate = 1\n'
            '[[phases]]\nname = "b"\nlearning_rate = 1\nepochs = 0\n',
            10,
            r"phases\.b\.epochs must be at least 1",
        ),
        ('space = "ofa-mbv3-tiny"\ndata = "digits"\n[[phases]]\nname = "a"\nepochs = "x"\nlearning_rate = 1', 5, "a whole number"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(RecipeError, match=f"line {line}: .*{words}"):
        Recipe.from_toml(text)


def test_a_value_from_the_command_line_blames_no_line_of_the_file() -> None:
    text = 'space = "ofa-mbv3-tiny"\ndata = "digits"\nbatch_size = 32\n[single_stage]\nepochs = 2'
    with pytest.raises(RecipeError, match=r"^batch_size must be at least 2"):
        Recipe.from_toml(text, ["batch_size=1"])


@pytest.mark.parametrize("name", preset_names())
def test_every_recipe_that_comes_along_is_read_and_written_back(name: str) -> None:
    recipe = load_recipe(name, ["space=ofa-mbv3-32px"] if name == "adopt" else [])
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("space", TINY_SPACES)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_makes_phases_for_every_family_and_ends_with_all_that_it_frees(space: str, method: str) -> None:
    whole = get_space(space)
    phases = METHODS[method](whole, epochs=12)
    assert sum(phase.epochs for phase in phases) == 12
    last = phases[-1].restrict(whole)
    assert last.smallest() == whole.smallest() or method == "compound"  # which leaves the kernels at their largest
    assert last.largest() == whole.largest()


def test_a_single_stage_is_the_sandwich_with_an_in_place_teacher() -> None:
    (phase,) = single_stage(get_space("ofa-mbv3-tiny"), epochs=3)
    assert phase.sandwich
    assert phase.distils_in_place
    assert not phase.needs_copy
    assert phase.divergence == "alpha"
    assert phase.distillation_weight == float("inf")
    assert phase.dropout == "largest"


def test_an_in_place_teacher_needs_the_sandwich() -> None:
    with pytest.raises(RecipeError, match="sandwich must be true"):
        Phase(name="a", epochs=1, learning_rate=1, distillation_weight=1, teacher="in-place")
    with pytest.raises(RecipeError, match="at least 2 with sandwich"):
        Phase(name="a", epochs=1, learning_rate=1, sandwich=True)


def test_test_data_of_its_own_takes_no_share_of_the_data() -> None:
    with pytest.raises(RecipeError, match="last of fractions must be 0 with test_data"):
        load_recipe("digits", ["test_data=x.parquet"])
