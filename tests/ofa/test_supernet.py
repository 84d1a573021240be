"""The supernet: subnets are views, gradients add up in the store, extraction is exact, channels can be re-ordered."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.func import functional_call

from ofa.arch import Arch
from ofa.errors import ArchError
from ofa.families import get_space
from ofa.space import Space
from ofa.supernet import Supernet
from tests.ofa.strategies import ALL_SPACES, OTHER_INPUTS, TINY_SPACES, archs_of, images, randomized, shared_supernet, space_of

Store = dict[str, torch.Tensor]


def fresh(name: str, dtype: torch.dtype = torch.float32) -> Supernet:
    return randomized(Supernet(space_of(name), generator=torch.Generator().manual_seed(0))).to(dtype)


def sliced(store: Store, network: nn.Module) -> Store:
    """What each tensor of ``network`` is in the store, by differentiable slicing: leading channels, centre of the kernel, matrices;
    positions of another image are interpolated.

    Written from the paper (Cai et al. 2020, section 3.3) and the target's shape alone, not from the code under test.
    """
    tensors = {}
    for name, target in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        full = store[name][channels_of(target)]
        if target.dim() == 3:
            full = nn.functional.interpolate(full[None], size=target.shape[1:], mode="bilinear", align_corners=False)[0]
        while full.dim() == 4 and full.shape[-1] > target.shape[-1]:
            large = full.shape[-1]
            centre = full[..., 1:-1, 1:-1]
            full = (centre.flatten(2) @ store[f"{name}_{large}to{large - 2}"].T).view_as(centre)
        tensors[name] = full
    return tensors


def channels_of(tensor: torch.Tensor) -> tuple[slice, ...]:
    """The slices of the leading channels: of outputs and inputs, but of positions [channels, rows, columns] of the first axis alone."""
    return tuple(slice(0, length) for length in tensor.shape[: 1 if tensor.dim() == 3 else 2])


# -- views ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(archs_of((*TINY_SPACES, *OTHER_INPUTS, "ofa-mbv3-32px")))
def test_a_subnet_and_its_extract_compute_the_same_bits(case: tuple[Space, Arch]) -> None:
    space, arch = case
    supernet = shared_supernet(space.name).eval()
    with torch.no_grad():
        for x_BCHW in (images(arch), images(arch).contiguous(memory_format=torch.channels_last)):
            assert torch.equal(supernet.subnet(arch)(x_BCHW), supernet.extract(arch)(x_BCHW))


@pytest.mark.parametrize("name", [name for name in ALL_SPACES if name not in TINY_SPACES])
def test_large_spaces_extract_the_same_bits_too(name: str) -> None:
    space = get_space(name)
    supernet = Supernet(space, generator=torch.Generator().manual_seed(0)).eval()
    x_BCHW = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    for arch in (space.smallest(), space.sample(rng), space.sample(rng)):
        with torch.no_grad():
            assert torch.equal(supernet.subnet(arch)(x_BCHW), supernet.extract(arch)(x_BCHW))


@pytest.mark.parametrize("name", TINY_SPACES)
def test_the_largest_subnet_is_the_store(name: str) -> None:
    supernet = fresh(name)
    stored = supernet.named_tensors()
    largest = dict(supernet.subnet(supernet.space.largest()).state_dict(keep_vars=True))
    for key, tensor in largest.items():
        if "num_batches" not in key:
            assert tensor.data_ptr() == stored[key].data_ptr()
            assert tensor.shape == stored[key].shape
    assert {key for key in stored if "to" not in key.rsplit("_", 1)[-1]} == {key for key in largest if "num_batches" not in key}


@settings(max_examples=20)
@given(archs_of((*TINY_SPACES, *OTHER_INPUTS)))
def test_a_subnet_is_the_slice_that_the_paper_describes(case: tuple[Space, Arch]) -> None:
    space, arch = case
    supernet = shared_supernet(space.name).eval()
    network, x_BCHW = supernet.extract(arch), images(arch)
    with torch.no_grad():
        expected = functional_call(network, sliced(supernet.named_tensors(), network), (x_BCHW,))
        torch.testing.assert_close(supernet.subnet(arch)(x_BCHW), expected, rtol=1e-5, atol=1e-5)


def test_an_extract_shares_nothing_and_has_no_parametrization() -> None:
    supernet = fresh("ofa-mbv3-tiny").eval()
    arch = supernet.space.smallest()
    network, x_BCHW = supernet.extract(arch), images(arch)
    before = network(x_BCHW)
    with torch.no_grad():
        for tensor in supernet.named_tensors().values():
            tensor.zero_()
    assert torch.equal(network(x_BCHW), before)
    assert not any("parametrizations" in name for name, _ in network.named_parameters())


def test_training_a_subnet_updates_the_statistics_of_the_store() -> None:
    supernet = fresh("ofa-mbv3-tiny").train()
    arch = supernet.space.smallest()
    before = supernet.statistics.clone()
    supernet.subnet(arch)(images(arch))
    network = supernet.extract(arch)
    assert not torch.equal(before, supernet.statistics)
    name = "stages.0.0.project.norm.running_mean"
    assert torch.equal(network.state_dict()[name], supernet.named_tensors()[name])


def test_blocks_are_built_once() -> None:
    supernet = fresh("ofa-mbv3-tiny")
    space = supernet.space
    one, other = supernet.subnet(space.largest()), supernet.subnet(space.largest(resolution=16))
    for first, second in zip(one.modules(), other.modules(), strict=True):
        # Only the containers of a network are its own: those of blocks are shared.
        assert first is second or type(first) is nn.Sequential


def test_subnets_follow_the_mode_of_the_supernet() -> None:
    supernet = fresh("ofa-mbv3-tiny")
    arch = supernet.space.smallest()
    assert all(module.training for module in supernet.train().subnet(arch).modules())
    assert not any(module.training for module in supernet.eval().subnet(arch).modules())
    assert not any(module.training for module in supernet.extract(arch).modules())


def test_an_arch_of_another_space_is_refused() -> None:
    supernet = fresh("ofa-mbv3-tiny")
    for use in (supernet.subnet, supernet.extract):
        with pytest.raises(ArchError, match="an arch must name its space"):
            use(get_space("ofa-proxyless-tiny").smallest())


# -- gradients --------------------------------------------------------------------------------------------------------


def backward(supernet: Supernet, archs: list[Arch]) -> None:
    for seed, arch in enumerate(archs):
        loss = supernet.subnet(arch)(images(arch, batch=4, seed=seed, dtype=supernet.decayed.dtype)).square().mean()
        loss.backward()


def gradients(supernet: Supernet) -> Store:
    """The store's gradient by the names of its tensors."""
    assert supernet.decayed.grad is not None
    assert supernet.undecayed.grad is not None
    flats = {"decayed": supernet.decayed.grad, "undecayed": supernet.undecayed.grad}
    offsets = {name: (t.data_ptr(), t.shape) for name, t in supernet.named_tensors().items()}
    found = {}
    for name, (address, shape) in offsets.items():
        for kind, flat in flats.items():
            parameter = getattr(supernet, kind)
            start = (address - parameter.data_ptr()) // parameter.element_size()
            if 0 <= start < flat.numel():
                found[name] = flat[start : start + math.prod(shape)].view(shape)
    return found


