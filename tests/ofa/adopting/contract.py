"""What holds for every model that is adopted: a check for tests of any architecture."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ofa import cost
from ofa.adopting.adoption import Adoption, adopt_model
from ofa.adopting.tracing import Trace, trace
from ofa.arch import Arch
from ofa.blocks.runs import gathered, kept_ranges
from ofa.exporting.onnx import to_model
from ofa.families import lower
from ofa.families.adopted import CLASSES
from ofa.groups import Group, runs_by_dim
from ofa.sharing import layout
from ofa.space import Space

__all__ = ["Contract", "randomized", "sliced"]

_ARCHS = 5


def sliced(tensors: Mapping[str, Tensor], groups: Iterable[Group], kept: Mapping[str, int]) -> dict[str, Tensor]:
    """What a smaller model keeps of the tensors of one: the leading units of each group that ``kept`` names, all of others."""
    found, full = dict(tensors), {group.name: group.units for group in groups}
    for (tensor, dim), runs in runs_by_dim(groups).items():
        found[tensor] = gathered(found[tensor], dim, kept_ranges(runs, full, kept))
    return found


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with weights among which none is zero, one or equal to another, as those of trained ones are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                values = torch.rand(tensor.shape, generator=generator)
                fan = math.prod(tensor.shape[1:])
                tensor.copy_((values - 0.5) * math.sqrt(12 / fan) if tensor.dim() > 1 else values + 0.5)
    return model.eval()


@dataclass(eq=False)
class Contract:
    """An adopted model and what must hold of it; each method is one promise."""

    model: nn.Module
    image: tuple[int, int, int]

    def __post_init__(self) -> None:
        before = copy.deepcopy(self.model)
        begin = time.process_time()
        self.adoption: Adoption = adopt_model(self.model, self.image)
        self.seconds = time.process_time() - begin
        assert _state(self.model) == _state(before), "adoption changed the model"
        self.space, self.supernet = self.adoption.space, self.adoption.supernet.eval()
        self.images = torch.rand(2, *self.image, generator=torch.Generator().manual_seed(1))
        self.trace: Trace = trace(copy.deepcopy(self.model), self.image)
        rng = np.random.default_rng(0)
        self.archs = [self.space.largest(), self.space.smallest(), *(self.space.sample(rng) for _ in range(_ARCHS))]

    def check(self) -> None:
        """All promises."""
        self.largest_is_the_model()
        self.every_parameter_is_stored_once()
        self.subnets_are_the_program_on_sliced_weights()
        self.extracted_networks_are_the_subnets()
        self.macs_are_those_that_torch_counts()
        assert Space.from_json(self.space.to_json()) == self.space

    def largest_is_the_model(self) -> None:
        output = self.model(self.images)  # as it trains: without gradients torch has other operators of attention
        expected = getattr(output, "logits", output).detach()
        actual = self.supernet.subnet(self.space.largest(self.space.resolutions[-1]))(self.images).detach()
        assert torch.equal(actual, expected), f"differs by {(actual - expected).abs().max()} of {expected.abs().max()}"
        assert self.adoption.difference == 0

    def every_parameter_is_stored_once(self) -> None:
        stored = self.supernet.named_tensors()
        found = list(self._names().values())
        used = self._used()
        parameters = {name for name, _ in self.model.named_parameters() if name in used}
        assert sorted(name for name in found if name in parameters) == sorted(parameters)
        for mine, name in self._names().items():
            if name in self.trace.tensors:
                assert torch.equal(stored[mine], self.trace.tensors[name].to(stored[mine].dtype)), name

    def subnets_are_the_program_on_sliced_weights(self) -> None:
        stages = tuple(replace(stage, depths=stage.depths[-1:]) for stage in self.space.stages)
        whole = replace(self.space, resolutions=self.space.resolutions[-1:], stages=stages)
        rng = np.random.default_rng(1)
        for arch in [whole.smallest(), *(whole.sample(rng) for _ in range(_ARCHS))]:
            self._check_slices(arch)

    def _check_slices(self, arch: Arch) -> None:
        leaves = {name: tensor.detach().clone() for name, tensor in self.trace.tensors.items()}
        trained = {name: leaf.requires_grad_() for name, leaf in leaves.items() if name in self.trace.parameters}
        expected = self.trace(self.images, self._small(leaves, arch))
        weights = torch.rand(expected.shape, generator=torch.Generator().manual_seed(2))
        (expected * weights).sum().backward()
        self.supernet.zero_grad()
        actual = self.supernet.subnet(arch)(self.images)
        (actual * weights).sum().backward()
        assert _relative(actual, expected) <= 1e-6, f"outputs differ by {_relative(actual, expected):.2g}: {arch}"
        gradients = self._gradients()
        # Some gradients are zero but for rounding, such as those of the biases of keys.
        scale = 1e-3 * max(float(gradient.abs().max()) for gradient in gradients.values())
        for mine, name in self._names().items():
            if name in trained and mine in gradients:
                wanted = torch.zeros_like(trained[name]) if trained[name].grad is None else trained[name].grad
                assert wanted is not None
                difference = float((gradients[mine] - wanted).abs().max()) / max(scale, float(wanted.abs().max()))
                assert difference <= 1e-4, f"gradients of {name} differ by {difference:.2g}"

    def _small(self, tensors: Mapping[str, Tensor], arch: Arch) -> dict[str, Tensor]:
        return sliced(tensors, self.adoption.groups.values(), self._kept(arch))

    def _kept(self, arch: Arch) -> dict[str, int]:
        kept = {}
        for placed, block in zip(lower(self.space, arch), self.space.blocks, strict=True):
            for number, units in zip(block.sizes, placed.block.lengths.values(), strict=True):
                kept[self.space.sizes[number].name] = units
        return {name: units for name, units in kept.items() if name != CLASSES}

    def extracted_networks_are_the_subnets(self) -> None:
        for arch, images in self._tried():
            with torch.no_grad():
                assert torch.equal(self.supernet.subnet(arch)(images), self.supernet.extract(arch)(images)), arch

    def macs_are_those_that_torch_counts(self) -> None:
        for arch, images in self._tried():
            counter = FlopCounterMode(display=False)
            # Of attention in one operator on a CPU torch counts nothing; written out it is products of matrices.
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
                self.supernet.subnet(arch)(images[:1])
            assert cost.macs(lower(self.space, arch)) * 2 == counter.get_total_flops(), arch

    def exported_networks_are_the_subnets(self) -> None:
        """Not part of ``check``, for it takes longest: ONNX Runtime computes what torch does, for any number of images."""
        network = self.supernet.extract(self.archs[1])
        side = self.archs[1].resolution
        height, width = (side, side) if isinstance(side, int) else side
        images = torch.rand(3, self.image[0], height, width, generator=torch.Generator().manual_seed(4))
        exported = to_model(network, (2, *images.shape[1:]), dynamic_batch=True)
        session = onnxruntime.InferenceSession(exported.SerializeToString())
        (actual,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(actual), network(images), rtol=1e-3, atol=1e-4)

    def _tried(self) -> Iterator[tuple[Arch, Tensor]]:
        for arch in self.archs:
            side = arch.resolution
            height, width = (side, side) if isinstance(side, int) else side
            yield arch, torch.rand(2, self.image[0], height, width, generator=torch.Generator().manual_seed(3))

    # -- names --------------------------------------------------------------------------------------------------------

    def _used(self) -> set[str]:
        _, *placeholders = (node for node in self.trace.graph.nodes if node.op == "placeholder")
        return {name for name, node in zip(self.trace.tensors, placeholders, strict=True) if node.users}

    def _names(self) -> dict[str, str]:
        """By name in the store that in the model; names of constants of the program are left out."""
        origins = {block.place: block.origin for block in self.space.blocks}
        names = {}
        for stored in layout(self.space):
            local = stored.name.removeprefix(f"{stored.place}.")
            choices = (f"{origins[stored.place]}.{local}", local)
            known = next((name for name in choices if name in self.trace.tensors), None)
            if known is not None:
                names[stored.name] = known
        return names

    def _gradients(self) -> dict[str, Tensor]:
        found = {}
        for stored in layout(self.space):
            if stored.role != "statistics":
                found[stored.name] = getattr(self.supernet, stored.role).grad[stored.offset : stored.end].view(stored.shape)
        return found


def _relative(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def _state(model: nn.Module) -> list[object]:
    """What a model's modules keep, in a form that can be compared."""
    return [(name, type(module), module.training, sorted(map(str, vars(module)))) for name, module in model.named_modules()]
