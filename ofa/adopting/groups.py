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
from ofa.blocks.runs import Run, gathered, kept_ranges, permuted

__all__ = ["Group", "Member", "find_groups", "names_of", "sliced"]

_MOST_LAYOUTS = 64
"""Ways to read the members of a group that are tried at most."""
_SEED = 0  # of the values that are exchanged and their orders: the same model always has the same groups
_FEW = 8
"""Units: two groups of fewer may get the same order by chance, and then seem to be independent though they are not."""
_SAME = 1e-9
"""Of the output's largest value: the order of a sum changes less than a thousandth of this in double precision."""


@dataclass(frozen=True)
class Member:
    """A dimension of a tensor that has units of a group.

    Attributes:
        tensor: name of a parameter or buffer of the model.
        dim: which of its dimensions.
        runs: what it is made of, in order; at least one is of the group.
        is_matrix: whether the tensor has two dimensions, as the weight of a linear layer.
    """

    tensor: str
    dim: int
    runs: tuple[Run, ...]
    is_matrix: bool = False


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


def sliced(tensor: Tensor, members: Iterable[Member], full: Mapping[str, int], kept: Mapping[str, int]) -> Tensor:
    """What a smaller network keeps of a tensor: a view where that is one leading range of each dimension.

    Args:
        tensor: of the model as it is.
        members: those of this tensor, each dimension once.
        full: units by group in the model as it is.
        kept: units by group that stay.
    """
    for member in members:
        tensor = gathered(tensor, member.dim, kept_ranges(member.runs, full, kept))
    return tensor


# -- from symbols to groups --------------------------------------------------------------------------------------------


def find_groups(trace: Trace, images: Tensor) -> tuple[list[Group], dict[str, str]]:
    """The groups of a model, each proven by a permutation of its units.

    Args:
        trace: of the model.
        images: [B, C, H, W] to prove them on.

    Returns:
        the groups, and by the name of each group that was given up the reason.
    """
    names = names_of(trace)
    members = {name: list(found) for name, found in _members(trace, names).items()}
    full = {names[symbol]: int(trace.sizes.value(symbol)) for symbol in names}
    proof = _Proof(trace, images, full)
    proposed = {name: tuple(found) for name, found in members.items()}
    few = [name for name in proposed if full[name] < _FEW]
    proven = proof.holding({name: found for name, found in proposed.items() if name not in few})
    proven |= {name for name in few if proof.holds({name: proposed[name]})}
    groups, given_up = [], dict[str, str]()
    for name, found in proposed.items():
        others = itertools.islice(_layouts(name, found), 1, _MOST_LAYOUTS)
        layout = found if name in proven else next((each for each in others if proof.holds({name: each})), None)
        if layout is None:
            given_up[name] = "its values cannot be exchanged without changing the output"
        else:
            groups.append(Group(name, full[name], layout))
    return groups, given_up


def names_of(trace: Trace) -> dict[sympy.Symbol, str]:
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
                for group in dict.fromkeys(run.axis for run in runs if run.axis):
                    members[group].append(Member(tensor, dim, runs, len(shape) == 2))
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
            elif node.target in _SPLITS:
                self._note_split(node)
            elif node.target in _RESHAPES:
                self._note_reshape(node)

    def runs(self, expr: sympy.Expr) -> tuple[Run, ...]:
        """The runs of a dimension of some size."""
        if not _is_sum(expr):
            return (Run("", 1, int(self._sizes.value(expr))),)
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
        return self._exprs(node.meta["val"])

    def _exprs(self, value: Tensor) -> list[sympy.Expr]:
        return [self._sizes.replace(size.node.expr) if isinstance(size, torch.SymInt) else sympy.Integer(size) for size in value.shape]

    def _note_cat(self, node: fx.Node) -> None:
        inputs = [part for part in node.all_input_nodes if isinstance(_value(part), Tensor)]
        ordered = [part for part in node.args[0] if isinstance(part, fx.Node)] if isinstance(node.args[0], Sequence) else inputs
        dim = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
        self._note_sum(self._shape(node)[dim], [self._shape(part)[dim] for part in ordered])

    def _note_split(self, node: fx.Node) -> None:
        dim = int(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))  # type: ignore[arg-type]
        source = node.args[0]
        assert isinstance(source, fx.Node)
        self._note_sum(self._shape(source)[dim], [self._exprs(part)[dim] for part in node.meta["val"]])

    def _note_sum(self, whole: sympy.Expr, parts: list[sympy.Expr]) -> None:
        if whole.free_symbols and all(map(_is_sum, parts)):
            self._cats.setdefault(whole, parts)

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


