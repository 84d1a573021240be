"""Cuts a program into blocks, and finds blocks that networks can skip.

A program can be cut wherever only one value is alive, which directly yields residual blocks. Elsewhere every call would be a block of
its own, so calls are merged. Single calls join the layer with weights beside them. Layers around a depthwise layer, whose channels no other
block has, become one inverted bottleneck.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sympy
import torch

from ofa.adopting.program import Call, Program

__all__ = ["Segment", "cut", "joined", "runs_of"]

_aten = torch.ops.aten
_LAYERS = {_aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default, _aten.linear.default}
_MOST_JOINED = 8
"""Limit of blocks that are joined because they share channels with no other block."""


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a program with one input and one output value.

    Attributes:
        calls: its calls, in order.
        input: name of its input value; ``images`` for the first segment.
        before, after: shapes of its input and its output.
        branches: whether several values are alive inside, as in a residual block.
    """

    calls: tuple[Call, ...]
    input: str
    before: tuple[sympy.Expr, ...]
    after: tuple[sympy.Expr, ...]
    branches: bool

    @property
    def output(self) -> str:
        """Name of its output value."""
        return self.calls[-1].name

    @property
    def skippable(self) -> bool:
        """Whether it is residual: its input is added to its result and has the same shape, so that a network works without it."""
        if self.before != self.after:
            return False
        # The sum may be followed by elementwise calls, such as an activation.
        by_name = {call.name: call for call in self.calls}
        call = self.calls[-1]
        while call.target not in _SUMS and len(call.reads) == 1 and call.reads[0] in by_name and call.shape == self.after:
            call = by_name[call.reads[0]]
        return call.target in _SUMS and self.input in call.reads


_SUMS = (_aten.add.Tensor,)


def cut(program: Program, shape: tuple[sympy.Expr, ...], batch: sympy.Symbol, groups: Mapping[sympy.Symbol, str]) -> list[Segment]:
    """The blocks of a program, in order.

    Args:
        program: the program of a model.
        shape: shape of the images, including the batch.
        batch: symbol of the batch size.
        groups: the name of the group whose units a symbol counts, by symbol.
    """
    segments = list(_finest(program, shape, batch))
    return _joined_by_channels(_joined_by_layers(segments), groups)


def _finest(program: Program, shape: tuple[sympy.Expr, ...], batch: sympy.Symbol) -> Iterator[Segment]:
    """Cut wherever only one value is alive, with one image in each row, and no tensor is used on both sides."""
    calls = _late(program)
    last_read: dict[str, int] = {}
    last_tensor: dict[str, int] = {}
    for number, call in enumerate(calls):
        last_read.update(dict.fromkeys(call.reads, number))
        last_tensor.update(dict.fromkeys(call.tensors, number))
    begin, source, before = 0, "images", shape
    alive: set[str] = {"images"}
    open_tensors: set[str] = set()
    for number, call in enumerate(calls):
        alive.add(call.name)
        open_tensors.update(call.tensors)
        alive = {name for name in alive if last_read.get(name, -1) > number or name == program.output}
        open_tensors = {name for name in open_tensors if last_tensor[name] > number}
        is_last = number == len(calls) - 1
        if is_last or (alive == {call.name} and call.sees_images and not open_tensors and _has_images(call.shape, batch)):
            part = tuple(calls[begin : number + 1])
            assert call.shape is not None
            yield Segment(part, source, before, call.shape, _branches(part))
            begin, source, before = number + 1, call.name, call.shape


def _late(program: Program) -> list[Call]:
    """The calls, reordered so that calls independent of images come as late as possible."""
    by_name = {call.name: call for call in program.calls}
    done: dict[str, Call] = {}

    def add(call: Call) -> None:
        for name in call.reads:
            if name in by_name and name not in done and not by_name[name].sees_images:
                add(by_name[name])
        done[call.name] = call

    for call in program.calls:
        if call.sees_images:
            add(call)
    return list(done.values())


def _has_images(shape: tuple[sympy.Expr, ...] | None, batch: sympy.Symbol) -> bool:
    return shape is not None and 2 <= len(shape) <= 4 and shape[0] == batch and not any(batch in size.free_symbols for size in shape[1:])


