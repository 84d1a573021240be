"""What every task must do; a class of tests that derives from this one gives the task, and labels if they are not one class an image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.errors import RecipeError
from ofa.tasks import TASKS, Task
from ofa.training.losses import training_loss

__all__ = ["TaskContract", "outputs", "perfect"]

CLASSES, IMAGES = 5, 40


def outputs(*shape: int, seed: int = 0) -> Tensor:
    """Random outputs."""
    return torch.randn(*shape, IMAGES, CLASSES, generator=torch.Generator().manual_seed(seed))


def perfect(labels: Tensor) -> Tensor:
    """The outputs of a network that is sure of all labels."""
    return (F.one_hot(labels, CLASSES) if labels.ndim == 1 else labels).float() * 20 - 10


class TaskContract:
    @pytest.fixture
    def task(self) -> Task:
        raise NotImplementedError

    @pytest.fixture
    def labels(self, task: Task) -> Tensor:
        """Of 40 images and 5 classes."""
        return torch.arange(IMAGES) % CLASSES

    def test_it_is_registered_under_its_name(self, task: Task) -> None:
        assert TASKS.get(task.name) is task
        assert task.metric
        assert task.loss_name
        with pytest.raises(RecipeError, match=f"must have a name of its own, but '{task.name}' is already registered"):
            TASKS.register(task.name, task)

    def test_its_labels_are_taken(self, task: Task, labels: Tensor) -> None:
        task.check(labels)

    def test_scores_lie_between_0_and_1_and_right_answers_have_1(self, task: Task, labels: Tensor) -> None:
        scores = task.score(outputs(3), labels)
        assert scores.shape == (3,)
        assert ((scores >= 0) & (scores <= 1)).all()
        assert float(task.score(perfect(labels), labels)) == 1
        assert all(torch.isclose(task.score(each, labels), score) for each, score in zip(outputs(3), scores, strict=True))

    def test_the_score_of_a_set_is_that_of_its_batches_together(self, task: Task, labels: Tensor) -> None:
        found = outputs()

        def answers() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, IMAGES, 7):
                yield found[start : start + 7], labels[start : start + 7]

        assert task.score_of(answers()) == pytest.approx(float(task.score(found, labels)), abs=1e-6)

    def test_the_loss_falls_along_its_gradient_and_is_least_at_right_answers(self, task: Task, labels: Tensor) -> None:
        found = outputs().requires_grad_()
        loss = task.loss(found, labels)
        loss.backward()
        assert found.grad is not None
        assert task.loss(found - 0.1 * found.grad, labels) < loss
        assert float(task.loss(perfect(labels), labels)) < 0.01

    def test_equal_outputs_have_the_loss_of_chance(self, task: Task, labels: Tensor) -> None:
        assert float(task.loss(torch.zeros(IMAGES, CLASSES), labels)) == pytest.approx(task.chance_loss(CLASSES), abs=1e-6)

    def test_mixed_targets_of_whole_labels_are_the_labels(self, task: Task, labels: Tensor) -> None:
        mixed = F.one_hot(labels, CLASSES).float() if labels.ndim == 1 else labels.float()
        assert float(task.loss(outputs(), mixed, 0.1)) == pytest.approx(float(task.loss(outputs(), labels, 0.1)), abs=1e-6)
        assert torch.equal(task.score(outputs(3), mixed), task.score(outputs(3), labels))

    @pytest.mark.parametrize("divergence", ["kl", "alpha"])
    def test_distillation_pulls_a_student_to_its_teacher(self, task: Task, divergence: str) -> None:
        student, teacher = outputs().requires_grad_(), outputs(seed=1).requires_grad_()
        loss = task.distillation_loss(student, teacher, divergence)  # type: ignore[arg-type]
        loss.backward()
        assert teacher.grad is None
        assert student.grad is not None
        assert task.distillation_loss(student - 0.1 * student.grad, teacher, divergence) < loss  # type: ignore[arg-type]
        same = outputs(seed=1).requires_grad_()
        task.distillation_loss(same, outputs(seed=1), divergence).backward()  # type: ignore[arg-type]
        assert same.grad is not None
        assert same.grad.abs().max() < 1e-6

    def test_the_labels_and_the_teacher_are_weighed(self, task: Task, labels: Tensor) -> None:
        found, teacher = outputs(), outputs(seed=1)
        hard, soft = task.loss(found, labels, 0.1), task.distillation_loss(found, teacher, "kl")
        for weight, expected in ((0.0, hard), (3.0, (hard + 3 * soft) / 4), (math.inf, soft)):
            loss = training_loss(found, labels, task=task, label_smoothing=0.1, teacher_outputs=teacher, distillation_weight=weight)
            torch.testing.assert_close(loss, expected)

    def test_what_has_learned_nothing_is_at_chance_and_right_answers_are_not(self, task: Task, labels: Tensor) -> None:
        assert task.is_at_chance(task.chance(labels), labels)
        assert not task.is_at_chance(1.0, labels)
