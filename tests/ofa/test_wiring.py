"""Networks whose blocks are no chain: outputs that are added again later, through all that is done with a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from devices import Device, TimingPolicy
from latency_tables import Estimator, build_table
from ofa.arch import Arch, Genes
from ofa.blocks import Classifier, ConvBlock, InvertedResidual, PlacedBlock, Shape, segments, with_liveness
from ofa.cost import peak_activation_bytes
from ofa.costs import costs
from ofa.errors import SpaceError
from ofa.exporting.onnx import export, verify_outputs
from ofa.families import lower
from ofa.families.placing import Placer, input_shape
from ofa.inventory import blocks_of_space
from ofa.row_costs import costs_of
from ofa.space import Gene, Space, Stage
from ofa.supernet import Supernet
from ofa.training.prefixes import run_together
from tests.ofa.strategies import archs, randomized


@dataclass(frozen=True, kw_only=True)
class Ladder(Space):
    """Stages of inverted residuals; the stem is added again behind each stage, and the first stage's output behind the second."""

    channels: int = 8

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        placer, channels = Placer(self, arch), int(arch.network["width"])
        placer.place("stem", ConvBlock(in_channels=self.in_channels, out_channels=channels, kernel=3, stride=2))
        ends = ["stem"]
        for s, blocks in enumerate(arch.stages):
            for b, genes in enumerate(blocks):
                block = InvertedResidual(
                    in_channels=channels, mid_channels=int(8 * genes["expand"]), out_channels=channels, kernel=int(genes["kernel"])
                )
                placer.place(f"stages.{s}.{b}", block, ends if b == 0 and s else ())
            ends.append(f"stages.{s}.{len(blocks) - 1}")
        placer.place("head", ConvBlock(in_channels=channels, out_channels=16), ends)
        placer.place("classifier", Classifier(in_channels=16, out_channels=self.num_classes, pool=True))
        return placer.placed


STAGE = Stage((1, 2), (Gene("kernel", (3, 5)), Gene("expand", (1, 2))))
LADDER = Ladder(name="ladder", resolutions=((12, 20), 16), stages=(STAGE, STAGE), network=(Gene("width", (8, 16)),), num_classes=5)


def images(arch: Arch) -> torch.Tensor:
    return torch.randn(2, *input_shape(LADDER, arch), generator=torch.Generator().manual_seed(0))


def supernet() -> Supernet:
    return randomized(Supernet(LADDER, generator=torch.Generator().manual_seed(0)))


def plain(store: Supernet, arch: Arch, x_BCHW: torch.Tensor) -> torch.Tensor:
    """The network written out, on the modules of the extracted one."""
    network = store.extract(arch)
    ends = [network.get_submodule("stem")(x_BCHW)]
    for s, blocks in enumerate(arch.stages):
        y_BCHW = sum(ends[1:], ends[0])
        for b in range(len(blocks)):
            y_BCHW = network.get_submodule(f"stages.{s}.{b}")(y_BCHW)
        ends.append(y_BCHW)
    head_BCHW = network.get_submodule("head")(sum(ends[1:], ends[0]))
    logits_BN: torch.Tensor = network.get_submodule("classifier")(head_BCHW)
    return logits_BN


@settings(max_examples=15)
@given(archs(LADDER))
def test_a_subnet_its_extract_and_the_network_written_out_are_the_same_bits(arch: Arch) -> None:
    store, x_BCHW = supernet().eval(), images(arch)
    with torch.no_grad():
        logits_BN = store.subnet(arch)(x_BCHW)
        assert torch.equal(logits_BN, store.extract(arch)(x_BCHW))
        assert torch.equal(logits_BN, plain(store, arch, x_BCHW))


def test_gradients_of_subnets_together_are_those_of_separate_passes() -> None:
    rng = np.random.default_rng(0)
    drawn = [LADDER.largest(16), LADDER.smallest(16), *(LADDER.restrict(resolution=[16]).sample(rng) for _ in range(4))]
    x_BCHW = images(drawn[0]).double()
    separate, together = supernet().double().train(), supernet().double().train()
    for arch in drawn:
        separate.subnet(arch)(x_BCHW).square().mean().backward()
    run_together([together.pieces(arch) for arch in drawn], x_BCHW, lambda _, last, x: last(x).square().mean())
    torch.testing.assert_close(together.flat_gradient, separate.flat_gradient)
    assert float(separate.flat_gradient.abs().sum()) > 0


def test_the_parts_of_a_step_are_cut_where_one_tensor_is_alive() -> None:
    lowered = lower(LADDER, LADDER.largest())
    parts = segments(lowered)
    assert [placed.name for part in parts for placed in part] == [placed.name for placed in lowered]
    assert [len(part) for part in parts] == [1, len(lowered) - 2, 1]


def test_channels_that_are_added_keep_one_order() -> None:
    store = supernet().double().eval()
    arch = LADDER.largest()
    x_BCHW = images(arch).double()
    with torch.no_grad():
        before = store.subnet(arch)(x_BCHW)
        small = store.subnet(LADDER.smallest())(images(LADDER.smallest()).double())
        store.reorder_channels(LADDER.restrict(width=[16], expand=[2]))
        torch.testing.assert_close(store.subnet(arch)(x_BCHW), before)
        assert not torch.equal(store.subnet(LADDER.smallest())(images(LADDER.smallest()).double()), small)


def conv(name: str, channels: tuple[int, int], *inputs: str) -> PlacedBlock:
    """A convolution of images of 8 x 8 pixels."""
    return PlacedBlock(name, ConvBlock(in_channels=channels[0], out_channels=channels[1]), Shape(channels[0], 8, 8), inputs)


