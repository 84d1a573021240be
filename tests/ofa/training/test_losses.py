from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ofa.tasks import CLASSIFICATION
from ofa.tasks.divergence import alpha_divergence
from ofa.training.losses import training_loss

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.0]])
TEACHER = torch.tensor([[3.0, -1.0, 0.0], [0.0, 2.0, 0.0]])
LABELS = torch.tensor([0, 1])


def test_soft_targets_are_the_teachers_probabilities() -> None:
    expected = -(TEACHER.softmax(1) * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(CLASSIFICATION.distillation_loss(LOGITS, TEACHER, "kl"), expected)


def test_the_gradient_vanishes_where_the_student_equals_the_teacher() -> None:
    student, teacher = TEACHER.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    CLASSIFICATION.distillation_loss(student, teacher, "kl").backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6
    assert teacher.grad is None


def test_without_a_teacher_it_is_smoothed_cross_entropy() -> None:
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert torch.equal(training_loss(LOGITS, LABELS, label_smoothing=0.1), expected)
    assert torch.equal(training_loss(LOGITS, LABELS, label_smoothing=0.1, teacher_outputs=TEACHER), expected)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_labels_and_teacher_are_averaged_by_their_weights(weight: float) -> None:
    loss = training_loss(LOGITS, LABELS, label_smoothing=0.0, teacher_outputs=TEACHER, distillation_weight=weight)
    expected = (F.cross_entropy(LOGITS, LABELS) + weight * CLASSIFICATION.distillation_loss(LOGITS, TEACHER, "kl")) / (1 + weight)
    torch.testing.assert_close(loss, expected)


# -- the alpha-divergence ---------------------------------------------------------------------------------------------


def test_at_alpha_one_without_clipping_it_is_the_kullback_leibler_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    loss = alpha_divergence(student, teacher, alpha_min=1.0, alpha_max=1.0, clip=1e9)
    expected = torch.nn.functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.5, 1.0, 2.0])
def test_its_gradient_is_that_of_its_value_where_nothing_is_clipped(alpha: float) -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(4, 5, generator=generator, dtype=torch.float64) for _ in range(2))

    def value(logits: torch.Tensor) -> torch.Tensor:
        return alpha_divergence(logits, teacher, alpha_min=alpha, alpha_max=alpha, clip=1e12)

    student.requires_grad_()
    (gradient,) = torch.autograd.grad(value(student), student)
    numeric = torch.zeros_like(gradient)
    for place in range(student.numel()):
        step = torch.zeros(student.numel(), dtype=torch.float64)
        step[place] = 1e-6
        up, down = (value(student.detach() + sign * step.view_as(student)) for sign in (1, -1))
        numeric.view(-1)[place] = (up - down) / 2e-6
    torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-8)


def test_between_equal_answers_it_is_zero_with_no_gradient() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    loss = alpha_divergence(logits, logits.detach())
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-7


def test_an_answer_that_could_not_be_more_wrong_has_a_bounded_gradient() -> None:
    student = torch.tensor([[60.0, -60.0]], requires_grad=True)
    loss = alpha_divergence(student, torch.tensor([[-60.0, 60.0]]))
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() <= 5


def test_it_punishes_both_kinds_of_error_as_hard_as_the_harder() -> None:
    teacher = torch.tensor([[2.0, 0.0, -2.0]])
    for student in (torch.tensor([[5.0, 0.0, -5.0]]), torch.tensor([[0.5, 0.0, -0.5]])):
        both = alpha_divergence(student, teacher)
        sure = alpha_divergence(student, teacher, alpha_min=-1.0, alpha_max=-1.0)
        missed = alpha_divergence(student, teacher, alpha_min=1.0, alpha_max=1.0)
        assert float(both) == pytest.approx(max(float(sure), float(missed)))


def test_an_infinite_weight_leaves_the_labels_out() -> None:
    logits, teacher = torch.randn(4, 5), torch.randn(4, 5)
    one, other = (
        training_loss(logits, labels, label_smoothing=0.1, teacher_outputs=teacher, distillation_weight=float("inf"))
        for labels in (torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64))
    )
    assert torch.equal(one, other)
    torch.testing.assert_close(one, CLASSIFICATION.distillation_loss(logits, teacher, "kl"))


def test_mixed_labels_are_probabilities() -> None:
    logits, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    plain = training_loss(logits, labels, label_smoothing=0.1)
    mixed = training_loss(logits, torch.nn.functional.one_hot(labels, 5).float(), label_smoothing=0.1)
    torch.testing.assert_close(plain, mixed)
