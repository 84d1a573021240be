"""An adopted model is a space of its parts; the same contract holds for every architecture (tests/zoo has many)."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from ofa.adopting.adoption import adopt_model
from ofa.errors import SpaceError
from tests.ofa.adopting.contract import Contract, randomized
from tests.ofa.adopting.models import MODELS, SIDE, Fixed


@pytest.mark.parametrize("name", ["residual", "depthwise", "dense", "fused attention", "torch's attention", "windows"])
def test_subnets_are_parts_of_the_model(name: str) -> None:
    contract = Contract(randomized(MODELS[name]()), (3, SIDE, SIDE))
    contract.check()
    assert contract.adoption.elastic_share >= 0.95


def test_a_weight_that_is_standardized_in_the_forward_is_elastic() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight.reshape(1, self.out_channels, -1)
            scaled = nn.functional.batch_norm(weight, None, None, training=True, momentum=0.0)
            return nn.functional.conv2d(x, scaled.reshape_as(self.weight), self.bias, padding="same")

    model = nn.Sequential(Standardized(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * SIDE * SIDE, 5))
    contract = Contract(randomized(model), (3, SIDE, SIDE))
    contract.check()
    assert any(member.tensor == "0.weight" for group in contract.adoption.groups.values() for member in group.members)


# -- what cannot be adopted -------------------------------------------------------------------------------------------


class _Rows(nn.Module):
    """Logits of all pixels, which a forward of one's own makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class _Pair(_Rows):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x, x


class _Image(_Rows):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Decides(_Rows):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.sum() > 0 else -y


class _Counts(_Rows):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(len(x), -1)


class _Batch(_Rows):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(8, -1)


class _Locked(_Rows):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_Pair(), "must give one tensor.*gives tuple; wrap it"),
        (_Image(), r"logits \[B, classes\].*4 dimensions; wrap it"),
        (_Decides(), r"values of tensors.*test_adoption.py:\d+: return y if y.sum\(\) > 0 else -y\); take"),
        (_Counts(), r"any number of images.*reshape\(len\(x\), -1\)"),
        (_Batch(), r"a row of logits for each image, but of 3 images this one gives 8 rows"),
        (nn.Linear(7, 2), "must run on its example.*it fails: RuntimeError: mat1 and mat2.*; correct the example"),
        (
            nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten()),
            "it fails: RuntimeError: .*to have 1 channels, but got 3 channels instead; correct",
        ),
        (_Rows().half(), "weights in float32, but conv.weight is in float16; call model.float"),
        (_Locked(), "copy.deepcopy.*TypeError"),
        (Fixed(), r"nothing is elastic: dimension 0 of stem.weight.*models.py:\d+"),
    ],
)
def test_models_that_cannot_be_adopted_are_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        adopt_model(model, (3, SIDE, SIDE))


@pytest.mark.parametrize("image", [(3, SIDE), (3, 0, SIDE)])
def test_an_example_must_be_channels_height_and_width(image: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="channels, height and width"):
        adopt_model(_Rows(), image)


def test_a_model_with_a_shape_of_its_own_is_refused_with_its_line() -> None:
    class Wrong(_Rows):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.zeros(7))

    with pytest.raises(SpaceError, match=r"it fails \(test_adoption.py:\d+: return super\(\).forward\(x \+ torch.zeros\(7\)\)\)"):
        adopt_model(Wrong(), (3, SIDE, SIDE))
