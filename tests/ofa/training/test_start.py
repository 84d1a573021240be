"""A run that starts from other weights: what is taken computes what it did, and the rest is new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa.data import ImageData
from ofa.errors import FileError, RecipeError, WeightsError
from ofa.families import SPACES, derive, get_space
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training import SGD, Phase, Recipe, begin_run, first_data, save_run, train
from ofa.training.start import Start, open_start

TINY = ("ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny")
NAMES = tuple("abcdefghij")
CLASSIFIER = ("classifier.linear.weight", "classifier.linear.bias")


def random_supernet(space: Space, seed: int = 1) -> Supernet:
    """All tensors are drawn, so that kernel matrices and statistics count."""
    supernet, generator = Supernet(space), torch.Generator().manual_seed(seed)
    for name, tensor in supernet.named_tensors().items():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + (0.5 if name.endswith("var") else -0.1))
    return supernet.eval()


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., str]:
    def save(supernet: Supernet) -> str:
        supernet.save(tmp_path / "start.safetensors")
        return str(tmp_path / "start.safetensors")

    return save


def started(start: Start, space: Space, names: tuple[str, ...] = NAMES) -> tuple[Supernet, Start]:
    opened = open_start(start, space)
    assert opened is not None
    supernet = Supernet(replace(space, num_classes=len(names)), generator=torch.Generator().manual_seed(5)).eval()
    return supernet, opened.copy_to(supernet, names)


def parts(name: str) -> list[dict[str, Any]]:
    """What is another than in the space: nothing, resolutions, the largest or the smallest value of each gene."""
    space = get_space(name)
    genes = [*space.network, *(gene for stage in space.stages for gene in stage.genes)]
    depths = sorted({depth for stage in space.stages for depth in stage.depths})
    ends = [{**{gene.name: [gene.values[end]] for gene in genes}, "depth": depths if end else depths[:1]} for end in (0, -1)]
    few = {gene.name: list(gene.values[:-1]) for gene in genes if len(gene.values) > 1}
    return [{}, {"resolutions": [40, 48]}, *({"keep": keep} for keep in (*ends, few))]


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in TINY for number in range(5)])
def test_networks_of_a_part_of_the_space_compute_what_they_did(name: str, number: int, weights: Callable[..., str]) -> None:
    source, changes = random_supernet(get_space(name)), parts(name)[number]
    space = derive(source.space, "part", **changes) if changes else source.space
    supernet, taken = started(Start(path=weights(source)), space)
    assert (taken.tensors, taken.new) == (len(supernet.named_tensors()), ())
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(3):
        arch = space.sample(rng)
        twin = replace(arch, space=name, resolution=source.space.resolutions[0])
        x = torch.rand(2, 3, 32, 32, generator=generator)
        with torch.no_grad():
            found, expected = supernet.extract(arch)(x), source.extract(twin)(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=0 if space == source.space else 1e-5 * float(expected.abs().max()))


def test_another_number_of_classes_gets_a_new_classifier_of_the_seed(weights: Callable[..., str]) -> None:
    source = random_supernet(get_space(TINY[0]))
    supernet, taken = started(Start(path=weights(source), classifier_rate=10), source.space, NAMES[:4])
    untrained = Supernet(supernet.space, generator=torch.Generator().manual_seed(5)).named_tensors()
    own = source.named_tensors()
    assert taken.new == CLASSIFIER
    assert taken.factors == dict.fromkeys(CLASSIFIER, 10)
    for name, tensor in supernet.named_tensors().items():
        assert torch.equal(tensor, (untrained if name in CLASSIFIER else own)[name])
    assert taken.sentence.endswith("the classifier is new, and learns at 10 times the recipe's learning rate")


@pytest.mark.parametrize(("names", "classifier", "new"), [(NAMES, "auto", False), (NAMES, "new", True), (NAMES[::-1], "auto", True)])
def test_classes_go_by_their_names_where_a_run_knows_them(
    names: tuple[str, ...], classifier: Any, new: bool, recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = recipe_of(TINY[0], fractions=(0.02, 0.01, 0.01))
    record = first_data(recipe).record
    assert record is not None
    begin_run(tmp_path, recipe, replace(record, facts=replace(record.facts, class_names=NAMES)))
    save_run(tmp_path, recipe.build_supernet(10), recipe, ())
    _, taken = started(Start(path=str(tmp_path), classifier=classifier), recipe.get_space(), names)
    assert taken.new == (CLASSIFIER if new else ())
    with pytest.raises(WeightsError, match=r'knows, but .* has 10 \(a, b, c, d, e \.\.\.\) and the data 3 .*start\.classifier = "new"'):
        started(Start(path=str(tmp_path), classifier="keep"), recipe.get_space(), NAMES[:3])


MISFITS: dict[str, tuple[Space, str]] = {
    "another family": (
        get_space(TINY[1]),
        r"tensors of ofa-proxyless-tiny, but of these \d+ are missing \(first .*which is of ofa-mbv3-tiny",
    ),
    "grey images": (derive(get_space(TINY[0]), "grey", in_channels=1), r"computes something else in 1 blocks \(first stem\.conv\)"),
    "wider": (SPACES.get("ofa-mbv3-32px"), r"of other shapes \(first .*\[.*\] in place of \[.*; start from weights of ofa-mbv3-32px"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_space_that_is_no_part_of_the_starts_is_refused(case: str, weights: Callable[..., str]) -> None:
    space, words = MISFITS[case]
    with pytest.raises(WeightsError, match=words):
        open_start(Start(path=weights(random_supernet(get_space(TINY[0])))), space)


def test_choices_that_a_start_does_not_have_are_refused(weights: Callable[..., str]) -> None:
    whole = get_space(TINY[0])
    deep = derive(whole, "deep", keep={"depth": [max(depth for stage in whole.stages for depth in stage.depths)]})
    with pytest.raises(WeightsError, match="does not have the choices of its smallest"):
        open_start(Start(path=weights(random_supernet(deep))), whole)


def test_a_start_that_is_not_there_or_is_another_now_is_refused(weights: Callable[..., str], tmp_path: Path) -> None:
    source = random_supernet(get_space(TINY[0]))
    with pytest.raises(FileError, match=r"but '.*absent' is not there; check the path"):
        open_start(Start(path=str(tmp_path / "absent")), source.space)
    with pytest.raises(FileError, match="is not there; check the path"):
        open_start(Start(path="a" * 5000), source.space)
    with pytest.raises(FileError, match="has no weights; let its training end first"):
        open_start(Start(path=str(tmp_path)), source.space)
    opened = open_start(Start(path=weights(source)), source.space)
    assert opened is not None
    with torch.no_grad():
        source.decayed += 1
    weights(source)
    with pytest.raises(FileError, match="has another checksum than the recipe's"):
        open_start(opened.start, source.space)
    with pytest.raises(RecipeError, match=r"start\.classifier_rate must be in"):
        Start(path="a", classifier_rate=0)


def test_a_new_classifier_has_a_rate_of_its_own(recipe_of: Callable[..., Recipe], pictures: ImageData) -> None:
    once = Phase(name="full", epochs=1, learning_rate=0.05, resolutions=(16,))
    plain = SGD(momentum=0, weight_decay=0)

    def moved(rate: float) -> dict[str, torch.Tensor]:
        start = Start(path="unread", classifier_rate=rate, new=CLASSIFIER)
        recipe = replace(recipe_of(TINY[0], once, optimizer=plain, start=start), batch_size=96)
        supernet = recipe.build_supernet(10)
        before = {name: tensor.clone() for name, tensor in supernet.named_tensors().items()}
        train(supernet, recipe, pictures)
        return {name: tensor - before[name] for name, tensor in supernet.named_tensors().items()}

    usual, faster = moved(1), moved(4)
    for name, change in usual.items():
        torch.testing.assert_close(faster[name], change * (4 if name in CLASSIFIER else 1), rtol=1e-4, atol=1e-6)
