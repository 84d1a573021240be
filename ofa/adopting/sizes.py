"""Sizes as symbols while a model is traced: what torch has to equate becomes one elastic size, what it compares with a number is fixed.

torch's own ``ShapeEnv`` proves each answer for all sizes, and each proof goes through everything that is known: for windowed attention
that takes minutes. Here a comparison is answered by the sizes that the model really has; of the answer only equalities are kept. What they
lead to is verified afterwards on the program itself, so nothing has to be proven while it is traced.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sympy
import torch
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.functions import FloorDiv, Mod

from ofa.errors import SpaceError

__all__ = ["Reason", "Sizes", "reason_of"]

_NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(sympy.__file__).parent), str(Path(__file__).parent))
_CALL = (str(Path(__file__).parent / "tracing.py"), "run")
"""What calls the model."""


@dataclass(frozen=True)
class Reason:
    """Why a size is fixed.

    Attributes:
        rule: half a sentence: what the model does with it.
        file: the file of the model's code whose line does it; empty if the size was fixed by no line.
        line: its number.
        code: its text.
    """

    rule: str
    file: str = ""
    line: int = 0
    code: str = ""

    def __str__(self) -> str:
        return f"{self.rule} ({Path(self.file).name}:{self.line}: {self.code})" if self.file else self.rule


class Sizes(ShapeEnv):
    """What is known of the sizes of a model while it is traced.

    Attributes:
        images: the symbol of their number; None before there is one.
        known: by symbol what it is in terms of other symbols, which themselves are not known.
        reasons: by symbol why it is a number.
    """

    def __init__(self) -> None:
        self.images: sympy.Symbol | None = None
        self.known: dict[sympy.Symbol, sympy.Expr] = {}
        self.reasons: dict[sympy.Symbol, Reason] = {}
        self._values: dict[sympy.Symbol, int] = {}
        self._canonical: dict[sympy.Basic, sympy.Basic] = {}
        super().__init__(duck_shape=False, specialize_zero_one=True)

    # -- what torch asks ----------------------------------------------------------------------------------------------

    def create_symbol(self, val: Any, *args: Any, **kwargs: Any) -> Any:
        """A new size; torch's own, whose value is remembered."""
        symbol = super().create_symbol(val, *args, **kwargs)
        if isinstance(symbol, sympy.Symbol):
            self._values[symbol] = int(val)
        return symbol

    def replace(self, expr: Any) -> Any:  # type: ignore[override]
        """An expression in terms of symbols of which nothing is known."""
        if not self.known or not isinstance(expr, sympy.Basic):
            return expr
        if expr not in self._canonical:
            known = {symbol: self.known[symbol] for symbol in expr.free_symbols if symbol in self.known}
            self._canonical[expr] = expr.xreplace(known) if known else expr
        return self._canonical[expr]

    def simplify(self, expr: Any, size_oblivious: bool = False) -> Any:  # type: ignore[override]
        """As ``replace``."""
        return self.replace(expr)

    def evaluate_sym_node(self, sym_node: SymNode, size_oblivious: bool = False, fallback_value: Any = None) -> Any:
        """The value that an expression has in the model as it is.

        Raises:
            SpaceError: it is one of a tensor's values.
        """
        if sym_node.hint is None:
            raise SpaceError(
                f"a model must take its decisions without the values of tensors, but this one looks at them: it {_reason('does that')}; "
                "take such decisions out of its forward"
            )
        self._note(sym_node.expr, sym_node.hint)
        return sym_node.hint

    def evaluate_expr(self, orig_expr: Any, hint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As ``evaluate_sym_node``."""
        value = self.value(orig_expr)
        self._note(orig_expr, value)
        return value

    def guard_or_defer_runtime_assert(self, orig_expr: Any, msg: str, fx_node: Any = None) -> bool:  # type: ignore[override]
        """As ``evaluate_expr``."""
        return bool(self.evaluate_expr(orig_expr))

    def _maybe_evaluate_static(self, expr: Any, **_: Any) -> Any:  # type: ignore[override]
        """Whether an expression has one value for all sizes: only as far as that is plain."""
        expr = self.replace(expr)
        plain = expr in (sympy.true, sympy.false) or getattr(expr, "is_number", False)
        return expr if plain else None

    # -- what follows from the answers --------------------------------------------------------------------------------

    def value(self, expr: Any) -> Any:
        """What an expression comes to in the model as it is."""
        if not isinstance(expr, sympy.Basic):
            return expr
        return expr.xreplace({symbol: sympy.Integer(self._values[symbol]) for symbol in expr.free_symbols})

    def _note(self, expr: Any, value: Any) -> None:
        """Take what follows from a comparison that torch or the model made, or from a number that it took a size for."""
        expr = self.replace(expr)
        if not isinstance(expr, sympy.Basic) or not expr.free_symbols:
            return
        if isinstance(expr, sympy.Ne):
            expr, value = sympy.Eq(expr.lhs, expr.rhs, evaluate=False), not value
        if isinstance(expr, sympy.Eq):
            if value:
                self._equate(expr.lhs, expr.rhs)
        elif not isinstance(expr, sympy.Rel | sympy.logic.boolalg.BooleanFunction):
            self.fix(expr, "is taken for a number")

    def _equate(self, one: Any, other: Any) -> None:
        for division in (one - other).atoms(Mod, FloorDiv):
            self.divide(*division.args)
        difference = self.replace(one - other)
        if difference.atoms(Mod):
            return
        exact = {each: each.args[0] / each.args[1] for each in difference.atoms(FloorDiv) if self.value(each.args[0] % each.args[1]) == 0}
        difference, _ = sympy.fraction(sympy.together(difference.xreplace(exact)))
        self._solve(self._vanishing(sympy.expand(difference)))

    def divide(self, numerator: Any, divisor: Any) -> None:
        """Take that one size is a multiple of another, where it is one in the model as it is."""
        numerator, divisor = map(self.replace, (sympy.sympify(numerator), sympy.sympify(divisor)))
        remainder = numerator % divisor
        if remainder == 0 or self.value(remainder) != 0:
            return
        if divisor.is_Integer and divisor > 1 and not numerator.is_Symbol:
            # Images may be any number, so it must be the only size that is such a multiple.
            multiples = [each for each in numerator.free_symbols if self._values[each] % int(divisor) == 0]
            numerator = multiples[0] if numerator.is_Mul and len(multiples) == 1 else numerator
        if numerator.is_Symbol and divisor.is_Integer and divisor > 1:
            if self._values[numerator] == divisor:
                self.fix(numerator, f"must be a multiple of {divisor}")
                return
            unit = sympy.Symbol(f"{numerator}_{divisor}", integer=True, positive=True)
            self._values[unit] = self._values[numerator] // int(divisor)
            self._learn(numerator, divisor * unit)
            return
        for symbol in divisor.free_symbols - numerator.free_symbols:
            # For all sizes that is so only where the same size is a factor of both, such as channels before and after a layer.
            same = [each for each in numerator.free_symbols - divisor.free_symbols if self._values[each] == self._values[symbol]]
            if len(same) == 1:
                self._learn(*sorted((symbol, same[0]), key=self._age, reverse=True))

    def _vanishing(self, difference: Any) -> Any:
        """The factor of a product that is zero for the sizes of the model."""
        if len(difference.free_symbols) < 2:
            return difference
        factors = [factor for factor in sympy.Mul.make_args(sympy.factor(difference)) if factor.free_symbols]
        return next((sympy.expand(factor) for factor in factors if self.value(factor) == 0), difference)

    def _solve(self, difference: Any) -> None:
        """Take that an expression is zero."""
        if not difference.free_symbols or self.value(difference) != 0:
            return
        solutions = list(self._solutions(difference))
        # A size is rather the sum of others than what is left of another: a sum follows whatever its parts are.
        for symbol, solution in sorted(solutions, key=lambda found: any(n < 0 for n in found[1].as_coefficients_dict().values())):
            if solution.is_Integer:
                self.fix(symbol, f"must be {solution}")
            else:
                self._learn(symbol, solution)
            return
        rule = "takes part in an equation of several sizes"
        self.fix(sympy.Tuple(*difference.free_symbols - {self.images}), rule)  # images may be any number, if that is enough
        self.fix(difference, rule)

    def _solutions(self, difference: Any) -> Iterator[tuple[sympy.Symbol, Any]]:
        """What each symbol is by the others, in whole numbers, where an expression is zero; the newest first."""
        for symbol in sorted(difference.free_symbols, key=self._age, reverse=True):
            coefficient = difference.coeff(symbol, 1)
            rest = sympy.expand(difference - coefficient * symbol)
            if not coefficient.is_Integer or symbol in rest.free_symbols:
                continue
            solution = sympy.expand(-rest / coefficient)
            if all(term.is_Integer for term in solution.as_coefficients_dict().values()):
                yield symbol, solution

    def _age(self, symbol: sympy.Symbol) -> int:
        return list(self._values).index(symbol)

    def fix(self, expr: Any, rule: str) -> None:
        """The symbols of an expression are numbers from now on.

        Args:
            expr: one or more symbols.
            rule: half a sentence: what the model does with them.
        """
        reason = _reason(rule)
        for symbol in sorted(self.replace(expr).free_symbols, key=self._age):
            self.reasons[symbol] = reason
            for other, known in self.known.items():  # sizes that are made of it are numbers for the same reason
                if symbol in known.free_symbols:
                    self.reasons.setdefault(other, reason)
            self._learn(symbol, sympy.Integer(self._values[symbol]))

    def _learn(self, symbol: sympy.Symbol, expr: Any) -> None:
        self.known = {other: known.xreplace({symbol: expr}) for other, known in self.known.items()}
        self.known[symbol] = expr
        self._canonical.clear()
        # By which torch 2.12 and newer know that what they remember of an expression is out of date.
        self._replacements_version_counter = getattr(self, "_replacements_version_counter", 0) + 1


def _reason(rule: str) -> Reason:
    return _at(rule, traceback.extract_stack())


def reason_of(error: Exception) -> Reason:
    """The line of the model's code that an error comes from."""
    return _at("fails", traceback.extract_tb(error.__traceback__))


def _at(rule: str, frames: traceback.StackSummary) -> Reason:
    """The rule, with the line of the model that is running: the innermost that is neither torch's nor ours, within what ours runs."""
    begin = max((number for number, frame in enumerate(frames) if (frame.filename, frame.name) == _CALL), default=-1)
    of_the_model = (frame for frame in reversed(frames[begin + 1 :]) if not frame.filename.startswith(_NOT_THE_USERS))
    inner = next((frame for frame in of_the_model if frame.line), None)
    return Reason(rule) if inner is None else Reason(rule, inner.filename, inner.lineno or 0, inner.line or "")
