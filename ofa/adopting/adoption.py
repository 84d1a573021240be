"""Adoption: turns any torch module that classifies images into a space of its subnets and a supernet with its weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
import torch
from torch import Tensor, nn

from ofa.adopting.cutting import Segment, cut, joined, runs_of
from ofa.adopting.genes import Choices, Part, choose
from ofa.adopting.groups import find_groups, names_of
from ofa.adopting.program import Program, simplify
from ofa.adopting.record import AdoptionRecord, Fixed
from ofa.adopting.tracing import Trace, copied, trace
from ofa.adopting.writing import Dims, Written, write_segment
from ofa.blocks.runs import Run
from ofa.errors import SpaceError
from ofa.families.adopted import CLASSES, SHARES, AdoptedSpace
from ofa.groups import Group, runs_by_dim
from ofa.progress import Progress, silent
from ofa.resolution import Resolution, ascending
from ofa.supernet import Supernet

__all__ = ["Adoption", "adopt_model"]

_SMALLER = (4 / 7, 5 / 7, 6 / 7)
"""Smaller resolutions, as shares of the model's own: 128, 160 and 192 of 224 px, as in Cai et al. (ICLR 2020)."""
_STEPS = 5
_SIZES = 3  # C, H and W
_NAMED = 4
_SEED = 0  # seed of the images that groups are verified on: the same model always has the same space
_KEPT = "--keep says so"
_SAME = 1e-5
"""Largest difference between program and model, relative to the largest output; it allows for another order of sums."""


@dataclass(frozen=True, eq=False)
class Adoption:
    """An adopted model.

    Attributes:
        space: the space of its subnets.
        supernet: the supernet with the model's weights; its largest network computes the same as the model.
        groups: the elastic sizes, by name.
        fixed: dimensions that do not shrink, with reasons.
        elastic_share: share (0..1) of the model's parameters in tensors that shrink.
        difference: largest difference between the outputs of the largest network and of the model, relative to the largest output; 0 is
            bit for bit.
    """

    space: AdoptedSpace
    supernet: Supernet
    groups: Mapping[str, Group]
    fixed: tuple[Fixed, ...]
    elastic_share: float
    difference: float

    def record(self, model: str, class_names: Sequence[str] | None = None) -> AdoptionRecord:
        """The record that is saved beside the supernet.

        Args:
            model: the user's name of the model.
            class_names: names of the classes, in the order of the logits; None if they are unknown.

        Returns:
            The record.
        """
        return AdoptionRecord(
            model=model,
            members={name: tuple(f"{each.tensor}[{each.dim}]" for each in group.members) for name, group in self.groups.items()},
            fixed=self.fixed,
            elastic_share=self.elastic_share,
            difference=self.difference,
            class_names=None if class_names is None else tuple(class_names),
        )


def adopt_model(
    model: nn.Module,
    image: Sequence[int],
    *,
    name: str | None = None,
    shares: Sequence[float] = SHARES,
    keep: Sequence[str] = (),
    min_depth: int | None = None,
    resolutions: Sequence[Resolution] | None = None,
    progress: Progress = silent,
) -> Adoption:
    """Adopt a model that maps images [B, C, H, W] to logits [B, classes]; the model is not changed.

    Args:
        model: any module that torch can trace; it is run in evaluation mode.
        image: C, H and W of its images.
        name: name of the space; by default derived from the model's class.
        shares: shares of channels and heads that networks may keep; 1 is always among them.
        keep: patterns of names of tensors or layers, such as ``layer4.*``, whose sizes stay fixed.
        min_depth: least number of blocks that networks keep of each run of skippable blocks; by default half of the run.
        resolutions: resolutions of images beside that of ``image``, in pixels; by default some smaller ones for which the model computes
            the same program.
        progress: told of each step.

    Returns:
        The adopted model.

    Raises:
        SpaceError: an argument is impossible, or the model cannot be adopted; the message has the reason and a remedy.
    """
    widths = _checked(image, shares, min_depth)
    steps = _Steps(progress)
    images = torch.rand(2, *image, generator=torch.Generator().manual_seed(_SEED))
    steps.next("tracing")
    traced = trace(model, tuple(image))
    _check_patterns(keep, traced.tensors)
    steps.next("finding coupled dimensions")
    groups, given_up = find_groups(traced, images, steps.within)
    steps.next("cutting into blocks")
    reading = _Reading(traced, groups, given_up, keep)
    parts = reading.parts()
    choices = choose(parts, reading.groups, reading.tensors, widths, min_depth)
    space = _space_of(name or f"adopted-{type(model).__name__.lower()}", image, reading, choices)
    steps.next("trying other resolutions")
    space = _with_resolutions(space, model, image, resolutions)
    steps.next("comparing with the model")
    supernet = _filled(space, parts, reading.tensors)
    difference = _difference(model, supernet, images)
    share = _elastic_share(traced, reading)
    steps.next("")
    return Adoption(space, supernet, reading.groups, tuple(reading.fixed()), share, difference)


