"""Modules whose parameters view tensors that lie elsewhere, gradients included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["Leaf", "assign", "make_leaf", "parametrize_weight"]


@dataclass(frozen=True)
class Leaf:
    """A parameter of a subnet.

    Attributes:
        parameter: views the store.
        gradient: the same view of the store's gradient.
    """

    parameter: nn.Parameter
    gradient: torch.Tensor

    def attach(self) -> None:
        """Let autograd add to the store's gradient in place; one with gaps has a hook for that."""
        if self.parameter.grad is not self.gradient and _is_dense(self.gradient):
            # Somebody set it to None, which means zero.
            self.gradient.zero_()
            self.parameter.grad = self.gradient


def make_leaf(view: torch.Tensor, gradient: torch.Tensor, leaves: list[Leaf]) -> nn.Parameter:
    """A parameter that views the store and adds its gradient to the store's."""
    parameter = nn.Parameter(view)
    leaves.append(Leaf(parameter, gradient))
    if _is_dense(view):
        parameter.grad = gradient
    else:
        # Autograd warns when it adds in place to a gradient with gaps, so here the sum is taken once it is known.
        parameter.register_post_accumulate_grad_hook(_Adder(gradient))
    return parameter


@dataclass(frozen=True)
class _Adder:
    gradient: torch.Tensor

    def __call__(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.gradient.add_(parameter.grad)
        parameter.grad = None


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a view covers a stretch of memory without gaps, in the order of its axes."""
    return tensor.is_contiguous()


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Make ``value`` the parameter or buffer of a module that has the dotted name."""
    owner, leaf = _owner(module, name)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        owner._parameters[leaf] = value if isinstance(value, nn.Parameter) else nn.Parameter(value)


def parametrize_weight(module: nn.Module, name: str, leaf: nn.Parameter, transform: nn.Module) -> None:
    """Let a weight be computed from ``leaf``; unsafe only in that the shape changes, which is the purpose."""
    owner, weight = _owner(module, name)
    owner._parameters[weight] = leaf
    parametrize.register_parametrization(owner, weight, transform, unsafe=True)
