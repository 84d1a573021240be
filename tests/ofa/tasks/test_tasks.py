"""What holds for every task, and the formulas of those that come along."""

from __future__ import annotations

import warnings

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from ofa.errors import DataError, RecipeError
from ofa.tasks import CLASSIFICATION, MULTI_LABEL, TASKS, Task
from tests.ofa.tasks.task_contract import TaskContract, outputs

OUTPUTS = outputs()
LABELS = {
    "classification": torch.arange(40) % 5,
    "multi_label": torch.rand(40, 5, generator=torch.Generator().manual_seed(2)) < 0.3,
}


@pytest.mark.parametrize("name", TASKS.own)
class TestTasks(TaskContract):
    @pytest.fixture
    def task(self, name: str) -> Task:
        return TASKS.get(name)

    @pytest.fixture
    def labels(self, name: str) -> Tensor:
        return LABELS[name]

    def test_labels_of_another_task_are_refused(self, task: Task) -> None:
        for name in LABELS.keys() - {task.name}:
            with pytest.raises(DataError, match=f'{task.name}.*task = "{name}"'):
                task.check(LABELS[name])


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="there is no task 'multilabel'; did you mean 'multi_label'"):
        TASKS.get("multilabel")


# -- classification ---------------------------------------------------------------------------------------------------


def test_chance_is_what_the_most_frequent_class_gets() -> None:
    assert CLASSIFICATION.chance(torch.tensor([0] * 6 + [1] * 3 + [2])) == 0.6


@pytest.mark.parametrize(
    ("accuracy", "images", "classes", "expected"),
    [(0.10, 300, 10, True), (0.13, 300, 10, True), (0.2, 300, 10, False), (0.2, 20, 10, True), (1.0, 4, 2, True), (1.0, 8, 2, False)],
)
def test_chance_is_told_from_more_by_the_number_of_images(accuracy: float, images: int, classes: int, expected: bool) -> None:
    assert CLASSIFICATION.is_at_chance(accuracy, torch.arange(images) % classes) is expected


# -- multi-label ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 10**9])
def test_the_score_is_mean_average_precision_as_scikit_learn_computes_it(levels: int) -> None:
    labels = LABELS["multi_label"].clone()
    labels[:, 2] = False  # a class that no image has counts for nothing
    outputs = (OUTPUTS * levels).round() / levels if levels > 3 else (OUTPUTS * levels).round()  # with many equal outputs, or none
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = [k for k in range(5) if k != 2]
        expected = sum(average_precision_score(labels[:, k], outputs[:, k]) for k in known) / len(known)
    assert float(MULTI_LABEL.score(outputs.double(), labels)) == pytest.approx(expected, abs=1e-6)


def test_average_precision_by_hand() -> None:
    labels = torch.tensor([[True], [False], [True], [False]])
    assert float(MULTI_LABEL.score(torch.tensor([[4.0], [3.0], [2.0], [1.0]]), labels)) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert float(MULTI_LABEL.score(torch.zeros(4, 1), labels)) == 0.5  # equal outputs: the share of the class, whatever the order


def test_the_multi_label_loss_is_its_formula() -> None:
    labels = LABELS["multi_label"].double()
    outputs, smooth = OUTPUTS.double(), labels * 0.8 + 0.1
    probability = 1 / (1 + torch.exp(-outputs))
    expected = -(smooth * probability.log() + (1 - smooth) * (1 - probability).log()).mean()
    torch.testing.assert_close(MULTI_LABEL.loss(outputs, LABELS["multi_label"], 0.2), expected)