def _branches(calls: Sequence[Call]) -> bool:
    """Whether a segment has more than one call that depends on the images."""
    return sum(call.sees_images for call in calls) > 1


def joined(parts: Sequence[Segment]) -> Segment:
    """Join consecutive segments to one."""
    calls = tuple(call for part in parts for call in part.calls)
    return Segment(calls, parts[0].input, parts[0].before, parts[-1].after, any(part.branches for part in parts))


def _is_weighted(part: Segment) -> bool:
    return any(call.target in _LAYERS or (call.target is _aten.matmul.default and call.tensors) for call in part.calls)


def _keeps_values(part: Segment) -> bool:
    """Whether it is a single call without tensors that keeps the shape, such as an activation."""
    return part.before == part.after and not any(call.tensors for call in part.calls) and len(part.calls) == 1


def _joined_by_layers(parts: Sequence[Segment]) -> list[Segment]:
    """Join single calls without weights with the layer before them, or, if that is a residual block, with the layer after them."""
    blocks: list[list[Segment]] = []
    waiting: list[Segment] = []
    for part in parts:
        if part.branches and (part.skippable or _is_weighted(part)):
            blocks += [waiting] * bool(waiting) + [[part]]
            waiting = []
        elif _is_weighted(part):
            blocks.append([*waiting, part])
            waiting = []
        elif blocks and not waiting and (_keeps_values(part) or not blocks[-1][0].branches):
            blocks[-1].append(part)
        else:
            waiting.append(part)
    if waiting and blocks and not blocks[-1][0].branches:
        blocks[-1] += waiting
    elif waiting:
        blocks.append(waiting)
    return [joined(block) for block in blocks]


def _joined_by_channels(parts: list[Segment], groups: Mapping[sympy.Symbol, str]) -> list[Segment]:
    """Join neighbours that share channels with no other block, such as the layers around a depthwise convolution."""
    windows = _windows(parts, groups)
    blocks: list[Segment] = []
    at = 0
    for begin, end in windows:
        begin = max(begin, at)
        if end - begin < 1 or any(part.skippable for part in parts[begin : end + 1]):
            continue
        blocks += [*parts[at:begin], joined(parts[begin : end + 1])]
        at = end + 1
    return [*blocks, *parts[at:]]


def _windows(parts: Sequence[Segment], groups: Mapping[sympy.Symbol, str]) -> list[tuple[int, int]]:
    spans: dict[sympy.Symbol, list[int]] = {}
    for number, part in enumerate(parts):
        for symbol in _symbols(part) & groups.keys():
            spans.setdefault(symbol, []).append(number)
    found = [(numbers[0], numbers[-1]) for symbol, numbers in spans.items() if 1 < numbers[-1] - numbers[0] < _MOST_JOINED]
    return sorted(set(found), key=lambda window: (window[0], -window[1]))


def _symbols(part: Segment) -> Collection[sympy.Symbol]:
    shapes = (part.before, part.after, *(call.shape or () for call in part.calls))
    return set().union(*(size.free_symbols for shape in shapes for size in shape))


def runs_of(keys: Sequence[tuple[str, bool]], *, longest: int = 4) -> list[tuple[int, int, int]]:
    """Find repeated blocks.

    Args:
        keys: for each block, a text of what it computes, and whether it is skippable.
        longest: the most blocks in a period; a transformer's layer, for example, has a period of attention and MLP.

    Returns:
        Runs as (begin, blocks in a period, periods); blocks without repetition are runs of one block and one period.
    """
    found, at = [], 0
    while at < len(keys):
        best = (at, 1, 1)
        for period in range(1, longest + 1):
            times = _times(keys, at, period)
            if times > 1 and period * times > best[1] * best[2]:
                best = (at, period, times)
                break
        found.append(best)
        at += best[1] * best[2]
    return found


def _times(keys: Sequence[tuple[str, bool]], at: int, period: int) -> int:
    unit = keys[at : at + period]
    if len(unit) < period or not all(skippable for _, skippable in unit):
        return 1
    times = 1
    while list(keys[at + times * period : at + (times + 1) * period]) == list(unit):
        times += 1
    return times
