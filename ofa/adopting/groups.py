"""The groups of a model: which dimensions of which tensors are coupled, and which of their values belong to one unit of the group.

torch's symbolic sizes tell which dimensions have units of a group, but not in which order. The model's own reshapes and concatenations
propose the order as runs (``ofa.blocks.runs``). A permutation of the units then verifies it: the network's output must not change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from ofa.adopting.sizes import Sizes
from ofa.adopting.tracing import Trace
from ofa.blocks.runs import Run
from ofa.groups import Group, Member
from ofa.progress import Progress, silent

__all__ = ["find_groups", "names_of"]

_MOST_LAYOUTS = 64
"""The most layouts of a group's members that are tried."""
_SEED = 0  # seed of random weights and permutations: the same model always has the same groups
_FEW = 8
"""Groups of fewer units are verified one by one: two of them may get the same permutation by chance, and so seem independent."""
_SAME = 1e-9
"""Largest change of the output, relative to its largest value. In double precision, another order of a sum changes it by less than a
thousandth of this."""


# -- from symbols to groups --------------------------------------------------------------------------------------------


def find_groups(trace: Trace, images: Tensor, progress: Progress = silent) -> tuple[list[Group], dict[str, str]]:
    """The groups of a model, each verified by a permutation of its units.

    Args:
        trace: trace of the model.
        images: images [B, C, H, W] to verify them on.
        progress: told after each run of the model how many groups are decided.

    Returns:
        The groups, and for each rejected group, by name, the reason.
    """
    classes = _classes(trace)  # classes cannot be permuted, so a test of all groups at once would always fail with them
    proposed = [group for group in _proposed(trace) if group.name not in classes]
    proof = _Proof(trace, images, proposed, progress)
    proven = proof.holding([group for group in proposed if group.units >= _FEW])
    proven |= {group.name for group in proposed if group.units < _FEW and proof.holds([group])}
    groups, given_up = list[Group](), dict.fromkeys(classes, "is the number of classes")
    for group in proposed:
        others = itertools.islice(_layouts(group), 1, _MOST_LAYOUTS)
        found = group if group.name in proven else next((each for each in others if proof.holds([each])), None)
        if found is None:
            given_up[group.name] = "its values cannot be exchanged without changing the output"
            proof.decide(1)
        else:
            groups.append(found)
    return groups, given_up


def names_of(trace: Trace) -> dict[sympy.Symbol, str]:
    """A name for each free symbol: the first dimension that consists of it alone, otherwise its part of the first dimension with it."""
    firsts: dict[sympy.Symbol, str] = {}
    own: dict[sympy.Symbol, str] = {}
    for tensor, shape in trace.shapes.items():
        for dim, expr in enumerate(map(trace.sizes.replace, shape)):
            symbols, place = sorted(expr.free_symbols - {trace.batch}, key=str), f"{tensor}[{dim}]"
            if len(symbols) == 1:
                own.setdefault(symbols[0], place)
            for number, symbol in enumerate(symbols):
                firsts.setdefault(symbol, f"{place}.{number}")
    return {symbol: own.get(symbol, part) for symbol, part in firsts.items()}


def _classes(trace: Trace) -> list[str]:
    """The names of the sizes that make up the length of the logits."""
    names = names_of(trace)
    _, length = _shape_of(_value(trace.graph.output_node().args[0]), trace.sizes)
    return [names[symbol] for symbol in length.free_symbols if symbol in names]


def _proposed(trace: Trace) -> list[Group]:
    """The groups with all dimensions that contain their units, in the layout that the model's concatenations and reshapes propose."""
    names = names_of(trace)
    hints, full = _Hints(trace, names), {name: int(trace.sizes.value(symbol)) for symbol, name in names.items()}
    members: dict[str, list[Member]] = {name: [] for name in full}
    for tensor, shape in trace.shapes.items():
        for dim, expr in enumerate(map(trace.sizes.replace, shape)):
            if expr.free_symbols:
                runs = hints.runs(expr)
                for group in dict.fromkeys(run.axis for run in runs if run.axis):
                    own = (run if run.axis == group else Run("", 1, run.length(full)) for run in runs)
                    members[group].append(Member(tensor, dim, tuple(own)))
    # Groups that occur only in products of sizes have no members.
    return [Group(name, full[name], tuple(found)) for name, found in members.items() if found]


