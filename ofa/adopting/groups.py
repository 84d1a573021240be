"""Groups: which dimensions of which tensors shrink together, and which of their values belong to one unit of the group.

A dimension is a sum of runs, as concatenated channels are; a run of a group has ``outer x units x inner`` values in this order. The
queries, keys and values of attention in one matrix, for example, have 3 x heads x (values of a head). What torch knows of sizes does not
tell this order: the model's own reshapes and concatenations propose it, and a permutation of the units proves it, for the output of the
whole network must not change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from ofa.adopting.tracing import Trace

__all__ = ["Group", "Member", "Run", "find_groups", "ranges", "sliced"]

_MOST_LAYOUTS = 64
"""Ways to read the members of a group that are tried at most."""
_SEED = 0  # of the values that are exchanged: the same model always has the same groups
_SAME = 1e-9
"""Of the output's largest value: the order of a sum changes less than a thousandth of this in double precision."""


@dataclass(frozen=True)
class Run:
    """Values of a dimension that belong to one group, or to none.

    Attributes:
        group: its name; empty for values that stay.
        outer: how often the units follow each other.
        inner: values of a unit in a row; of no group all of its values.
    """

    group: str
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True)
class Member:
    """A dimension of a tensor that has units of a group.

    Attributes:
        tensor: name of a parameter or buffer of the model.
        dim: which of its dimensions.
        runs: what it is made of, in order; at least one is of the group.
    """

    tensor: str
    dim: int
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Group:
    """A size of the model that can shrink.

    Attributes:
        name: of the first tensor that has it.
        units: how many there are in the model as it is.
        members: where they are.
    """

    name: str
    units: int
    members: tuple[Member, ...]


