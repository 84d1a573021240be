"""Symbolic sizes for tracing a model: sizes that torch must equate become one elastic size; a size compared with a number is fixed.

torch's own ``ShapeEnv`` proves each answer for all sizes, using all known facts; for windowed attention that takes minutes. Here a
comparison is answered by the model's real sizes, and only equalities are kept. The resulting groups are verified afterwards on the
program itself, so nothing needs to be proven while tracing.
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
"""The function that calls the model."""


@dataclass(frozen=True)
class Reason:
    """Why a size is fixed.

    Attributes:
        rule: predicate that says what the model does with the size.
        file: file of the line of the model's code that fixes the size; empty if no line does.
        line: number of the line.
        code: text of the line.
    """

    rule: str
    file: str = ""
    line: int = 0
    code: str = ""

    def __str__(self) -> str:
        return f"{self.rule} ({Path(self.file).name}:{self.line}: {self.code})" if self.file else self.rule


class Sizes(ShapeEnv):
    """Known facts about the sizes of a model while it is traced.

    Attributes:
        images: symbol of the batch size; None until it is created.
        known: substitutions: the expression of a symbol in terms of free symbols.
        reasons: why a symbol is fixed to a number, by symbol.
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
        """Create a symbol as torch does, and remember its value."""
        symbol = super().create_symbol(val, *args, **kwargs)
        if isinstance(symbol, sympy.Symbol):
            self._values[symbol] = int(val)
        return symbol

    def replace(self, expr: Any) -> Any:  # type: ignore[override]
        """An expression in terms of free symbols."""
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
        """The value of an expression for the model's real sizes.

        Raises:
            SpaceError: the expression depends on a tensor's values.
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
        """The value of an expression if it is evidently the same for all sizes; None otherwise."""
        expr = self.replace(expr)
        plain = expr in (sympy.true, sympy.false) or getattr(expr, "is_number", False)
        return expr if plain else None

    # -- what follows from the answers --------------------------------------------------------------------------------

    def value(self, expr: Any) -> Any:
        """The value of an expression for the model's real sizes."""
        if not isinstance(expr, sympy.Basic):
            return expr
        return expr.xreplace({symbol: sympy.Integer(self._values[symbol]) for symbol in expr.free_symbols})

    def _note(self, expr: Any, value: Any) -> None:
        """Draw conclusions from a comparison of sizes, or from the use of a size as a number."""
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
        """Assume that one size is a multiple of another for all sizes, if it is for the model's real sizes."""
        numerator, divisor = map(self.replace, (sympy.sympify(numerator), sympy.sympify(divisor)))
        remainder = numerator % divisor
        if remainder == 0 or self.value(remainder) != 0:
            return
        if divisor.is_Integer and divisor > 1 and not numerator.is_Symbol:
            # The batch size may be any number, so the multiple must be the only size divisible by the divisor.
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
            # This holds for all sizes only if the same size is a factor of both, such as channels before and after a layer.
            same = [each for each in numerator.free_symbols - divisor.free_symbols if self._values[each] == self._values[symbol]]
            if len(same) == 1:
                self._learn(*sorted((symbol, same[0]), key=self._age, reverse=True))

    def _vanishing(self, difference: Any) -> Any:
        """The factor of a product that is zero for the model's real sizes."""
        if len(difference.free_symbols) < 2:
            return difference
        factors = [factor for factor in sympy.Mul.make_args(sympy.factor(difference)) if factor.free_symbols]
        return next((sympy.expand(factor) for factor in factors if self.value(factor) == 0), difference)

    def _solve(self, difference: Any) -> None:
        """Assume that an expression is zero, and solve it for a symbol."""
        if not difference.free_symbols or self.value(difference) != 0:
            return
        solutions = list(self._solutions(difference))
        # Prefer a solution that is a sum of sizes to a difference: a sum is valid for any sizes of its parts.
        for symbol, solution in sorted(solutions, key=lambda found: any(n < 0 for n in found[1].as_coefficients_dict().values())):
            if solution.is_Integer:
                self.fix(symbol, f"must be {solution}")
            else:
                self._learn(symbol, solution)
            return
        rule = "takes part in an equation of several sizes"
        self.fix(sympy.Tuple(*difference.free_symbols - {self.images}), rule)  # keep the batch size free, if that suffices
        self.fix(difference, rule)

    def _solutions(self, difference: Any) -> Iterator[tuple[sympy.Symbol, Any]]:
        """Solutions of an expression equal to zero with integer coefficients, for each symbol, the newest first."""
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
        """Fix the symbols of an expression to their present values.

        Args:
            expr: an expression with one or more symbols.
            rule: predicate that says what the model does with them.
        """
        reason = _reason(rule)
        for symbol in sorted(self.replace(expr).free_symbols, key=self._age):
            self.reasons[symbol] = reason
            for other, known in self.known.items():  # sizes composed of it are fixed for the same reason
                if symbol in known.free_symbols:
                    self.reasons.setdefault(other, reason)
            self._learn(symbol, sympy.Integer(self._values[symbol]))

    def _learn(self, symbol: sympy.Symbol, expr: Any) -> None:
        self.known = {other: known.xreplace({symbol: expr}) for other, known in self.known.items()}
        self.known[symbol] = expr
        self._canonical.clear()
        # torch 2.12 and newer invalidate their cache of expressions by this counter.
        self._replacements_version_counter = getattr(self, "_replacements_version_counter", 0) + 1


def _reason(rule: str) -> Reason:
    return _at(rule, traceback.extract_stack())


def reason_of(error: Exception) -> Reason:
    """The line of the model's code that an error comes from."""
    return _at("fails", traceback.extract_tb(error.__traceback__))


def _at(rule: str, frames: traceback.StackSummary) -> Reason:
    """A reason with the model's line in execution: the innermost frame below our call that is neither torch's nor ours."""
    begin = max((number for number, frame in enumerate(frames) if (frame.filename, frame.name) == _CALL), default=-1)
    of_the_model = (frame for frame in reversed(frames[begin + 1 :]) if not frame.filename.startswith(_NOT_THE_USERS))
    inner = next((frame for frame in of_the_model if frame.line), None)
    return Reason(rule) if inner is None else Reason(rule, inner.filename, inner.lineno or 0, inner.line or "")