def _is_sum(expr: sympy.Expr) -> bool:
    """Whether nothing is taken off: what is left of a size has no runs of its own."""
    return all(term.as_coeff_Mul()[0] > 0 for term in sympy.Add.make_args(expr))


def _aligned(before: Sequence[sympy.Expr], after: Sequence[sympy.Expr]) -> Iterator[tuple[list[sympy.Expr], list[sympy.Expr]]]:
    """The shapes before and after a reshape as the shortest parts of equal products, from the left."""
    begin, start = 0, 0
    while begin < len(before) and start < len(after):
        ends = itertools.product(range(begin + 1, len(before) + 1), range(start + 1, len(after) + 1))
        equal = ((end, stop) for end, stop in ends if sympy.expand(math.prod(before[begin:end]) - math.prod(after[start:stop])) == 0)
        end, stop = next(equal, (len(before), len(after)))
        yield list(before[begin:end]), list(after[start:stop])
        begin, start = end, stop


_SPLITS = (
    torch.ops.aten.split.Tensor,
    torch.ops.aten.split.sizes,
    torch.ops.aten.split_with_sizes.default,
    torch.ops.aten.chunk.default,
)
_RESHAPES = (torch.ops.aten.view.default, torch.ops.aten.reshape.default, torch.ops.aten._unsafe_view.default)


def _value(node: fx.Node) -> Tensor:
    found: Tensor = node.meta["val"]
    return found


# -- proof -------------------------------------------------------------------------------------------------------------


def _layouts(name: str, members: Sequence[Member]) -> Iterator[tuple[Member, ...]]:
    """Ways to read the members of a group: as proposed, then each way to split their units into outer and inner ones."""
    sizes = list(dict.fromkeys(run.outer * run.inner for member in members for run in member.runs if run.axis == name))
    proposed = {run.outer * run.inner: (run.outer, run.inner) for member in members for run in member.runs if run.axis == name}
    yield tuple(members)
    for choice in itertools.product(*(_factors(size, proposed[size]) for size in sizes)):
        split = dict(zip(sizes, choice, strict=True))
        yield tuple(replace(member, runs=tuple(_as(run, name, split) for run in member.runs)) for member in members)


def _as(run: Run, name: str, split: Mapping[int, tuple[int, int]]) -> Run:
    return Run(name, *split[run.outer * run.inner]) if run.axis == name else run


def _factors(size: int, first: tuple[int, int]) -> list[tuple[int, int]]:
    pairs = [(outer, size // outer) for outer in range(1, size + 1) if size % outer == 0]
    return sorted(pairs, key=lambda pair: (pair != first, pair[0] != 1, min(pair) > 1))


class _Proof:
    """Whether the output of a network stays when units of a group change places."""

    def __init__(self, trace: Trace, images: Tensor, full: Mapping[str, int]) -> None:
        self._trace, self._full = trace, full
        generator = torch.Generator().manual_seed(_SEED)
        self._orders = {name: _cycle(units, generator) for name, units in full.items()}
        self._images = images.double()
        self._tensors = _drawn(trace.tensors)
        self._expected = self._run(self._tensors)

    def holding(self, layouts: Mapping[str, Sequence[Member]]) -> set[str]:
        """The groups that hold, found by as few runs of the network as can be: of all at once, then of halves of what does not."""
        if not layouts or self.holds(layouts):
            return set(layouts)
        names = list(layouts)
        halves = (names[: len(names) // 2], names[len(names) // 2 :]) if len(names) > 1 else ()
        return set().union(*(self.holding({name: layouts[name] for name in half}) for half in halves))

    def holds(self, layouts: Mapping[str, Sequence[Member]]) -> bool:
        """Whether the output stays when units of all these groups change places, those of each in an order of its own."""
        tensors = dict(self._tensors)
        for name, members in layouts.items():
            for member in members:
                index = permuted(member.runs, name, self._orders[name], self._full)
                tensors[member.tensor] = tensors[member.tensor].index_select(member.dim, index)
        difference = (self._run(tensors) - self._expected).abs().max()
        return bool(difference <= _SAME * self._expected.abs().max())

    def _run(self, tensors: Mapping[str, Tensor]) -> Tensor:
        ordered = [tensors[name] for name in self._trace.tensors]
        with torch.no_grad():
            output: Tensor = _InDouble(self._trace.program).run(self._images, *ordered)
        return output


def _cycle(units: int, generator: torch.Generator) -> Tensor:
    """A random order in which every unit has another place than before."""
    perm = torch.randperm(units, generator=generator)
    return torch.empty_like(perm).index_put_((perm,), perm.roll(1))


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