def gradients_by_slicing(supernet: Supernet, archs: list[Arch]) -> Store:
    """The same from differentiable slicing of copies of the store."""
    copies = {name: tensor.clone().requires_grad_() for name, tensor in supernet.named_tensors().items()}
    for seed, arch in enumerate(archs):
        network = supernet.extract(arch)
        tensors = sliced(copies, network)
        tensors = {name: tensor.detach().clone() if "running" in name else tensor for name, tensor in tensors.items()}
        x_BCHW = images(arch, batch=4, seed=seed, dtype=supernet.decayed.dtype)
        functional_call(network, tensors, (x_BCHW,)).square().mean().backward()
    return {name: tensor.grad if tensor.grad is not None else torch.zeros_like(tensor) for name, tensor in copies.items()}


@settings(max_examples=25)
@given(archs_of((*TINY_SPACES, *OTHER_INPUTS)))
def test_gradients_of_several_subnets_add_up_to_those_of_slicing(case: tuple[Space, Arch]) -> None:
    space, arch = case
    supernet = fresh(space.name, torch.float64).train()
    archs = [arch, space.smallest(), space.largest(), arch]
    expected = gradients_by_slicing(supernet, archs)
    supernet.zero_grad()
    backward(supernet, archs)
    for name, gradient in gradients(supernet).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@settings(max_examples=25)
@given(archs_of((*TINY_SPACES, *OTHER_INPUTS)))
def test_gradients_outside_the_slices_are_exactly_zero(case: tuple[Space, Arch]) -> None:
    space, arch = case
    supernet = fresh(space.name).train()
    backward(supernet, [arch])
    slices = supernet.extract(arch).state_dict()
    for name, gradient in gradients(supernet).items():
        if name.rsplit("_", 1)[-1].count("to"):
            continue
        outside = torch.ones_like(gradient, dtype=torch.bool)
        if name in slices:
            outside[channels_of(slices[name])] = False
        assert not gradient[outside].any(), name