@dataclass(frozen=True, kw_only=True)
class Plain(Space):
    """A stage of convolutions of elastic number and width, without any addition."""

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        placer, channels, width = Placer(self, arch), self.in_channels, int(arch.network["width"])
        for b in range(len(arch.stages[0])):
            placer.place(f"stages.0.{b}", ConvBlock(in_channels=channels, out_channels=width, kernel=3))
            channels = width
        placer.place("classifier", Classifier(in_channels=channels, out_channels=self.num_classes, pool=True))
        return placer.placed


def test_a_shallow_network_that_is_trained_stays_what_it_was() -> None:
    space = Plain(name="plain", resolutions=(8,), stages=(Stage((1, 2, 3), ()),), network=(Gene("width", (4, 8)),), num_classes=3)
    store = randomized(Supernet(space, generator=torch.Generator().manual_seed(0))).double().eval()
    x_BCHW = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    trained = [Arch("plain", 8, ((Genes({}),) * depth,), Genes({"width": 8})) for depth in (1, 2, 3)]
    with torch.no_grad():
        before = [store.subnet(arch)(x_BCHW) for arch in trained]
        store.reorder_channels(space.restrict(width=[8]))
        torch.testing.assert_close([store.subnet(arch)(x_BCHW) for arch in trained], before)


@pytest.mark.parametrize(
    ("lowered", "channels"),
    [
        # a waits for d beside b's output and c's; d's sum is written over one of the two that it is made of.
        ([conv("a", (3, 4)), conv("b", (4, 8)), conv("c", (8, 4)), conv("d", (4, 2), "a", "c")], [3 + 4, 4 + 8, 4 + 8 + 4, 4 + 4]),
        # c's sum is written over b, as e reads a.
        ([conv("a", (3, 4)), conv("b", (4, 4)), conv("c", (4, 8), "a", "b"), conv("d", (8, 4)), conv("e", (4, 1), "d", "a")],
         [3 + 4, 4 + 4, 4 + 4 + 8, 4 + 8 + 4, 4 + 4]),
        # Both summands of c are read again, so the sum lies beside them.
        ([conv("a", (3, 4)), conv("b", (4, 4)), conv("c", (4, 4), "a", "b"), conv("d", (4, 1), "a", "b", "c")],
         [3 + 4, 4 + 4, 4 + 4 + 4 + 4, 4 + 4 + 4]),
    ],
)  # fmt: skip
def test_peak_activations_by_hand(lowered: list[PlacedBlock], channels: list[int]) -> None:
    known = with_liveness(lowered)
    assert [peak_activation_bytes([placed]) / 4 / 64 for placed in known] == channels
    assert peak_activation_bytes(known) == max(channels) * 64 * 4


def test_a_search_counts_the_same_as_each_network() -> None:
    rng = np.random.default_rng(3)
    drawn = [LADDER.sample(rng) for _ in range(30)]
    counted = costs_of(LADDER)(np.array([LADDER.encode(arch) for arch in drawn]))
    for number, arch in enumerate(drawn):
        assert {name: values[number] for name, values in counted.items()} == costs(lower(LADDER, arch))


def test_a_table_is_of_each_block_once() -> None:
    table = build_table(
        LADDER, Device(name="fake", runtime="fake"), rng=np.random.default_rng(0), policy=TimingPolicy(min_rounds=2, max_rounds=2)
    )
    assert len(table) == len(blocks_of_space(LADDER))
    arch = LADDER.largest()
    assert Estimator(LADDER, table)(arch).latency_ms == pytest.approx(sum(table.latency_ms(placed) for placed in lower(LADDER, arch)))


def test_the_exported_file_computes_the_same(tmp_path: Path) -> None:
    store = supernet().eval()
    for arch in (LADDER.largest(), LADDER.smallest((12, 20))):
        shape = (1, *lower(LADDER, arch)[0].input)
        export(store.extract(arch), shape, tmp_path / "ladder.onnx")
        assert verify_outputs(store.extract(arch), tmp_path / "ladder.onnx", shape, generator=torch.Generator().manual_seed(0)) < 1e-4


@dataclass(frozen=True, kw_only=True)
class Miswired(Space):
    """Three convolutions and a classifier; the last convolution reads ``reads``."""

    reads: tuple[str, ...]

    def lower(self, arch: Arch) -> tuple[PlacedBlock, ...]:
        shapes = {"a": Shape(self.in_channels, 8, 8), "b": Shape(4, 8, 8), "c": Shape(4, 8, 8)}
        inputs = {"c": self.reads}
        blocks = [
            PlacedBlock(name, ConvBlock(in_channels=shape.channels, out_channels=4, stride=1 + (name == "b")), shape, inputs.get(name, ()))
            for name, shape in shapes.items()
        ]
        return (*blocks, PlacedBlock("classifier", Classifier(in_channels=4, out_channels=self.num_classes, pool=True), Shape(4, 8, 8)))


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        (("later",), "blocks that read earlier blocks, but c reads later"),
        (("classifier",), "blocks that read earlier blocks, but c reads classifier"),
        (("a", "b"), "b gives 4 channels of 4 px and c takes 4 channels of 8 px"),
        (("a",), "blocks that others read, but nothing reads b"),
    ],
)
def test_wiring_that_cannot_be_is_told(reads: tuple[str, ...], words: str) -> None:
    space = Miswired(name="miswired", resolutions=(8,), stages=(), num_classes=2, reads=reads)
    with pytest.raises(SpaceError, match=words):
        lower(space, space.largest())
