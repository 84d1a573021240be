from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn
from torch.nn.utils import parametrize

from ofa.blocks import build_network
from ofa.cost import weight_bytes
from ofa.errors import ExportError, FileError
from ofa.exporting.onnx import export, to_model, verify_outputs
from ofa.exporting.precision import PRECISIONS, to_half
from ofa.families import get_space, lower, space_names
from ofa.opsets import IR_VERSION, NEWEST_OPSET, OLDEST_OPSET, OPSET, ir_version_for
from ofa.resolution import sides
from ofa.supernet import Supernet
from tests.ofa.strategies import OTHER_INPUTS, TINY_SPACES, space_of


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def with_statistics(network: nn.Module, seed: int = 3) -> nn.Module:
    """Give every batch norm statistics and weights that a wrong fold would not survive."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    with torch.no_grad():
                        tensor.uniform_(low, high, generator=generator)
    return network


def run(model: onnx.ModelProto, *x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {each.name: value.numpy() for each, value in zip(session.get_inputs(), x, strict=True)}
    return torch.from_numpy(session.run(None, inputs)[0])


def assert_same(network: nn.Module, shape: tuple[int, int, int, int]) -> onnx.ModelProto:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3
    model = to_model(network, shape)
    with torch.no_grad():
        expected = network.eval()(x.clone())
    actual = run(model, x)
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))
    return model


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# -- whole networks and their blocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*space_names(), *OTHER_INPUTS])
def test_networks_compute_the_same_in_onnx_runtime(name, tmp_path, generator):
    space = space_of(name)
    # The two smallest resolutions: among them are sizes that halve to odd numbers, where pools must round as PyTorch does.
    space = space.restrict(resolution=list(space.resolutions[:2]))
    rng = np.random.default_rng(11)
    for arch in {space.sample(rng), space.smallest(space.resolutions[-1]), *([space.sample(rng)] if "-tiny" in name else [])}:
        network = with_statistics(build_network(lower(space, arch)))
        shape = (2, space.in_channels, *sides(arch.resolution))
        export(network, shape, tmp_path / "network.onnx")
        assert verify_outputs(network, tmp_path / "network.onnx", shape, generator=generator) < 1e-4


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"])
def test_every_block_is_a_model_of_its_own(name, tmp_path, generator):
    space = get_space(name)
    for placed in set(lower(space, space.sample(np.random.default_rng(5)))):
        network = with_statistics(placed.block.build())
        channels, *sides = placed.input
        shape = (1, channels, *(min(side, 17) for side in sides))
        export(network, shape, tmp_path / "block.onnx")
        verify_outputs(network, tmp_path / "block.onnx", shape, generator=generator)
        model = onnx.load(tmp_path / "block.onnx")
        expected = network.eval()(torch.zeros(shape)).shape
        assert [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim] == list(expected)
        assert model.graph.output[0].name == ("logits" if len(expected) == 2 else "output")


@pytest.mark.parametrize("name", TINY_SPACES)
def test_a_subnet_of_views_gives_the_same_file_as_the_extracted_network(name):
    space = get_space(name)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0))
    arch = space.smallest()  # kernels are transformed, channels are slices
    shape = (1, 3, arch.resolution, arch.resolution)
    assert to_model(supernet.subnet(arch), shape).SerializeToString() == to_model(supernet.extract(arch), shape).SerializeToString()


@pytest.mark.parametrize("name", space_names())
def test_the_constants_are_the_weight_bytes_of_the_cost_model(name):
    space = get_space(name)
    lowered = lower(space, space.smallest(space.resolutions[0]))
    model = to_model(build_network(lowered), (1, 3, space.resolutions[0], space.resolutions[0]))
    # Numbers of operators, such as the limits of a ReLU6, have no dimensions.
    weights = [constant for constant in model.graph.initializer if constant.dims and constant.data_type == TensorProto.FLOAT]
    assert sum(len(constant.raw_data) for constant in weights) == weight_bytes(lowered)


# -- operations -------------------------------------------------------------------------------------------------------

OPERATIONS = {
    "conv": nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "conv with an uneven kernel": nn.Conv2d(6, 8, (1, 5), stride=(2, 1), padding=(0, 2), bias=False),
    "dilated conv": nn.Conv2d(6, 8, 3, padding=2, dilation=2),
    "grouped conv": nn.Conv2d(6, 9, 3, groups=3),
    "depthwise conv": nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "batch norm": nn.BatchNorm2d(6, eps=1e-3),
    "plain batch norm": nn.BatchNorm2d(6, affine=False),
    "folded batch norm": nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8, eps=1e-3)),
    "batch norm before a conv": nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3)),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(inplace=True),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "identity": nn.Identity(),
    "dropout": nn.Dropout(0.9),
    "avg pool": nn.AvgPool2d(2),
    "avg pool rounding up": nn.AvgPool2d(2, ceil_mode=True),
    "avg pool rounding up without padding": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
    "avg pool rounding up with padding": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    "max pool": nn.MaxPool2d(3, 2, padding=1),
    "max pool rounding up": nn.MaxPool2d(2, ceil_mode=True),
    "dilated max pool": nn.MaxPool2d(3, 1, dilation=2),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "classifier": nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 5)),
    "classifier without bias": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5, bias=False)),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [12, 13])
def test_each_operation(name, size):
    assert_same(with_statistics(OPERATIONS[name]), (2, 6, size, size + 2))


def test_batch_norm_behind_a_conv_is_folded_and_any_other_is_kept():
    folded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    assert kinds(to_model(folded, (1, 3, 8, 8))) == ["Conv", "Relu"]
    kept = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    assert kinds(to_model(kept, (1, 3, 8, 8))) == ["Conv", "Relu", "BatchNormalization"]


class Shared(nn.Module):
    """One convolution, read by a batch norm and twice more; nothing of it may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) * y + self.norm(self.conv(y))