class _Hints:
    """Hints from the model's own calls about the layout of composed sizes.

    Args:
        trace: trace of the model.
        names: names of the symbols.
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
        """The runs of a dimension, by its size."""
        if not _is_sum(expr):
            return (Run("", 1, int(self._sizes.value(expr))),)
        if expr in self._cats and len(set(self._cats[expr])) > 1:
            return tuple(run for part in self._cats[expr] for run in self.runs(part))
        runs = []
        for term in sympy.Add.make_args(expr):
            coefficient, rest = term.as_coeff_Mul()
            if not rest.is_Symbol:
                # A number, or a product of sizes, which stays fixed; without this member, verification of their groups fails.
                runs.append(Run("", 1, int(self._sizes.value(term))))
                continue
            outer, inner = self._split(term, int(coefficient))
            runs.append(Run(self._names[rest], outer, inner))
        return tuple(runs)

    def _split(self, term: sympy.Expr, coefficient: int) -> tuple[int, int]:
        if term in self._cats:  # a concatenation of several parts of equal size
            part = self._split(self._cats[term][0], coefficient // len(self._cats[term]))
            return len(self._cats[term]) * part[0], part[1]
        return self._splits.get(term, (1, coefficient))

    def _shape(self, node: fx.Node) -> list[sympy.Expr]:
        return _shape_of(_value(node), self._sizes)

    def _note_cat(self, node: fx.Node) -> None:
        inputs = [part for part in node.all_input_nodes if isinstance(_value(part), Tensor)]
        ordered = [part for part in node.args[0] if isinstance(part, fx.Node)] if isinstance(node.args[0], Sequence) else inputs
        dim = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
        self._note_sum(self._shape(node)[dim], [self._shape(part)[dim] for part in ordered])

    def _note_split(self, node: fx.Node) -> None:
        dim = int(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))  # type: ignore[arg-type]
        source = node.args[0]
        assert isinstance(source, fx.Node)
        self._note_sum(self._shape(source)[dim], [_shape_of(part, self._sizes)[dim] for part in node.meta["val"]])

    def _note_sum(self, whole: sympy.Expr, parts: list[sympy.Expr]) -> None:
        if whole.free_symbols and whole not in parts and all(map(_is_sum, parts)):  # a single part is no composition
            self._cats.setdefault(whole, parts)

    def _note_reshape(self, node: fx.Node) -> None:
        """Note the order of factors where a reshape fuses several sizes into one or splits one into several."""
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
    """Whether a size is a sum of positive terms; a difference of sizes has no runs."""
    return all(term.as_coeff_Mul()[0] > 0 for term in sympy.Add.make_args(expr))


def _aligned(before: Sequence[sympy.Expr], after: Sequence[sympy.Expr]) -> Iterator[tuple[list[sympy.Expr], list[sympy.Expr]]]:
    """Split the shapes before and after a reshape, from the left, into the shortest parts of equal products."""
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
_RESHAPES = (
    torch.ops.aten.view.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.unflatten.int,
    torch.ops.aten.flatten.using_ints,
)


def _value(node: Any) -> Tensor:
    found: Tensor = node.meta["val"]
    return found


def _shape_of(value: Tensor, sizes: Sizes) -> list[sympy.Expr]:
    return [sizes.replace(size.node.expr) if isinstance(size, torch.SymInt) else sympy.Integer(size) for size in value.shape]


# -- verification ------------------------------------------------------------------------------------------------------


def _layouts(group: Group) -> Iterator[Group]:
    """Layouts of a group's members: the proposed one, then each split of their units into outer and inner factors."""
    proposed = {run.outer * run.inner: (run.outer, run.inner) for member in group.members for run in member.runs if run.axis}
    yield group
    for choice in itertools.product(*(_factors(size, split) for size, split in proposed.items())):
        splits = dict(zip(proposed, choice, strict=True))
        members = (replace(member, runs=tuple(_as(run, splits) for run in member.runs)) for member in group.members)
        yield replace(group, members=tuple(members))


