from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ofa.training.losses import distillation_loss, training_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.0]])
TEACHER = torch.tensor([[3.0, -1.0, 0.0], [0.0, 2.0, 0.0]])
LABELS = torch.tensor([0, 1])


def test_soft_targets_are_the_teachers_probabilities() -> None:
    expected = -(TEACHER.softmax(1) * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(distillation_loss(LOGITS, TEACHER), expected)


def test_the_gradient_vanishes_where_the_student_equals_the_teacher() -> None:
    student, teacher = TEACHER.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    distillation_loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6
    assert teacher.grad is None


def test_without_a_teacher_it_is_smoothed_cross_entropy() -> None:
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert torch.equal(training_loss(LOGITS, LABELS, label_smoothing=0.1), expected)
    assert torch.equal(training_loss(LOGITS, LABELS, label_smoothing=0.1, teacher_logits=TEACHER), expected)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_labels_and_teacher_are_averaged_by_their_weights(weight: float) -> None:
    loss = training_loss(LOGITS, LABELS, label_smoothing=0.0, teacher_logits=TEACHER, distillation_weight=weight)
    expected = (F.cross_entropy(LOGITS, LABELS) + weight * distillation_loss(LOGITS, TEACHER)) / (1 + weight)
    torch.testing.assert_close(loss, expected)
