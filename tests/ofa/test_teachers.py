"""Teachers of one's own: what they are given, what they must give, and that subnets learn it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa.calibrate import calibrate
from ofa.data import ImageData, make_batch
from ofa.errors import RecipeError, TrustError, WeightsError
from ofa.exporting.bundle import write_bundle
from ofa.exporting.card import Card
from ofa.families import get_space
from ofa.registry import FromFile
from ofa.supernet import Supernet
from ofa.teachers import TEACHERS, FoundTeacher, find_teacher
from ofa.training import DataRecord, Phase, Recipe, TrainingState, begin_run, evaluate, save_run, train
from ofa.training.record import Facts, Source
from ofa.training.specialization import specialize
from ofa.training.step import Objective, _taught

TINY = "ofa-mbv3-tiny"
NAMES = tuple("abcdefghij")
CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


class Constant(nn.Module):
    """Holds one class for all but certain."""

    def __init__(self, outputs: int = 10, favourite: int = 3) -> None:
        super().__init__()
        self.bias = nn.Parameter(20.0 * nn.functional.one_hot(torch.tensor(favourite), outputs))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.bias.expand(len(x_BCHW), -1)


class Linear(nn.Module):
    """Takes images of 8 x 8 pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 10)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        answer: Tensor = self.layer(x_BCHW.flatten(1))
        return answer


class Wrong(nn.Module):
    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_BCHW: Tensor) -> Any:
        return self.answer(x_BCHW)


@pytest.fixture(scope="module")
def pictures() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 10
    noise = torch.randint(0, 30, (64, 3, 8, 8), generator=generator)
    return ImageData(images=(20 * labels[:, None, None, None] + noise).to(torch.uint8), labels=labels, class_names=NAMES)


@pytest.fixture
def register() -> Iterator[Callable[[object], None]]:
    """Gives the name 'mine' to a teacher."""
    TEACHERS.register("mine", Constant())
    yield lambda entry: TEACHERS._entries.update(mine=entry)  # type: ignore[dict-item]
    del TEACHERS._entries["mine"]


def recipe_of(named: str = "mine", **phase: Any) -> Recipe:
    made = Phase(name="one", **{"epochs": 2, "learning_rate": 0.05, "resolutions": (16,), "distillation_weight": float("inf"), **phase})
    return Recipe(space=TINY, data="digits", phases=(made,), batch_size=32, teacher=named, checkpoint_steps=1)


def prepared(recipe: Recipe, data: ImageData) -> nn.Module | None:
    found = find_teacher(recipe.teacher, recipe.teacher_resolution)
    return None if found is None else found.prepared(data, (16,), CPU)


@pytest.mark.parametrize("phase", [{}, {"teacher": "in-place", "sandwich": True, "subnets_per_step": 2}], ids=["all", "the largest"])
def test_subnets_learn_what_the_teacher_says(phase: dict[str, Any], register: object, pictures: ImageData) -> None:
    recipe = recipe_of(epochs=5, learning_rate=0.2, **phase)
    supernet = recipe.build_supernet(10)
    train(supernet, recipe, pictures, teacher=prepared(recipe, pictures))
    network = supernet.extract(supernet.space.largest(16))
    calibrate(network, pictures, resolution=16)
    x_BCHW, _ = make_batch(pictures, torch.arange(32), resolution=16)
    with torch.no_grad():
        shares = network.eval()(x_BCHW).softmax(1).mean(0)
    # Beside the labels where it teaches the network that teaches all others, otherwise alone.
    assert shares.argmax() == 3
    assert float(shares[3]) > (0.2 if phase else 0.4)


def test_a_run_goes_on_with_its_teacher_and_no_other(register: Callable[[object], None], pictures: ImageData) -> None:
    recipe, states = recipe_of(), list[TrainingState]()
    whole = recipe.build_supernet(10)
    train(whole, recipe, pictures, teacher=prepared(recipe, pictures), on_state=states.append)
    assert not any(name.startswith("teacher") for name in states[1].tensors)
    resumed = Supernet(whole.space, generator=torch.Generator().manual_seed(9))
    train(resumed, recipe, pictures, state=states[1], teacher=prepared(recipe, pictures))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
    register(Constant(favourite=4))
    with pytest.raises(WeightsError, match="with the teacher that it began with, but the weights of 'mine' have changed"):
        train(resumed, recipe, pictures, state=states[1], teacher=prepared(recipe, pictures))
    with pytest.raises(RecipeError, match="must be given the teacher that the recipe names"):
        train(resumed, recipe, pictures)


def test_a_network_is_specialized_beside_a_teacher(pictures: ImageData) -> None:
    supernet = Supernet(get_space(TINY), generator=torch.Generator().manual_seed(0))
    teacher = FoundTeacher(name="mine", network=Constant()).prepared(pictures, (16,), CPU)
    generator = torch.Generator().manual_seed(0)
    made = specialize(supernet, supernet.space.smallest(16), pictures, pictures, epochs=1, generator=generator, teacher=teacher)
    assert made.metrics.teacher_accuracy == float((pictures.labels == 3).float().mean())


def test_a_teacher_of_a_fixed_size_is_given_it(pictures: ImageData) -> None:
    found = FoundTeacher(name="mine", network=Linear(), resolution=8)
    assert found.prepared(pictures, (16, 24), CPU)(torch.rand(2, 3, 24, 24)).shape == (2, 10)
    with pytest.raises(RecipeError, match=r"take a batch of \[4, 3, 16, 16\], but 'mine' does not: .*shapes.*; set teacher_resolution"):
        replace(found, resolution=None).prepared(pictures, (16, 24), CPU)