def _space_of(name: str, image: Sequence[int], reading: _Reading, choices: Choices) -> AdoptedSpace:
    classes = reading.classes
    space = AdoptedSpace(
        name=name,
        resolutions=_sides(image),
        stages=choices.stages,
        network=choices.network,
        num_classes=classes,
        in_channels=image[0],
        codes=choices.codes,
        sizes=tuple(replace(size, units=classes) if size.name == CLASSES else size for size in choices.sizes),
        blocks=choices.blocks,
    )
    if space.size == 1:
        advice = "let its forward take sizes from the shapes of tensors, not from numbers"
        if _KEPT in reading.reasons.values():
            advice = "allow more with fewer --keep patterns"
        raise SpaceError(
            f"a model must have sizes that can shrink, but of {name} nothing is elastic: {_first_reason(reading.fixed())}; {advice}"
        )
    return space


class _Steps:
    """Reports progress by steps."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done, self._text = progress, -1, ""

    def next(self, text: str) -> None:
        self._done, self._text = self._done + 1, text
        self._progress(self._done, _STEPS, text)

    def within(self, done: int, total: int, text: str = "") -> None:
        self._progress(self._done, _STEPS, f"{self._text}: {done} of {total} {text}")


def _checked(image: Sequence[int], shares: Sequence[float], min_depth: int | None) -> tuple[float, ...]:
    if len(image) != _SIZES or any(size < 1 for size in image):
        raise SpaceError(f"an image must have channels, height and width, but is {'x'.join(map(str, image))}; give for example 3x224x224")
    if min_depth is not None and min_depth < 1:
        raise SpaceError(f"a run of blocks must keep at least 1, but the least depth is {min_depth}; choose 1 or more")
    found = tuple(sorted({*map(float, shares), 1.0}))
    if not all(0 < share <= 1 for share in found):
        raise SpaceError(f"widths must be shares of the model's own, above 0 and at most 1, but are {list(shares)}; change them")
    return found


def _check_patterns(keep: Sequence[str], tensors: Iterable[str]) -> None:
    """Raise SpaceError if a pattern matches nothing, which is probably a typing error."""
    names = {part for name in tensors for part in (name, name.rpartition(".")[0])}
    for pattern in keep:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise SpaceError(
                f"a pattern of what to keep must match a tensor or layer of the model, but '{pattern}' matches none; names are for "
                f"example {', '.join(sorted(names - {''})[:_NAMED])}"
            )


def _sides(image: Sequence[int]) -> tuple[Resolution, ...]:
    _, height, width = image
    return (height if height == width else (height, width),)


class _Reading:
    """Interprets a trace in terms of its verified groups."""

    def __init__(self, traced: Trace, groups: Sequence[Group], given_up: Mapping[str, str], keep: Sequence[str]) -> None:
        self.program: Program = simplify(traced)
        self._traced = traced
        kept = {group.name for group in groups if _is_kept(group, keep)}
        self.groups = {group.name: group for group in groups if group.name not in kept}
        self.reasons = {**given_up, **dict.fromkeys(kept, _KEPT)}
        self._names = names_of(traced)
        self._output = next(call for call in self.program.calls if call.name == self.program.output)
        self._class_symbol = self._find_classes()
        self.tensors = {**traced.tensors, **self.program.constants}

    def _find_classes(self) -> sympy.Symbol | None:
        shape = self._output.shape
        assert shape is not None
        return shape[1] if shape[1].is_Symbol else None

    @property
    def classes(self) -> int:
        """Number of classes, the length of the logits."""
        assert self._output.shape is not None
        return int(self._traced.sizes.value(self._output.shape[1]))

    def _meaning(self, symbol: sympy.Symbol) -> str | int:
        if symbol == self._class_symbol:
            return CLASSES
        name = self._names[symbol]
        return name if name in self.groups else int(self._traced.sizes.value(symbol))

    def dims(self) -> Dims:
        """The composition of the dimensions of all tensors."""
        runs = runs_by_dim(self.groups.values())
        if self._class_symbol is not None:
            for tensor, shape in self._traced.shapes.items():
                for dim, expr in enumerate(shape):
                    if self._traced.sizes.replace(expr) == self._class_symbol:
                        runs[tensor, dim] = (Run(CLASSES),)
        symbols = {symbol: self._meaning(symbol) for symbol in self._names}
        trained = {name for name in self._traced.tensors if name in self._traced.parameters}
        buffers = frozenset(self.tensors) - trained
        return Dims(runs, symbols, self._traced.batch, self.tensors, buffers)

    def parts(self) -> list[Part]:
        """The blocks; blocks of a run of equal ones have the number of the run."""
        dims = self.dims()
        segments = self._segments(dims)
        written = [write_segment(each, dims) for each in segments]
        keys = [(self._key(each), segment.skippable) for each, segment in zip(written, segments, strict=True)]
        parts = []
        for number, (begin, period, times) in enumerate(runs_of(keys)):
            for first in range(begin, begin + period * times, period):
                whole = written[first] if period == 1 else write_segment(joined(segments[first : first + period]), dims)
                parts.append(Part(whole, number if times > 1 else None))
        return parts

    def _segments(self, dims: Dims) -> list[Segment]:
        _, *image = self._traced.image
        shape = (self._traced.batch, *map(sympy.Integer, self._traced.image))
        assert image
        elastic = {symbol: str(name) for symbol, name in dims.symbols.items() if isinstance(name, str)}
        return cut(self.program, shape, self._traced.batch, elastic)

    def _key(self, written: Written) -> str:
        units = [self.groups[name].units for name in written.groups if name in self.groups]
        return f"{written.text}\n{units}"

    def fixed(self) -> Iterator[Fixed]:
        """Dimensions of parameters that do not shrink, without the pixels of kernels."""
        found = self.dims().runs
        reasons = self._traced.reasons
        for tensor, shape in self._traced.shapes.items():
            for dim, expr in enumerate(shape):
                replaced = self._traced.sizes.replace(expr)
                if any(run.axis in self.groups for run in found.get((tensor, dim), ())) or not expr.free_symbols:
                    continue
                size = int(self._traced.sizes.value(expr))
                if replaced == self._class_symbol:
                    reason = "is the number of classes"
                elif (tensor, dim) in reasons:
                    reason = str(reasons[tensor, dim])
                else:
                    names = [self._names[symbol] for symbol in replaced.free_symbols if symbol in self._names]
                    reason = next((self.reasons[name] for name in names if name in self.reasons), "is part of a product of sizes")
                yield Fixed(tensor, dim, size, reason)


def _is_kept(group: Group, patterns: Sequence[str]) -> bool:
    names = {member.tensor for member in group.members}
    names |= {name.rpartition(".")[0] for name in names}
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _first_reason(fixed: Iterator[Fixed]) -> str:
    first = next(fixed, None)
    return "it has no weights" if first is None else f"dimension {first.dim} of {first.tensor} {first.reason}"


def _with_resolutions(space: AdoptedSpace, model: nn.Module, image: Sequence[int], wanted: Sequence[Resolution] | None) -> AdoptedSpace:
    """The space with further resolutions, for which the model must compute the same program."""
    channels, height, width = image
    if wanted is None:
        step = 32 if min(height, width) >= 128 else 8
        sizes = [(_rounded(height * share, step), _rounded(width * share, step)) for share in _SMALLER]
    else:
        sizes = [(each, each) if isinstance(each, int) else each for each in wanted]
    fitting: list[Resolution] = []
    own = simplify(trace(model, tuple(image), elastic=False))
    for size in dict.fromkeys(sizes):
        if size == (height, width):
            continue
        if _computes_alike(model, (channels, *size), own):
            fitting.append(size[0] if size[0] == size[1] else (size[0], size[1]))
        elif wanted is None:
            break
        else:
            raise SpaceError(
                f"a model must compute images of every resolution by the same program, but for {size[0]}x{size[1]} px this one runs "
                f"another program than for {height}x{width} px; leave this resolution out"
            )
    return replace(space, resolutions=ascending([*space.resolutions, *fitting]))


def _rounded(side: float, step: int) -> int:
    return max(step, round(side / step) * step)


def _computes_alike(model: nn.Module, image: tuple[int, ...], own: Program) -> bool:
    try:
        other = simplify(trace(model, image, elastic=False))
    except SpaceError:
        return False
    same_calls = [_words(call) for call in other.calls] == [_words(call) for call in own.calls]
    return same_calls and all(torch.equal(value, own.constants[name]) for name, value in other.constants.items())


def _words(call: object) -> str:
    return f"{call.target} {call.args} {call.kwargs}"  # type: ignore[attr-defined]


def _filled(space: AdoptedSpace, parts: Sequence[Part], tensors: Mapping[str, Tensor]) -> Supernet:
    supernet = Supernet.empty(space)
    stored = supernet.named_tensors()
    with torch.no_grad():
        for block, part in zip(space.blocks, parts, strict=True):
            for local, name in part.written.names.items():
                stored[f"{block.place}.{local}"].copy_(tensors[name])
    return supernet


def _difference(model: nn.Module, supernet: Supernet, images: Tensor) -> float:
    """Relative difference between the outputs of the largest network and of the model."""
    # With gradients enabled: without them torch uses other operators for attention, which sum in another order.
    found = copied(model)(images)
    expected: Tensor = getattr(found, "logits", found).detach()
    actual = supernet.eval().subnet(supernet.space.largest(supernet.space.resolutions[-1]))(images).detach()
    supernet.train()
    difference = float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    if not difference <= _SAME:
        raise SpaceError(
            f"an adopted model must compute what it did before, but its program differs by {difference:.2g} of the largest output; "
            "look for values that are written in place through a slice, and write them out"
        )
    return difference


def _elastic_share(traced: Trace, reading: _Reading) -> float:
    elastic = {member.tensor for group in reading.groups.values() for member in group.members}
    counts = {name: tensor.numel() for name, tensor in traced.tensors.items() if name in traced.parameters}
    return sum(count for name, count in counts.items() if name in elastic) / max(1, sum(counts.values()))