def test_modules_that_are_called_twice_keep_their_own_weights():
    model = assert_same(with_statistics(Shared()), (1, 4, 6, 6))
    assert kinds(model).count("BatchNormalization") == 2
    assert len(model.graph.initializer) == 6


class InPlace(nn.Module):
    """Reads a value after a module has overwritten it."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        z = self.relu(y)
        return y * x + z


def test_overwritten_values_are_read_as_pytorch_reads_them():
    assert_same(InPlace(), (1, 4, 6, 6))


def test_parametrized_weights_are_written_as_they_compute():
    class Crop(nn.Module):
        def forward(self, weight):
            return 2 * weight[:, :, 1:-1, 1:-1]

    conv = nn.Conv2d(4, 4, 5, padding=1)
    parametrize.register_parametrization(conv, "weight", Crop(), unsafe=True)
    conv.kernel_size = (3, 3)
    assert_same(nn.Sequential(conv, nn.BatchNorm2d(4)), (1, 4, 8, 8))


# -- the file ---------------------------------------------------------------------------------------------------------


def small_network() -> nn.Sequential:
    space = get_space("ofa-mbv3-tiny")
    return build_network(lower(space, space.smallest()))


SHAPE = (1, 3, get_space("ofa-mbv3-tiny").smallest().resolution, get_space("ofa-mbv3-tiny").smallest().resolution)


def test_names_shapes_and_metadata():
    model = to_model(small_network(), SHAPE, metadata={"space": "ofa-mbv3-tiny", "classes": "zéro, un"})
    assert [each.name for each in model.graph.input] == ["images"]
    assert [each.name for each in model.graph.output] == ["logits"]
    assert {each.key: each.value for each in model.metadata_props} == {"space": "ofa-mbv3-tiny", "classes": "zéro, un"}
    assert model.producer_name == "ofa"
    names = [name for node in model.graph.node for name in node.output]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("opset", range(OPSET, NEWEST_OPSET + 1))
def test_every_opset_computes_the_same_bit_for_bit(opset):
    network = with_statistics(small_network()).eval()
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    model = to_model(network, SHAPE, opset=opset)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version_for(opset))
    assert kinds(model) == kinds(to_model(network, SHAPE))
    assert torch.equal(run(model, x), run(to_model(network, SHAPE), x))


@pytest.mark.parametrize("name", space_names())
def test_files_are_as_old_as_their_operators_allow(name):
    space = get_space(name)
    arch = space.smallest(resolution=space.resolutions[0])
    model = to_model(build_network(lower(space, arch)), (1, 3, arch.resolution, arch.resolution))
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION) == (14, 7)
    assert (to_half(model).opset_import[0].version, to_half(model).ir_version) == (OPSET, IR_VERSION)


def test_a_network_without_new_operators_can_be_older_still(tmp_path, generator):
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6()))
    export(network, (1, 3, 8, 8), tmp_path / "old.onnx", opset=OLDEST_OPSET)
    assert onnx.load(tmp_path / "old.onnx").opset_import[0].version == OLDEST_OPSET
    verify_outputs(network, tmp_path / "old.onnx", (1, 3, 8, 8), generator=generator)


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"opset": 13}, "HardSwish came with opset 14 and opset 13 is asked for"),
        ({"opset": OLDEST_OPSET - 1}, "within 11 and 21, but is 10"),
        ({"opset": NEWEST_OPSET + 1}, "within 11 and 21, but is 22"),
        ({"ir_version": 6}, "within 7 and"),
        ({"opset": 21, "ir_version": 9}, "opset 21 must be within 10 and"),
        ({"ir_version": 999}, "but is 999"),
    ],
)
def test_versions_that_cannot_be_written_are_one_sentence(versions, words):
    with pytest.raises(ExportError) as caught:
        to_model(small_network(), SHAPE, **versions)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_format_can_be_newer_than_it_must():
    assert to_model(small_network(), SHAPE, ir_version=9).ir_version == 9


def test_an_open_batch_runs_with_any_number_of_images(tmp_path, generator):
    network = small_network()
    path = tmp_path / "network.onnx"
    export(network, SHAPE, path, dynamic_batch=True)
    for batch in (1, 3):
        verify_outputs(network, path, (batch, *SHAPE[1:]), generator=generator)
    assert onnx.load(path).graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_equal_networks_give_equal_bytes():
    network = small_network()
    assert to_model(network, SHAPE).SerializeToString() == to_model(network, SHAPE).SerializeToString()


def test_the_network_stays_as_it_was(tmp_path, generator):
    network = with_statistics(small_network())
    network.train()
    network[1].eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    types = [type(module) for module in network.modules()]
    random_state = torch.get_rng_state()
    export(network, SHAPE, tmp_path / "network.onnx")
    verify_outputs(network, tmp_path / "network.onnx", SHAPE, generator=generator)
    assert [module.training for module in network.modules()] == modes
    assert [type(module) for module in network.modules()] == types
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_half_precision_keeps_its_interface_and_nearly_its_output(tmp_path, generator):
    network = with_statistics(small_network())
    half = to_half(to_model(network, SHAPE))
    onnx.save(half, tmp_path / "half.onnx")
    difference = verify_outputs(network, tmp_path / "half.onnx", SHAPE, generator=generator, tolerance=PRECISIONS.get("fp16").tolerance)
    assert difference > 1e-6
    assert half.ByteSize() < 0.6 * to_model(network, SHAPE).ByteSize()


# -- what cannot be -----------------------------------------------------------------------------------------------------


class ByValue(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Constant(nn.Module):
    def forward(self, x):
        return x + 1


class Alpha(nn.Module):
    def forward(self, x):
        return torch.add(x, x, alpha=2)


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) - x


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)), "Softmax at '1'"),
        (nn.Sequential(nn.ConvTranspose2d(3, 4, 1)), "ConvTranspose2d"),
        (ByValue(), "ByValue"),
        (Constant(), "two values"),
        (Alpha(), "alpha"),
        (nn.Sequential(OwnConv(3, 3, 1)), "conv2d"),
        (Pair(), "output"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "zero padding"),
        (nn.Conv2d(3, 4, 3, padding="same"), "numbers"),
        (nn.AdaptiveAvgPool2d(2), "global"),
        (nn.AvgPool2d(2, divisor_override=3), "window"),
        (nn.MaxPool2d(2, return_indices=True), "values only"),
        (nn.Flatten(2), "batch"),
        (nn.BatchNorm2d(3, track_running_stats=False), "running statistics"),
        (nn.Sequential(nn.Flatten(), nn.Conv2d(3, 4, 3)), "shape"),
    ],
)
def test_what_cannot_be_exported_is_named(network, words, tmp_path, monkeypatch):
    monkeypatch.setattr("ofa.exporting.torch_export.find_spec", lambda _: None)  # the extra, which would write some of these
    with pytest.raises(ExportError, match=words):
        export(network, (1, 3, 8, 8), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_network_is_found(tmp_path, generator):
    network = with_statistics(small_network())
    path = tmp_path / "network.onnx"
    export(network, SHAPE, path)
    with pytest.raises(ExportError, match="differs by"):
        verify_outputs(with_statistics(small_network(), seed=4), path, SHAPE, generator=generator)
    with pytest.raises(ExportError, match="shape"):
        verify_outputs(network[:2], path, SHAPE, generator=generator)
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"network\.onnx' must be an ONNX file"):
        verify_outputs(network, path, SHAPE, generator=generator)


def test_float32_is_verified_as_float32_and_not_as_tf32(tmp_path, generator):
    network, seen = small_network(), []
    export(network, SHAPE, tmp_path / "a.onnx")
    network.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        verify_outputs(network, tmp_path / "a.onnx", SHAPE, generator=generator)
        assert torch.backends.cudnn.allow_tf32
    assert seen == [False]


def test_an_unwritable_place_is_one_sentence(tmp_path):
    with pytest.raises(FileError, match="must be writable"):
        export(small_network(), SHAPE, tmp_path / "absent" / "network.onnx")
