"""What holds for every task, and the formulas of those that come along."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from ofa.errors import DataError, RecipeError
from ofa.tasks import CLASSIFICATION, MULTI_LABEL, TASKS, Task
from ofa.training.losses import training_loss

GENERATOR = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(3, 40, 5, generator=GENERATOR)
TEACHER = torch.randn(40, 5, generator=GENERATOR)
LABELS = {"classification": torch.arange(40) % 5, "multi_label": torch.rand(40, 5, generator=GENERATOR) < 0.3}


@pytest.fixture(params=TASKS.own)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS.get(request.param)


def perfect(labels: Tensor) -> Tensor:
    return (F.one_hot(labels, 5) if labels.ndim == 1 else labels).float() * 20 - 10


def test_scores_lie_between_0_and_1_and_right_answers_have_1(task: Task) -> None:
    labels = LABELS[task.name]
    scores = task.score(OUTPUTS, labels)
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert float(task.score(perfect(labels), labels)) == 1
    assert all(torch.isclose(task.score(each, labels), score) for each, score in zip(OUTPUTS, scores, strict=True))


def test_the_score_of_a_set_is_that_of_its_batches_together(task: Task) -> None:
    labels = LABELS[task.name]

    def answers() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 40, 7):
            yield OUTPUTS[0, start : start + 7], labels[start : start + 7]

    assert task.score_of(answers()) == pytest.approx(float(task.score(OUTPUTS[0], labels)), abs=1e-6)


def test_the_loss_falls_along_its_gradient_and_is_least_at_right_answers(task: Task) -> None:
    labels = LABELS[task.name]
    outputs = OUTPUTS[0].clone().requires_grad_()
    loss = task.loss(outputs, labels)
    loss.backward()
    assert outputs.grad is not None
    assert task.loss(outputs - 0.1 * outputs.grad, labels) < loss
    assert float(task.loss(perfect(labels), labels)) < 0.01


def test_equal_outputs_have_the_loss_of_chance(task: Task) -> None:
    assert float(task.loss(torch.zeros(40, 5), LABELS[task.name])) == pytest.approx(task.chance_loss(5), abs=1e-6)


def test_mixed_targets_of_whole_labels_are_the_labels(task: Task) -> None:
    labels = LABELS[task.name]
    mixed = F.one_hot(labels, 5).float() if labels.ndim == 1 else labels.float()
    assert float(task.loss(OUTPUTS[0], mixed, 0.1)) == pytest.approx(float(task.loss(OUTPUTS[0], labels, 0.1)), abs=1e-6)
    assert torch.equal(task.score(OUTPUTS, mixed), task.score(OUTPUTS, labels))


@pytest.mark.parametrize("divergence", ["kl", "alpha"])
def test_distillation_pulls_a_student_to_its_teacher(task: Task, divergence: str) -> None:
    student, teacher = OUTPUTS[0].clone().requires_grad_(), TEACHER.clone().requires_grad_()
    loss = task.distillation_loss(student, teacher, divergence)  # type: ignore[arg-type]
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert task.distillation_loss(student - 0.1 * student.grad, teacher, divergence) < loss  # type: ignore[arg-type]
    same = TEACHER.clone().requires_grad_()
    task.distillation_loss(same, TEACHER, divergence).backward()  # type: ignore[arg-type]
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-6


def test_the_labels_and_the_teacher_are_weighed(task: Task) -> None:
    labels = LABELS[task.name]
    hard, soft = task.loss(OUTPUTS[0], labels, 0.1), task.distillation_loss(OUTPUTS[0], TEACHER, "kl")
    for weight, expected in ((0.0, hard), (3.0, (hard + 3 * soft) / 4), (math.inf, soft)):
        loss = training_loss(OUTPUTS[0], labels, task=task, label_smoothing=0.1, teacher_outputs=TEACHER, distillation_weight=weight)
        torch.testing.assert_close(loss, expected)


def test_what_has_learned_nothing_is_at_chance_and_right_answers_are_not(task: Task) -> None:
    labels = LABELS[task.name]
    assert task.is_at_chance(task.chance(labels), labels)
    assert not task.is_at_chance(1.0, labels)


def test_labels_of_another_task_are_refused(task: Task) -> None:
    task.check(LABELS[task.name])
    for name in LABELS.keys() - {task.name}:
        with pytest.raises(DataError, match=f'{task.name}.*task = "{name}"'):
            task.check(LABELS[name])


def test_a_task_is_registered_under_a_name_of_its_own(task: Task) -> None:
    with pytest.raises(RecipeError, match=f"must have a name of its own, but '{task.name}' is already registered"):
        TASKS.register(task.name, task)
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
    outputs = (OUTPUTS[0] * levels).round() / levels if levels > 3 else (OUTPUTS[0] * levels).round()  # with many equal outputs, or none
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
    outputs, smooth = OUTPUTS[0].double(), labels * 0.8 + 0.1
    probability = 1 / (1 + torch.exp(-outputs))
    expected = -(smooth * probability.log() + (1 - smooth) * (1 - probability).log()).mean()
    torch.testing.assert_close(MULTI_LABEL.loss(outputs, LABELS["multi_label"], 0.2), expected)