def _as(run: Run, splits: Mapping[int, tuple[int, int]]) -> Run:
    return Run(run.axis, *splits[run.outer * run.inner]) if run.axis else run


def _factors(size: int, first: tuple[int, int]) -> list[tuple[int, int]]:
    pairs = [(outer, size // outer) for outer in range(1, size + 1) if size % outer == 0]
    return sorted(pairs, key=lambda pair: (pair != first, pair[0] != 1, min(pair) > 1))


class _Proof:
    """Tests whether a network's output is invariant to permutations of a group's units."""

    def __init__(self, trace: Trace, images: Tensor, groups: Sequence[Group], progress: Progress) -> None:
        self._trace, self._progress, self._decided = trace, progress, 0
        generator = torch.Generator().manual_seed(_SEED)
        self._orders = {group.name: _cycle(group.units, generator) for group in groups}
        self._images = images.double()
        self._tensors = _drawn(trace.tensors)
        self._expected = self._run(self._tensors)

    def holding(self, groups: Sequence[Group]) -> set[str]:
        """The names of the groups that pass, with few runs of the network: all groups at once, then halves of a set that fails."""
        if not groups or self.holds(groups):
            return {group.name for group in groups}
        middle = len(groups) // 2
        return self.holding(groups[:middle]) | self.holding(groups[middle:]) if middle else set()

    def holds(self, groups: Sequence[Group]) -> bool:
        """Whether the output is unchanged when the units of all these groups are permuted, each group by its own permutation."""
        tensors = dict(self._tensors)
        for group in groups:
            for member in group.members:
                tensors[member.tensor] = group.reordered(member, tensors[member.tensor], self._orders[group.name])
        difference = (self._run(tensors) - self._expected).abs().max()
        holds = bool(difference <= _SAME * self._expected.abs().max())
        self.decide(len(groups) * holds)
        return holds

    def decide(self, groups: int) -> None:
        """Report that this many more groups are verified or rejected."""
        self._decided += groups
        self._progress(self._decided, len(self._orders), "groups")

    def _run(self, tensors: Mapping[str, Tensor]) -> Tensor:
        ordered = [tensors[name] for name in self._trace.tensors]
        with torch.no_grad():
            output: Tensor = _InDouble(self._trace.program).run(self._images, *ordered)
        return output


def _cycle(units: int, generator: torch.Generator) -> Tensor:
    """A random cyclic permutation, so that every unit moves."""
    perm = torch.randperm(units, generator=generator)
    return torch.empty_like(perm).index_put_((perm,), perm.roll(1))


class _InDouble(fx.Interpreter):
    """Runs a program in double precision, even where the model's code names float32."""

    def run_node(self, n: fx.Node) -> Any:
        with self._set_current_node(n):
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            args, kwargs = fx.node.map_aggregate((args, kwargs), lambda each: torch.float64 if each is torch.float32 else each)
            return getattr(self, n.op)(n.target, args, kwargs)


def _drawn(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Random weights in place of a model's own, in which zeros and equal values would hide a permutation."""
    generator, drawn = torch.Generator().manual_seed(_SEED), dict[str, Tensor]()
    for name, tensor in tensors.items():
        values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        if not tensor.is_floating_point():
            drawn[name] = tensor
        elif tensor.dim() > 1:
            drawn[name] = (values - 0.5) * math.sqrt(12 / tensor[0].numel())
        else:
            drawn[name] = values + 0.5  # positive, because it may be a variance
    return drawn
