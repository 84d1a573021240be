"""Batch norm folded into an expanding convolution: what the convolution and the batch norm give one after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ofa import folded
from ofa.arch import Arch
from ofa.blocks import build_network
from ofa.calibrate import calibrate
from ofa.conv_norm_act import ConvNormAct
from ofa.data import ImageData
from ofa.families import get_space, lower
from ofa.supernet import Supernet
from ofa.synchronized import SynchronizedBatchNorm

ACTIVATIONS = [None, nn.ReLU, nn.ReLU6, nn.Hardswish]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def in_a_row(conv: nn.Module, norm: nn.Module, activation: nn.Module | None) -> ConvNormAct:
    parts = OrderedDict(conv=conv, norm=norm)
    return ConvNormAct(parts if activation is None else OrderedDict(**parts, activation=activation))


def layer(inputs: int, outputs: int, activation: type[nn.Module] | None = nn.ReLU, **norm: float) -> ConvNormAct:
    """A layer in double precision whose every number is random."""
    parts = in_a_row(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, **norm), None if activation is None else activation()
    ).double()
    source = generator()
    with torch.no_grad():
        for values in (*parts.parameters(), parts.norm.running_mean):
            values.copy_(torch.randn(values.shape, generator=source))
        parts.norm.running_var.copy_(torch.rand(outputs, generator=source) + 0.5)
    return parts


def images(batch: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    values = torch.randn(batch, channels, height, width, generator=generator(), dtype=torch.float64) * 3 + 1
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def outcome(parts: nn.Module, x_BCHW: Tensor) -> dict[str, Tensor]:
    """Everything that a training pass leaves behind."""
    x_BCHW = x_BCHW.detach().requires_grad_()
    parts.zero_grad()
    y_BCHW = parts(x_BCHW)
    (y_BCHW * torch.linspace(-1, 2, y_BCHW.numel(), dtype=y_BCHW.dtype).view(y_BCHW.shape)).sum().backward()
    gradients = {f"gradient of {name}": value.grad.clone() for name, value in parts.named_parameters()}
    return {"output": y_BCHW.detach(), "gradient of x": x_BCHW.grad, **gradients, **{n: b.clone() for n, b in parts.named_buffers()}}


@contextmanager
def always(patch: pytest.MonkeyPatch, fold: bool = True) -> Iterator[None]:
    """Fold wherever it can be done, or nowhere, instead of where it is faster."""
    with patch.context() as context:
        context.setattr(folded, "is_faster", lambda *_: fold)
        yield


def folds(y_BCHW: Tensor) -> bool:
    return "FoldedNorm" in type(y_BCHW.grad_fn).__name__


@given(
    activation=st.sampled_from(ACTIVATIONS),
    batch=st.integers(1, 4),
    side=st.tuples(st.integers(2, 9), st.integers(1, 9)),
    inputs=st.integers(1, 8),
    outputs=st.integers(1, 40),
    momentum=st.sampled_from([0.1, 0.7, 1.0]),
    eps=st.sampled_from([1e-5, 1e-3]),
    block_values=st.sampled_from([1, 50, 2**18]),
)
def test_all_is_as_one_after_the_other(
    activation: type[nn.Module] | None,
    batch: int,
    side: tuple[int, int],
    inputs: int,
    outputs: int,
    momentum: float,
    eps: float,
    block_values: int,
) -> None:
    x_BCHW = images(batch, inputs, *side)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folded, "_BLOCK_VALUES", block_values)
        for fold in (True, False):
            with always(patch, fold):
                parts = layer(inputs, outputs, activation, momentum=momentum, eps=eps)
                outcome(parts, x_BCHW)
                results.append(outcome(parts, x_BCHW))
    ours, plain = results
    assert ours.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-8, atol=1e-8 * max(1.0, float(plain[name].abs().max())), msg=name)
    assert ours["norm.num_batches_tracked"] == 2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_the_values(activation: type[nn.Module] | None) -> None:
    parts = layer(3, 5, activation)

    def values(x_BCHW: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        arguments = (x_BCHW, weight, scale, shift, 1e-5, activation or nn.Identity)
        return folded._FoldedNorm.apply(*arguments)[0]  # type: ignore[no-untyped-call,no-any-return]

    inputs = (images(2, 3, 3, 2), parts.conv.weight, parts.norm.weight, parts.norm.bias)
    assert torch.autograd.gradcheck(values, tuple(value.detach().requires_grad_() for value in inputs))


def test_an_image_that_needs_no_gradient_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, x_BCHW = layer(3, 12), images(2, 3, 4, 4)
    with always(monkeypatch):
        parts(x_BCHW).sum().backward()
    assert x_BCHW.grad is None
    assert parts.conv.weight.grad is not None


def error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("case", "most"),
    # Where inputs are nearly copies of each other, some outputs are small differences of large values: the module names that limit.
    [("plain", 2e-6), ("large mean", 2e-6), ("dead inputs", 2e-6), ("dead outputs", 2e-6), ("alike inputs", 1e-3)],
)
def test_float32_is_about_as_exact_as_one_after_the_other(case: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x_BCHW, exact = images(8, 16, 16, 16), layer(16, 96)
    with torch.no_grad():
        if case == "large mean":
            x_BCHW[:, ::2] = x_BCHW[:, ::2] * 0.01 + 100
        elif case == "dead inputs":
            x_BCHW[:, 1:] = x_BCHW[:, 1:] * 1e-6 + 1
            exact.conv.weight[:, 0] = 0
        elif case == "dead outputs":
            exact.conv.weight[::3] *= 1e-6
        elif case == "alike inputs":
            x_BCHW[:, 1:] = x_BCHW[:, :1] + 0.01 * x_BCHW[:, 1:]
    x_BCHW = x_BCHW.float()
    results = {}
    with always(monkeypatch, False):
        results["exact"] = outcome(exact.float().double(), x_BCHW.double())
    for fold in (True, False):
        parts = layer(16, 96).float()
        parts.conv.load_state_dict(exact.conv.state_dict())
        with always(monkeypatch, fold):
            results[fold] = outcome(parts, x_BCHW)
    for name, reference in results["exact"].items():
        if name != "norm.num_batches_tracked":
            assert error(results[True][name], reference) < 5 * error(results[False][name], reference) + most, name


def test_it_is_folded_only_where_it_can_be_and_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    large, x_BCHW = layer(16, 96).float(), images(16, 16, 40, 40, torch.float32)
    assert folds(large(x_BCHW))
    assert not folds(large(x_BCHW[:1]))
    assert not folds(layer(96, 16).float()(images(16, 96, 40, 40, torch.float32)))
    with always(monkeypatch):
        assert not folds(large(x_BCHW.contiguous()))
        with torch.autocast("cpu", torch.bfloat16):
            assert not folds(large(x_BCHW))
        for kernel, stride, groups, bias in ((3, 1, 1, False), (1, 2, 1, False), (1, 1, 2, False), (1, 1, 1, True)):
            conv = nn.Conv2d(4, 8, kernel, stride, kernel // 2, groups=groups, bias=bias)
            assert not folds(in_a_row(conv, nn.BatchNorm2d(8), None)(images(2, 4, 4, 4, torch.float32)))
        for norm in (nn.BatchNorm2d(8, momentum=None), nn.BatchNorm2d(8, affine=False), SynchronizedBatchNorm(8)):
            assert not folds(in_a_row(nn.Conv2d(4, 8, 1, bias=False), norm, None)(images(2, 4, 4, 4, torch.float32)))
        other = in_a_row(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Sigmoid())
        assert not folds(other(images(2, 4, 4, 4, torch.float32)))


@pytest.mark.parametrize("part", ["conv", "norm", "activation"])
def test_who_watches_a_part_is_told(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, seen = layer(3, 12), []
    handle = parts.get_submodule(part).register_forward_pre_hook(lambda module, _: seen.append(module))
    with always(monkeypatch):
        parts(images(2, 3, 4, 4))
        assert seen == [parts.get_submodule(part)]
        handle.remove()
        assert folds(parts(images(2, 3, 4, 4)))


def test_evaluation_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = layer(3, 12).eval()
    plain = nn.Sequential(parts.conv, parts.norm, parts.activation)
    x_BCHW, before = images(2, 3, 4, 4), parts.norm.running_mean.clone()
    with always(monkeypatch):
        assert torch.equal(parts(x_BCHW), plain(x_BCHW))
    assert torch.equal(parts.norm.running_mean, before)


def test_without_gradients_the_statistics_still_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain, x_BCHW = layer(3, 12), layer(3, 12), images(2, 3, 4, 4)
    with torch.no_grad():
        with always(monkeypatch):
            y_BCHW = ours(x_BCHW)
        with always(monkeypatch, False):
            torch.testing.assert_close(y_BCHW, plain(x_BCHW))
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_calibration_gives_the_same_whether_folded_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    space = get_space("ofa-mbv3-tiny")
    data = ImageData(
        images=torch.randint(0, 256, (24, 3, 8, 8), generator=generator(), dtype=torch.uint8),
        labels=torch.arange(24) % 2,
        class_names=("a", "b"),
    )
    networks = []
    for fold in (True, False):
        network = build_network(lower(space, space.largest()), generator=generator()).train()
        with always(monkeypatch, fold):
            calibrate(network, data, resolution=space.largest().resolution)
        networks.append(network)
    for ours, plain in zip(*(network.buffers() for network in networks), strict=True):
        assert torch.equal(ours, plain)


def some_archs(space_name: str) -> list[Arch]:
    space, rng = get_space(space_name), np.random.default_rng(3)
    return [space.largest(), *(space.sample(rng) for _ in range(2))]


@pytest.mark.parametrize("space_name", ["ofa-mbv3-tiny", "ofa-proxyless-tiny", "ofa-resnet50-tiny"])
def test_subnets_gather_the_same_gradients_and_statistics(space_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for fold in (True, False):
        supernet = Supernet(get_space(space_name), generator=generator()).double().train()
        with always(monkeypatch, fold):
            for arch in some_archs(space_name):
                network = supernet.subnet(arch)
                logits = network(images(4, 3, arch.resolution, arch.resolution))
                (logits**2).mean().backward()
        results.append((supernet.flat_gradient, supernet.statistics))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-7, atol=1e-9 * float(plain.abs().max()))


def test_names_in_files_stay_those_of_three_parts() -> None:
    names = ["conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert list(layer(3, 12).state_dict()) == names
    assert [name for name, _ in layer(3, 12).named_children()] == ["conv", "norm", "activation"]
    assert [name for name, _ in layer(3, 12, None).named_children()] == ["conv", "norm"]
