"""What must always hold of subnets holds on the GPU, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ofa.exporting.onnx import export, verify_outputs
from ofa.families import get_space
from ofa.supernet import Supernet
from tests.ofa.strategies import TINY_SPACES, images, randomized

pytestmark = pytest.mark.gpu

SPACES = pytest.mark.parametrize("name", [*TINY_SPACES, "ofa-mbv3-32px"])


def supernet_on(device: torch.device, name: str) -> Supernet:
    return randomized(Supernet(get_space(name), generator=torch.Generator().manual_seed(0))).to(device)


@SPACES
def test_a_subnet_computes_what_the_extracted_network_does_bit_for_bit(name: str, device: torch.device) -> None:
    supernet, rng = supernet_on(device, name).eval(), np.random.default_rng(1)
    space = supernet.space
    for arch in (space.largest(), space.smallest(), *(space.sample(rng) for _ in range(4))):
        x_BCHW = images(arch).to(device)
        with torch.no_grad():
            assert torch.equal(supernet.subnet(arch)(x_BCHW), supernet.extract(arch)(x_BCHW)), arch


@SPACES
def test_gradients_outside_a_subnet_are_exactly_zero(name: str, device: torch.device) -> None:
    supernet, rng = supernet_on(device, name).train(), np.random.default_rng(2)
    space = supernet.space
    for arch in (space.smallest(), space.sample(rng)):
        supernet.zero_grad()
        supernet.subnet(arch)(images(arch, batch=4).to(device)).square().sum().backward()
        inside = supernet.extract(arch).state_dict()
        for stored in supernet._tensors.values():
            if stored.role == "statistics" or stored.is_transform:
                continue
            gradient = supernet._slot(stored, supernet._gradients)
            outside = torch.ones_like(gradient, dtype=torch.bool)
            if stored.name in inside:  # of a larger kernel more than the channels may be left out, but that is nothing of the GPU's
                outside[tuple(slice(0, length) for length in inside[stored.name].shape[:2])] = False
            assert not gradient[outside].any(), stored.name
        assert supernet.flat_gradient.any()


@SPACES
def test_the_largest_subnet_views_the_store_after_it_was_moved(name: str, device: torch.device) -> None:
    supernet = randomized(Supernet(get_space(name), generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.SGD(supernet.parameter_groups(0), lr=0.1)
    supernet.subnet(supernet.space.largest())  # whose views are to be forgotten
    supernet.to(device)
    stores = {tensor.untyped_storage().data_ptr() for tensor in (supernet.decayed, supernet.undecayed)}
    largest = supernet.subnet(supernet.space.largest())
    for parameter in largest.parameters():
        assert parameter.device == device
        assert parameter.untyped_storage().data_ptr() in stores
    before = supernet.decayed.detach().clone()
    supernet.subnet(supernet.space.smallest())(images(supernet.space.smallest(), batch=4).to(device)).sum().backward()
    optimizer.step()  # an optimizer that was made before the move still steps the same parameters
    assert not torch.equal(supernet.decayed.detach(), before)


@pytest.mark.parametrize("name", TINY_SPACES)
def test_channels_are_sorted_as_on_the_cpu(name: str, device: torch.device) -> None:
    here, there = supernet_on(device, name), supernet_on(torch.device("cpu"), name)
    largest = here.space.restrict(
        **{gene.name: gene.values[-1:] for stage in here.space.stages for gene in stage.genes if gene.name == "expand"}
    )
    for supernet in (here, there):
        supernet.reorder_channels(trained=largest)
    for (tensor_name, tensor), other in zip(here.named_tensors().items(), there.named_tensors().values(), strict=True):
        assert torch.equal(tensor.cpu(), other), tensor_name


@pytest.mark.parametrize("name", TINY_SPACES)
def test_a_network_on_the_gpu_is_exported_and_verified(name: str, device: torch.device, tmp_path: Path) -> None:
    supernet = supernet_on(device, name).eval()
    arch = supernet.space.sample(np.random.default_rng(3))
    network, shape = supernet.extract(arch), (2, 3, arch.resolution, arch.resolution)
    # As a user's process has it, where convolutions may take TF32: verification must see to it itself.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        export(network, shape, tmp_path / "network.onnx")
        assert verify_outputs(network, tmp_path / "network.onnx", shape, generator=torch.Generator().manual_seed(0)) < 1e-4
    assert all(parameter.device == device for parameter in network.parameters())


def test_weights_are_saved_from_the_gpu_and_read_anywhere(device: torch.device, tmp_path: Path) -> None:
    supernet = supernet_on(device, "ofa-mbv3-tiny")
    supernet.save(tmp_path / "weights.safetensors")
    read = Supernet.load(tmp_path / "weights.safetensors").named_tensors()
    assert all(torch.equal(tensor.cpu(), read[name]) for name, tensor in supernet.named_tensors().items())