WRONG: dict[str, tuple[nn.Module, str]] = {
    "other classes": (Constant(9), r"gives float32 \[4, 9\]"),
    "no tensor": (Wrong(lambda x: {"logits": x}), "gives a dict, which is no tensor"),
    "raises": (Wrong(lambda x: x.no_such), "does not: .*no_such"),
    "not finite": (Wrong(lambda x: x.new_full((len(x), 10), float("nan"))), "gives logits that are not finite"),
    "whole numbers": (Wrong(lambda x: torch.ones(len(x), 10, dtype=torch.int64)), r"gives int64 \[4, 10\]"),
    "changes its input": (Wrong(lambda x: x.relu_().mean((1, 2, 3))[:, None].expand(-1, 10)), "changes its input"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_teacher_that_cannot_teach_is_refused(case: str, pictures: ImageData) -> None:
    network, words = WRONG[case]
    with pytest.raises(RecipeError, match=words):
        FoundTeacher(name="mine", network=network).prepared(pictures, (16,), CPU)


def test_a_name_that_leads_nowhere_is_refused(register: Callable[[object], None]) -> None:
    with pytest.raises(RecipeError, match=r"registered name \(known: mine\), but 'your' is none; check the path"):
        find_teacher("your")
    with pytest.raises(RecipeError, match="is none; check the path"):
        find_teacher("a" * 5000)
    for entry, words in ((dict, "makes a dict"), (lambda: 1 / 0, "made without arguments, but: division by zero")):
        register(entry)
        with pytest.raises(RecipeError, match=words):
            find_teacher("mine")
    register(Linear)
    found, imported = find_teacher("mine"), find_teacher(f"{__name__}:Constant")
    assert found is not None
    assert imported is not None
    assert (type(found.network), type(imported.network).__name__) == (Linear, "Constant")
    with pytest.raises(TrustError, match=r"type it yourself, --set teacher=a:b"):
        find_teacher(FromFile("a:b", "teacher"))
    with pytest.raises(RecipeError, match="each distillation_weight is 0; set one to 1"):
        recipe_of(distillation_weight=0.0)


def test_a_teacher_of_ones_own_is_not_recorded_as_a_cuda_graph(pictures: ImageData) -> None:
    x = torch.rand(2, 3, 16, 16)
    own = Objective(teacher=Constant(), teacher_is_own=True, distillation_weight=1.0)
    targets = _taught(own, x, object()).outputs  # type: ignore[arg-type]
    assert targets is not None
    assert targets.shape == (2, 10)


# -- runs and bundles ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, pictures: ImageData) -> Path:
    """The run of an untrained supernet of as many classes, in another order, and of images with another normalization."""
    source = Source(path="digits", typed="digits")
    facts = Facts(
        class_names=NAMES[::-1], mean=MEAN, std=STD, data=source, test_data=Source(path="", typed=""), fractions=(0.8, 0.1, 0.1), seed=0,
        rule=pictures.rule,
    )  # fmt: skip
    recipe = recipe_of("", distillation_weight=0.0)
    keys, parts = np.zeros((1, 16), np.uint8), np.zeros(1, np.int64)
    begin_run(tmp_path / "run", recipe, DataRecord(facts=facts, keys=keys, parts=parts, labels=parts))
    save_run(tmp_path / "run", recipe.build_supernet(10), recipe, ())
    return tmp_path / "run"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    space = get_space(TINY)
    network, arch = Supernet(space, generator=torch.Generator().manual_seed(2)).eval().extract(space.smallest(24)), space.smallest(24)
    how: Any = {"class_names": NAMES[::-1], "mean": MEAN, "std": STD, "generator": torch.Generator().manual_seed(0)}
    write_bundle(tmp_path / "bundle", network, arch, Card(), **how)
    return tmp_path / "bundle"


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_networks_of_runs_and_bundles_see_their_own_images_and_name_our_classes(
    kind: str, request: pytest.FixtureRequest, pictures: ImageData
) -> None:
    folder: Path = request.getfixturevalue(kind)
    found = find_teacher(str(folder))
    assert found is not None
    theirs = replace(pictures, class_names=NAMES[::-1], labels=9 - pictures.labels).normalized((MEAN, STD))
    teacher = found.prepared(pictures, (24,), CPU)
    index = torch.arange(8)
    ours_BCHW, theirs_BCHW = (make_batch(each, index, resolution=24)[0] for each in (pictures, theirs))
    with torch.no_grad():
        torch.testing.assert_close(teacher(ours_BCHW), found.network(theirs_BCHW).flip(1), rtol=1e-3, atol=1e-4)
    assert found.calibrates is (kind == "run")
    assert evaluate(teacher, pictures, resolution=24) == pytest.approx(evaluate(found.network, theirs, resolution=24))
    others = replace(pictures, class_names=("cat", *NAMES[1:]))
    with pytest.raises(RecipeError, match=r"has 10 \(j, i, h, g, f \.\.\.\) and the data has 10 \(cat, b, c, d, e \.\.\.\)"):
        found.prepared(others, (24,), CPU)


def test_a_bundle_is_given_images_of_its_own_size(bundle: Path) -> None:
    found, other = find_teacher(str(bundle)), find_teacher(str(bundle), 32)
    assert found is not None
    assert other is not None
    assert (found.resolution, other.resolution) == (24, 32)


def test_a_run_without_a_record_cannot_teach(run: Path) -> None:
    (run / "data.parquet").unlink()
    with pytest.raises(RecipeError, match=r"must record its classes and normalization, but .* has no record of its data"):
        find_teacher(str(run))
