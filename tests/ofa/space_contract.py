"""What every space must do, and every kind of block in it; a class of tests that derives from this one gives the space."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from ofa.arch import Arch
from ofa.blocks import Shape
from ofa.cost import macs, params
from ofa.exporting.onnx import to_model
from ofa.families import lower
from ofa.sharing import channel_groups
from ofa.space import Space
from ofa.supernet import Supernet
from tests.ofa.strategies import randomized
from tests.ofa.test_cost import counted_macs

__all__ = ["SpaceContract"]

_ARCHS = 12


class SpaceContract:
    @pytest.fixture
    def space(self) -> Space:
        raise NotImplementedError

    @pytest.fixture
    def archs(self, space: Space) -> list[Arch]:
        rng = np.random.default_rng(0)
        return [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(_ARCHS))]

    @pytest.fixture
    def supernet(self, space: Space) -> Supernet:
        return randomized(Supernet(space, generator=torch.Generator().manual_seed(0))).double().eval()

    def test_it_travels_as_json(self, space: Space) -> None:
        assert Space.from_json(space.to_json()) == space

    def test_every_block_stands_at_the_size_that_reaches_it(self, space: Space, archs: list[Arch]) -> None:
        for arch in archs:
            given: dict[str, Shape] = {}
            reached = lower(space, arch)[0].input
            for placed in lower(space, arch):
                reached = given[placed.inputs[0]] if placed.inputs else reached
                assert placed.input == reached, placed.name
                with torch.device("meta"):
                    output = placed.block.build().eval()(torch.zeros(1, *placed.input))
                reached = given[placed.name] = placed.block.output(placed.input)
                assert output.shape[1:] == reached, placed.name

    def test_macs_and_parameters_are_those_of_the_modules(self, supernet: Supernet, archs: list[Arch]) -> None:
        for arch in archs:
            lowered, network = lower(supernet.space, arch), supernet.extract(arch)
            assert macs(lowered) == counted_macs(network, images(supernet.space, arch)[:1])
            assert params(lowered) == sum(parameter.numel() for parameter in network.parameters())

    def test_a_subnet_and_its_extract_compute_the_same_bits(self, supernet: Supernet, archs: list[Arch]) -> None:
        for arch in archs:
            x = images(supernet.space, arch)
            with torch.no_grad():
                assert torch.equal(supernet.subnet(arch)(x), supernet.extract(arch)(x))

    def test_a_step_on_the_smallest_changes_what_the_largest_shares_with_it(self, supernet: Supernet) -> None:
        smallest, largest = supernet.space.smallest(), supernet.space.largest()
        with torch.no_grad():
            before = supernet.subnet(largest)(images(supernet.space, largest))
        supernet.subnet(smallest)(images(supernet.space, smallest)).square().sum().backward()
        assert supernet.flat_gradient.abs().sum() > 0
        with torch.no_grad():
            supernet.decayed.sub_(supernet.flat_gradient[: len(supernet.decayed)], alpha=1e-3)
            assert not torch.equal(supernet.subnet(largest)(images(supernet.space, largest)), before)

    def test_no_order_of_channels_changes_what_the_largest_computes(self, supernet: Supernet) -> None:
        largest, generator = supernet.space.largest(), torch.Generator().manual_seed(0)
        scores = [torch.rand(each.group.units, generator=generator) for each in channel_groups(supernet.space)]
        with torch.no_grad():
            before = supernet.subnet(largest)(images(supernet.space, largest))
            supernet.reorder_channels(largest_alone(supernet.space), scores)
            torch.testing.assert_close(supernet.subnet(largest)(images(supernet.space, largest)), before)

    def test_an_onnx_file_computes_what_pytorch_does(self, supernet: Supernet, archs: list[Arch]) -> None:
        supernet.float()
        for arch in archs[:4]:
            network, x = supernet.extract(arch).eval(), images(supernet.space, arch).float()
            model = to_model(network, tuple(x.shape))
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            with torch.no_grad():
                expected = network(x).numpy()
            np.testing.assert_allclose(session.run(None, {"images": x.numpy()})[0], expected, atol=1e-4 * np.abs(expected).max())


def images(space: Space, arch: Arch) -> torch.Tensor:
    """Two random images that an arch takes."""
    return torch.randn(2, *lower(space, arch)[0].input, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def largest_alone(space: Space) -> Space:
    """The part of a space in which all genes but the depth and the resolution have their largest value."""
    genes = [*space.network, *(gene for stage in space.stages for gene in stage.genes)]
    return space.restrict(**{gene.name: gene.values[-1:] for gene in genes})