def test_zeroed_gradients_stay_attached_whatever_the_optimizer_does() -> None:
    supernet = fresh("ofa-mbv3-tiny").train()
    arch = supernet.space.smallest()
    optimizer = torch.optim.SGD(supernet.parameter_groups(1e-4), lr=0.1)
    network = supernet.subnet(arch)
    backward(supernet, [arch])
    once = supernet.decayed.grad.clone()  # type: ignore[union-attr]
    for zero in (supernet.zero_grad, optimizer.zero_grad, lambda: (network.zero_grad(), optimizer.zero_grad())):
        zero()
        supernet.statistics.copy_(fresh("ofa-mbv3-tiny").statistics)
        network(images(arch, batch=4)).square().mean().backward()
        torch.testing.assert_close(supernet.decayed.grad, once)


def test_a_step_of_the_optimizer_moves_the_subnets() -> None:
    supernet = fresh("ofa-mbv3-tiny").train()
    arch = supernet.space.smallest()
    optimizer = torch.optim.SGD(supernet.parameter_groups(1e-4), lr=0.1)
    before = supernet.extract(arch).state_dict()
    backward(supernet, [arch])
    optimizer.step()
    after = supernet.subnet(arch).state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if name.endswith("conv.weight") and name in after)


def test_what_decays_are_weights_and_what_does_not_is_the_rest() -> None:
    supernet = fresh("ofa-mbv3-tiny")
    decaying, other = supernet.parameter_groups(0.1)
    assert decaying["params"] == [supernet.decayed]
    assert (decaying["weight_decay"], other["weight_decay"]) == (0.1, 0.0)
    weights = sum(t.numel() for name, t in supernet.named_tensors().items() if name.endswith(("conv.weight", "linear.weight")))
    assert weights <= supernet.decayed.numel() < weights + 16 * len(supernet.named_tensors())


# -- the order of channels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_SPACES)
@pytest.mark.parametrize("trained", ["largest", "two widths", "all"])
def test_reordering_changes_no_trained_subnet_and_sorts_the_rest(name: str, trained: str) -> None:
    supernet = fresh(name, torch.float64).eval()
    space = supernet.space
    genes = [gene for gene in (*space.network, *space.stages[0].genes) if gene.name != "kernel" and gene.name != "stem_depth"]
    kept = {"largest": 1, "two widths": 2, "all": 9}[trained]
    phase = space.restrict(**{gene.name: gene.values[-kept:] for gene in genes})
    rng = np.random.default_rng(0)
    archs = [space.largest(), phase.smallest(), *(phase.sample(rng) for _ in range(6))]
    with torch.no_grad():
        before = [supernet.subnet(arch)(images(arch, dtype=torch.float64)) for arch in archs]
        stored = {key: tensor.clone() for key, tensor in supernet.named_tensors().items()}
        supernet.reorder_channels(phase)
        after = [supernet.subnet(arch)(images(arch, dtype=torch.float64)) for arch in archs]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert any(not torch.equal(stored[key], tensor) for key, tensor in supernet.named_tensors().items())


def test_the_most_important_channels_lead() -> None:
    supernet = fresh("ofa-mbv3-tiny")
    supernet.reorder_channels(supernet.space.restrict(expand=[6]))
    project = supernet.named_tensors()["stages.1.0.project.conv.weight"]
    importance = project.abs().sum(dim=(0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)


# -- life of a module -------------------------------------------------------------------------------------------------


def test_a_copy_is_independent_and_its_gradients_work() -> None:
    supernet = fresh("ofa-mbv3-tiny").train()
    arch = supernet.space.smallest()
    backward(supernet, [arch])
    twin = copy.deepcopy(supernet)
    twin.zero_grad()
    with torch.no_grad():
        twin.decayed.mul_(2)
    assert not torch.equal(twin.decayed, supernet.decayed)
    backward(twin, [arch])
    assert twin.decayed.grad is not supernet.decayed.grad
    assert twin.decayed.grad.any()  # type: ignore[union-attr]


def test_moving_to_another_type_moves_the_subnets() -> None:
    supernet = fresh("ofa-mbv3-tiny").eval()
    arch = supernet.space.smallest()
    single = supernet.subnet(arch)(images(arch))
    double = supernet.to(torch.float64).subnet(arch)(images(arch).double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)


def test_equal_generators_make_equal_supernets_and_leave_the_global_one_alone() -> None:
    space = get_space("ofa-mbv3-tiny")
    state = torch.get_rng_state()
    one, same, other = (Supernet(space, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.decayed, same.decayed)
    assert not torch.equal(one.decayed, other.decayed)


def test_dropout_acts_on_the_classifier_while_training_only() -> None:
    supernet = Supernet(get_space("ofa-mbv3-tiny"), dropout=0.4)
    parts = [module for module in supernet.subnet(supernet.space.smallest()).modules() if isinstance(module, nn.Dropout)]
    assert [part.p for part in parts] == [0.4]
