"""Parameters of subnets as views of the supernet's store, including their gradients."""

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
        parameter: a view of the store.
        gradient: the corresponding view of the store's gradient.
    """

    parameter: nn.Parameter
    gradient: torch.Tensor

    def attach(self) -> None:
        """Let autograd accumulate into the store's gradient in place; a non-contiguous view has a hook for that."""
        if self.parameter.grad is not self.gradient and _is_dense(self.gradient):
            # ``.grad`` was set to None, as by ``zero_grad()``, which means zero.
            self.gradient.zero_()
            self.parameter.grad = self.gradient


def make_leaf(view: torch.Tensor, gradient: torch.Tensor, leaves: list[Leaf]) -> nn.Parameter:
    """Make a parameter of a view of the store; its gradient is added to the store's gradient.

    Args:
        view: of the store.
        gradient: the corresponding view of the store's gradient.
        leaves: list to which the new leaf is appended.
    """
    parameter = nn.Parameter(view)
    leaves.append(Leaf(parameter, gradient))
    if _is_dense(view):
        parameter.grad = gradient
    else:
        # Autograd warns when it accumulates into a non-contiguous ``.grad``, so a hook adds the finished gradient instead.
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
    """Whether a view is contiguous: without gaps in memory, in the order of its axes."""
    return tensor.is_contiguous()


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Set the parameter or buffer with the dotted name ``name`` of a module to ``value``."""
    owner, leaf = _owner(module, name)
    if leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        owner._parameters[leaf] = value if isinstance(value, nn.Parameter) else nn.Parameter(value)


def parametrize_weight(module: nn.Module, name: str, leaf: nn.Parameter, transform: nn.Module) -> None:
    """Compute a weight from a leaf by a transform (``torch.nn.utils.parametrize``; ``unsafe`` because the shape changes on purpose).

    Args:
        module: contains the weight.
        name: dotted name of the weight.
        leaf: input of the transform.
        transform: computes the weight.
    """
    owner, weight = _owner(module, name)
    owner._parameters[weight] = leaf
    parametrize.register_parametrization(owner, weight, transform, unsafe=True)