def ranges(run: Run, full: Mapping[str, int], kept: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Begin and end of the values of a run that stay when a group keeps its leading units, counted from the run's beginning.

    Args:
        run: of a dimension.
        full: units by group in the model as it is.
        kept: units by group that stay; a group that is not named keeps all.
    """
    if not run.group:
        yield 0, run.inner
        return
    units = full[run.group]
    for outer in range(run.outer):
        begin = outer * units * run.inner
        yield begin, begin + kept.get(run.group, units) * run.inner


def sliced(tensor: Tensor, members: Iterable[Member], full: Mapping[str, int], kept: Mapping[str, int]) -> Tensor:
    """What a smaller network keeps of a tensor: a view where that is one leading range of each dimension.

    Args:
        tensor: of the model as it is.
        members: those of this tensor, each dimension once.
        full: units by group in the model as it is.
        kept: units by group that stay.
    """
    for member in members:
        parts, offset = [], 0
        for run in member.runs:
            parts += [(offset + begin, offset + end) for begin, end in ranges(run, full, kept)]
            offset += _length(run, full)
        joined = _joined(parts)
        pieces = [tensor.narrow(member.dim, begin, end - begin) for begin, end in joined]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces, member.dim)
    return tensor


def _length(run: Run, full: Mapping[str, int]) -> int:
    return run.outer * run.inner * (full[run.group] if run.group else 1)


def _joined(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges, with those that follow each other without a gap as one."""
    joined: list[tuple[int, int]] = []
    for begin, end in parts:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        elif end > begin:
            joined.append((begin, end))
    return joined


# -- from symbols to groups --------------------------------------------------------------------------------------------


def find_groups(trace: Trace, images: Tensor) -> tuple[list[Group], dict[str, str]]:
    """The groups of a model, each proven by a permutation of its units.

    Args:
        trace: of the model.
        images: [B, C, H, W] to prove them on.

    Returns:
        the groups, and by the name of each group that was given up the reason.
    """
    names = _names(trace)
    members = {name: list(found) for name, found in _members(trace, names).items()}
    full = {names[symbol]: int(trace.sizes.value(symbol)) for symbol in names}
    proof = _Proof(trace, images, full)
    groups, given_up = [], dict[str, str]()
    for name, found in members.items():
        proven = next((layout for layout in itertools.islice(_layouts(name, found), _MOST_LAYOUTS) if proof.holds(name, layout)), None)
        if proven is None:
            given_up[name] = "its values cannot be exchanged without changing the output"
        else:
            groups.append(Group(name, full[name], proven))
    return groups, given_up


def _names(trace: Trace) -> dict[sympy.Symbol, str]:
    """A name for each symbol of which nothing is known: that of the first tensor that has it."""
    names: dict[sympy.Symbol, str] = {}
    for tensor, shape in trace.shapes.items():
        for dim, expr in enumerate(map(trace.sizes.replace, shape)):
            for symbol in sorted(expr.free_symbols - names.keys() - {trace.batch}, key=str):
                names[symbol] = f"{tensor}[{dim}]"
    return names


def _members(trace: Trace, names: Mapping[sympy.Symbol, str]) -> dict[str, list[Member]]:
    """By group the dimensions that have some of it, read as the model's own concatenations and reshapes propose."""
    hints = _Hints(trace, names)
    members: dict[str, list[Member]] = {name: [] for name in names.values()}
    for tensor, shape in trace.shapes.items():
        for dim, expr in enumerate(map(trace.sizes.replace, shape)):
            if expr.free_symbols:
                runs = hints.runs(expr)
                for group in dict.fromkeys(run.group for run in runs if run.group):
                    members[group].append(Member(tensor, dim, runs))
    return members


class _Hints:
    """How the model's own calls read sizes that are made of others.

    Args:
        trace: of the model.
        names: of the symbols.
    """

    def __init__(self, trace: Trace, names: Mapping[sympy.Symbol, str]) -> None:
        self._sizes, self._names = trace.sizes, names
        self._cats: dict[sympy.Expr, list[sympy.Expr]] = {}
        self._splits: dict[sympy.Expr, tuple[int, int]] = {}
        for node in trace.graph.nodes:
            if node.target is torch.ops.aten.cat.default:
                self._note_cat(node)
            elif node.target in _RESHAPES:
                self._note_reshape(node)

    def runs(self, expr: sympy.Expr) -> tuple[Run, ...]:
        """The runs of a dimension of some size."""
        if expr in self._cats and len(set(self._cats[expr])) > 1:
            return tuple(run for part in self._cats[expr] for run in self.runs(part))
        runs = []
        for term in sympy.Add.make_args(expr):
            coefficient, rest = term.as_coeff_Mul()
            if not rest.is_Symbol:
                # A number; or a product of sizes, which stays: without this member their groups are not proven.
                runs.append(Run("", 1, int(self._sizes.value(term))))
                continue
            outer, inner = self._split(term, int(coefficient))
            runs.append(Run(self._names[rest], outer, inner))
        return tuple(runs)

    def _split(self, term: sympy.Expr, coefficient: int) -> tuple[int, int]:
        if term in self._cats:  # several of one size
            part = self._split(self._cats[term][0], coefficient // len(self._cats[term]))
            return len(self._cats[term]) * part[0], part[1]
        return self._splits.get(term, (1, coefficient))

    def _shape(self, node: fx.Node) -> list[sympy.Expr]:
        return [
            self._sizes.replace(size.node.expr) if isinstance(size, torch.SymInt) else sympy.Integer(size) for size in _value(node).shape
        ]

    def _note_cat(self, node: fx.Node) -> None:
        inputs = [part for part in node.all_input_nodes if isinstance(_value(part), Tensor)]
        ordered = [part for part in node.args[0] if isinstance(part, fx.Node)] if isinstance(node.args[0], Sequence) else inputs
        dim = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
        whole = self._shape(node)[dim]
        if whole.free_symbols:
            self._cats.setdefault(whole, [self._shape(part)[dim] for part in ordered])

    def _note_reshape(self, node: fx.Node) -> None:
        """A size that several others take the place of, or that takes the place of several: how its factors follow each other."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        for one, other in _aligned(self._shape(source), self._shape(node)):
            for fused, parts in ((one, other), (other, one)):
                if len(fused) == 1 < len(parts):
                    self._note_factors(fused[0], parts)

    def _note_factors(self, fused: sympy.Expr, parts: Sequence[sympy.Expr]) -> None:
        symbols = [number for number, part in enumerate(parts) if part.free_symbols]
        if len(symbols) != 1:
            return
        coefficient, symbol = parts[symbols[0]].as_coeff_Mul()
        outer, inner = math.prod(parts[: symbols[0]]), math.prod(parts[symbols[0] + 1 :])
        if symbol.is_Symbol:
            self._splits.setdefault(fused, (int(outer), int(inner * coefficient)))


def _aligned(before: Sequence[sympy.Expr], after: Sequence[sympy.Expr]) -> Iterator[tuple[list[sympy.Expr], list[sympy.Expr]]]:
    """The shapes before and after a reshape as the shortest parts of equal products, from the left."""
    begin, start = 0, 0
    while begin < len(before) and start < len(after):
        ends = itertools.product(range(begin + 1, len(before) + 1), range(start + 1, len(after) + 1))
        equal = ((end, stop) for end, stop in ends if sympy.expand(math.prod(before[begin:end]) - math.prod(after[start:stop])) == 0)
        end, stop = next(equal, (len(before), len(after)))
        yield list(before[begin:end]), list(after[start:stop])
        begin, start = end, stop


_RESHAPES = (torch.ops.aten.view.default, torch.ops.aten.reshape.default, torch.ops.aten._unsafe_view.default)


def _value(node: fx.Node) -> Tensor:
    found: Tensor = node.meta["val"]
    return found


# -- proof -------------------------------------------------------------------------------------------------------------


def _layouts(name: str, members: Sequence[Member]) -> Iterator[tuple[Member, ...]]:
    """Ways to read the members of a group: as proposed, then each way to split their units into outer and inner ones."""
    sizes = list(dict.fromkeys(run.outer * run.inner for member in members for run in member.runs if run.group == name))
    proposed = {run.outer * run.inner: (run.outer, run.inner) for member in members for run in member.runs if run.group == name}
    yield tuple(members)
    for choice in itertools.product(*(_factors(size, proposed[size]) for size in sizes)):
        split = dict(zip(sizes, choice, strict=True))
        yield tuple(replace(member, runs=tuple(_as(run, name, split) for run in member.runs)) for member in members)


def _as(run: Run, name: str, split: Mapping[int, tuple[int, int]]) -> Run:
    return Run(name, *split[run.outer * run.inner]) if run.group == name else run


def _factors(size: int, first: tuple[int, int]) -> list[tuple[int, int]]:
    pairs = [(outer, size // outer) for outer in range(1, size + 1) if size % outer == 0]
    return sorted(pairs, key=lambda pair: (pair != first, pair[0] != 1, min(pair) > 1))


class _Proof:
    """Whether the output of a network stays when units of a group change places."""

    def __init__(self, trace: Trace, images: Tensor, full: Mapping[str, int]) -> None:
        self._trace, self._full = trace, full
        self._images = images.double()
        self._tensors = _drawn(trace.tensors)
        self._expected = self._run(self._tensors)

    def holds(self, name: str, members: Sequence[Member]) -> bool:
        order = torch.arange(self._full[name]).roll(1)
        tensors = dict(self._tensors)
        for member in members:
            index = _permuted(member.runs, name, order, self._full)
            tensors[member.tensor] = tensors[member.tensor].index_select(member.dim, index)
        difference = (self._run(tensors) - self._expected).abs().max()
        return bool(difference <= _SAME * self._expected.abs().max())

    def _run(self, tensors: Mapping[str, Tensor]) -> Tensor:
        ordered = [tensors[name] for name in self._trace.tensors]
        with torch.no_grad():
            output: Tensor = _InDouble(self._trace.program).run(self._images, *ordered)
        return output


class _InDouble(fx.Interpreter):
    """Computes in double precision where the model's code names single precision."""

    def run_node(self, n: fx.Node) -> Any:
        with self._set_current_node(n):
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            args, kwargs = fx.node.map_aggregate((args, kwargs), lambda each: torch.float64 if each is torch.float32 else each)
            return getattr(self, n.op)(n.target, args, kwargs)


def _drawn(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random values in place of a model's own, among which zeros and equal ones would hide what they are exchanged with."""
    generator, drawn = torch.Generator().manual_seed(_SEED), dict[str, Tensor]()
    for name, tensor in tensors.items():
        values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        if not tensor.is_floating_point():
            drawn[name] = tensor
        elif tensor.dim() > 1:
            drawn[name] = (values - 0.5) * math.sqrt(12 / tensor[0].numel())
        else:
            drawn[name] = values + 0.5  # as a variance must be
    return drawn


def _permuted(runs: Sequence[Run], name: str, order: Tensor, full: Mapping[str, int]) -> Tensor:
    parts, offset = [], 0
    for run in runs:
        index = torch.arange(offset, offset + _length(run, full))
        parts.append(index.view(run.outer, -1, run.inner)[:, order].flatten() if run.group == name else index)
        offset += len(index)
    return torch.cat(parts)
