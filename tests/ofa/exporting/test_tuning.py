"""Tuning in int8: torch rounds as the file does, and trained weights lose less where rounding alone loses too much."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
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
LAYERWISE = Quantization(per_channel=False)
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
    with pytest.raises(ExportError, match=r"must be of operators that torch computes here, but .* is Det; leave tuning out"):
        FakeQuantized(model, model)


# -- tuning ------------------------------------------------------------------------------------------------------------


def stretched(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same network with channels whose values lie apart by up to a factor: one scale for all of them is good for none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {each.name: each for each in copy.graph.initializer}
    convolutions = [node for node in copy.graph.node if node.op_type == "Conv"]
    rng = np.random.default_rng(0)
    for first, second in pairwise(convolutions):
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

    def tuning(self, seed: int = 0, epochs: int = 8) -> Tuning:
        generator = torch.Generator().manual_seed(seed)
        return Tuning(data=self.train, learning_rate=3e-5, batch_size=32, epochs=epochs, generator=generator)

    def quantized(self, most_loss: float, **more: Any) -> Quantized:
        return best_quantized(self.model, self.fitting, self.score, ways=[LAYERWISE], most_loss=most_loss, **more)


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
    return Case(stretched(model, 400), train, given, judging)


def test_tuned_weights_lose_less(case: Case) -> None:
    before, loss = case.quantized(1.0), 0.085
    assert before.best.score < before.float_score - 2 * loss
    told = list[str]()
    after = case.quantized(loss, tuning=case.tuning(), progress=lambda done, total, text="": told.append(text))
    assert after.best.score >= after.float_score - loss
    assert (after.best.tuned_epochs, after.best.floats) == (8, ())
    assert [each.tuned_epochs for each in after.tried][:2] == [0, 0]  # first rounding alone, and layers in floats
    assert after.tried[1].floats
    assert after.best.to_json()["tuned_epochs"] == 8
    assert any("tuning the weights in int8, loss" in text for text in told)
    assert case.score(after.model) == after.best.score
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in after.model.graph.node}


def test_nothing_is_tuned_where_rounding_loses_little(case: Case) -> None:
    tuning = case.tuning()
    state = tuning.generator.get_state()
    found = case.quantized(0.5, tuning=tuning)
    assert found.to_json() == case.quantized(0.5).to_json()
    assert torch.equal(tuning.generator.get_state(), state)


def test_a_refusal_names_what_is_left_to_try(case: Case) -> None:
    words = r"at most -1.0% of its score, but .* with \d of 4 layers in float32"
    with pytest.raises(ExportError, match=words + r"; tune its weights on training images \(tuning_data, --tune-data\), allow more, or"):
        case.quantized(-0.01)
    with pytest.raises(ExportError, match=words + r".*; allow more, or ship it in float32"):
        case.quantized(-0.01, tuning=case.tuning(epochs=1))


def test_the_generator_decides_and_the_model_stays(case: Case) -> None:
    quantized, before = quantize(case.model, case.fitting, LAYERWISE), case.model.SerializeToString()
    first, again, other = (case.tuning(seed, epochs=1).tune(case.model, quantized) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert case.model.SerializeToString() == before
    assert [each.dims for each in first.graph.initializer] == [each.dims for each in case.model.graph.initializer]


@pytest.mark.parametrize(
    ("count", "epochs", "words"), [(31, 1, "at least 32 images, but there are 31"), (32, 0, "at least 1 epoch, but epochs is 0")]
)
def test_what_cannot_be_tuned_on_is_refused(case: Case, count: int, epochs: int, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        tuning_on(case.train.subset(torch.arange(count)), epochs=epochs, seed=0)
    assert tuning_on(None, epochs=epochs, seed=0) is None
