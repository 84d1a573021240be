"""Tuning in int8: torch rounds as the file does, and trained weights lose less where rounding alone loses too much."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from ofa.data import Images, batches, load_data
from ofa.errors import ExportError
from ofa.exporting.onnx import to_model
from ofa.exporting.quantization.bundles import FileNetwork
from ofa.exporting.quantization.choosing import Quantized, best_quantized, outputs_of
from ofa.exporting.quantization.fake import FakeQuantized
from ofa.exporting.quantization.floats import in_floats, layers_of
from ofa.exporting.quantization.static import Quantization, quantize
from ofa.exporting.quantization.tuning import Tuning, tuning_on
from ofa.training.evaluation import evaluate
from ofa.training.single import FineTuning, train_network
from tests.ofa.exporting.test_quantization import exported, images
from tests.ofa.strategies import TINY_SPACES

WAYS = (Quantization(), Quantization(per_channel=False, clipping="percentile"), Quantization(signed=True, reduce_range=True))
SIDE = 16


def difference(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    return float(np.abs(found - wanted).mean() / np.abs(wanted).mean())


def outputs_of_torch(network: nn.Module, given: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.concatenate([network(torch.from_numpy(each)).numpy() for each in given])


# -- rounding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_SPACES)
def test_torch_computes_what_the_file_does(name: str) -> None:
    model = exported(name, dynamic_batch=True)
    given = images(4, [each.dim_value or 1 for each in model.graph.input[0].type.tensor_type.shape.dim])
    for how in WAYS:
        file = quantize(model, given, how)
        for quantized in (file, in_floats(file, model, layers_of(model)[::2])):
            wanted = outputs_of(quantized, given)
            # Of both some value may be rounded up that the other rounds down.
            assert difference(outputs_of_torch(FakeQuantized(quantized, model), given), wanted) < 0.015
            assert difference(outputs_of(model, given), wanted) > 0.001


def test_a_model_in_floats_is_computed_as_it_is_and_given_back() -> None:
    model = exported()
    network = FakeQuantized(model, model)
    assert difference(outputs_of_torch(network, images()), outputs_of(model, images())) < 1e-5
    assert network.trained() == model


def test_scales_follow_weights_as_the_quantizer_would_choose_them() -> None:
    model = exported()
    network = FakeQuantized(quantize(model, images(), Quantization()), model)
    with torch.no_grad():
        for weight in network.weights:
            weight.mul_(torch.linspace(0.5, 1.5, len(weight)).view(-1, *[1] * (weight.ndim - 1)))
    trained = network.trained()
    again = FakeQuantized(quantize(trained, images(), Quantization()), trained)
    rounded = [number for number, each in enumerate(network.rounding) if not isinstance(each, nn.Identity)]
    assert len(rounded) == len(layers_of(model))
    for number in rounded:
        weight = network.weights[number]
        torch.testing.assert_close(network.rounding[number](weight), again.rounding[number](weight), rtol=1e-5, atol=1e-7)


def test_an_operator_that_torch_does_not_compute_here_is_named() -> None:
    model = exported()
    model.graph.node[3].op_type = "Det"
    with pytest.raises(ExportError, match="must be of operators that torch computes here, but .* is Det; leave tuning out"):
        FakeQuantized(model, model)


# -- tuning ------------------------------------------------------------------------------------------------------------


def stretched(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same network with channels whose values lie apart by up to a factor: one scale for all of them is good for none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {each.name: each for each in copy.graph.initializer}
    convolutions = [node for node in copy.graph.node if node.op_type == "Conv"]
    rng = np.random.default_rng(0)
    for first, second in zip(convolutions, convolutions[1:], strict=False):
        weight, bias, after = (numpy_helper.to_array(constants[name]) for name in (*first.input[1:], second.input[1]))
        by = np.exp(rng.uniform(0, np.log(factor), len(weight))).astype(np.float32)
        changed = weight * by[:, None, None, None], bias * by, after / by[None, :, None, None]
        for name, array in zip((*first.input[1:], second.input[1]), changed, strict=True):
            constants[name].CopyFrom(numpy_helper.from_array(array, name))
    return copy


@dataclasses.dataclass(frozen=True)
class Case:
    """A network that loses much in int8, and its images."""

    model: onnx.ModelProto
    train: Images
    fitting: list[np.ndarray[Any, Any]]
    judging: Images

    def score(self, file: onnx.ModelProto) -> float:
        return evaluate(FileNetwork(file), self.judging, resolution=SIDE)

    def quantized(self, most_loss: float, epochs: int = 0, seed: int = 0, **more: Any) -> Quantized:
        tuning = tuning_on(self.train if epochs else None, epochs=epochs, seed=seed)
        return best_quantized(self.model, self.fitting, self.score, ways=[Quantization()], most_loss=most_loss, tuning=tuning, **more)


@pytest.fixture(scope="module")
def case() -> Case:
    data = load_data("digits")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    train, fitting, judging = (data.subset(part) for part in (order[:1000], order[1000:1064], order[1064:]))
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, generator=generator)
            else:
                weight.zero_()
    train_network(network, train, resolution=SIDE, epochs=8, generator=generator, settings=FineTuning(learning_rate=0.05))
    given = [x.contiguous().numpy() for x, _ in batches(fitting, batch_size=1, resolution=SIDE)]
    model = to_model(network.eval(), (1, 3, SIDE, SIDE), dynamic_batch=True)
    return Case(stretched(model, 1000), train, given, judging)


def test_tuned_weights_lose_less(case: Case) -> None:
    before = best_quantized(case.model, case.fitting, case.score, ways=[Quantization()], most_loss=1.0)
    tuning = Tuning(data=case.train, epochs=2, generator=torch.Generator().manual_seed(0))
    trained = tuning.tune(case.model, before.model)
    after = case.score(quantize(trained, case.fitting, Quantization()))
    print("SCORES", before.float_score, before.best.score, after, case.score(trained))
    assert before.best.score < before.float_score - 0.1
    assert after > before.best.score + 0.05
