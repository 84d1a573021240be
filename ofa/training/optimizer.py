"""Optimizers as data: the settings that a recipe holds, the torch optimizer made from them, and its state.

The optimizer of a supernet steps the whole store. Weights that no subnet of the step uses have a gradient of zero, but momentum and
weight decay still change them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ofa.blocks.assembling import empty_network
from ofa.blocks.token_modules import DotProductAttention
from ofa.blocks.traced import Traced
from ofa.errors import RecipeError
from ofa.families import lower
from ofa.registry import FromFile, Registry
from ofa.sharing import layout
from ofa.space import Space
from ofa.training.toml import build, check_range, table_of

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdamW",
    "Optimizer",
    "check_trusted",
    "optimizer_state",
    "read_optimizer",
    "restore_optimizer",
    "suited_optimizer",
]

SUITED = "suited"
"""How a recipe names the optimizer that suits its space."""

Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """The settings of an optimizer. For an optimizer of your own, write a frozen dataclass that inherits from this class.

    Attributes:
        name: the optimizer's name in ``OPTIMIZERS``, or ``module:attribute``; by default the name of the class.
        weight_decay: weight decay of convolution and linear weights.

    Raises:
        RecipeError: an impossible value.
    """

    name: str = ""
    weight_decay: float = 3e-5

    def __post_init__(self) -> None:
        kind = type(self)
        object.__setattr__(self, "name", self.name or OPTIMIZERS.name_of(kind) or f"{kind.__module__}:{kind.__qualname__}")
        check_range("optimizer.weight_decay", self.weight_decay, 0)

    @abstractmethod
    def make(self, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
        """Make the optimizer. All its state must be in its ``state_dict``.

        Args:
            groups: parameter groups, each with its ``weight_decay``.
            learning_rate: learning rate of the first step; each group's ``lr`` is set before every step.

        Returns:
            The optimizer.
        """


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, on CPUs and NVIDIA's GPUs by torch's fused kernel (one pass over the weights).

    Attributes:
        name: name of the optimizer.
        weight_decay: factor by which convolution and linear weights are added to their gradients.
        momentum: share of the last step that is repeated (0..1).
        nesterov: whether to use Nesterov momentum (in the form of Sutskever et al., ICML 2013).
    """

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("optimizer.momentum", self.momentum, 0, 0.999)

    def make(self, groups: Groups, learning_rate: float) -> torch.optim.SGD:
        return torch.optim.SGD(
            groups,
            lr=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            fused=has_fused_kernel(groups),
        )


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019); a learning rate of 0.001 is common.

    Attributes:
        name: name of the optimizer.
        weight_decay: weight decay of convolution and linear weights; each step shrinks them by it times the learning rate.
        betas: decays of the running means of gradients and of squared gradients (0..1).
        eps: constant that is added to the root of the mean square.
    """

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        for beta in self.betas:
            check_range("optimizer.betas", beta, 0, 1 - 1e-9)
        check_range("optimizer.eps", self.eps, 1e-30)

    def make(self, groups: Groups, learning_rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(groups, lr=learning_rate, betas=self.betas, eps=self.eps, fused=has_fused_kernel(groups))


OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optimizer",
    group="ofa.optimizers",
    error=RecipeError,
    entries={"sgd": SGD, "adamw": AdamW},
    valid=lambda entry: isinstance(entry, type) and issubclass(entry, Optimizer),
    must_be="a class that inherits from ofa.training.Optimizer",
)
"""The classes of optimizers' settings, by name."""


def suited_optimizer(space: Space) -> Literal["sgd", "adamw"]:
    """The optimizer that networks like those of a space are usually trained by.

    It is SGD for networks with batch norms, which bear its large steps. It is AdamW for networks with a layer norm, an RMS norm or
    attention (transformers, ConvNeXt), and for networks without batch norm.
    """
    modules = list(empty_network(lower(space, space.largest())).modules())
    batch_norms = any(tensor.role == "statistics" for tensor in layout(space))
    return "sgd" if batch_norms and not any(map(_is_of_transformers, modules)) else "adamw"


_OF_ATTENTION = ("softmax.", "_softmax.", "scaled_dot_product_attention.")


def _is_of_transformers(module: nn.Module) -> bool:
    if isinstance(module, Traced):
        return any(step.kind == "operator" and step.target.startswith(_OF_ATTENTION) for step in module.steps)
    return isinstance(module, nn.LayerNorm | nn.RMSNorm | DotProductAttention)


class _NotImported(Optimizer):
    """Settings whose ``module:attribute`` was not imported: they can be written to TOML again, but make no optimizer."""

    def make(self, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
        return OPTIMIZERS.find(self.name)().make(groups, learning_rate)


def check_trusted(optimizer: Optimizer) -> None:
    """Raise TrustError if the class of an optimizer was not imported because only a file names it; its ``make`` raises it too."""
    if isinstance(optimizer, _NotImported):
        OPTIMIZERS.find(optimizer.name)


def read_optimizer(value: Any, space: Callable[[], Space]) -> Optimizer:
    """Read a recipe's optimizer.

    Args:
        value: a name, or a table of settings with the ``name`` (``sgd`` if it is left out). The name ``suited`` stands for the optimizer
            that suits the space. A ``module:attribute`` that only a file names is not imported: its settings are kept unchecked, and
            their ``make`` raises TrustError.
        space: returns the recipe's space; called only for ``suited``.

    Raises:
        RecipeError: an unknown name or setting, or an impossible value.
    """
    table = {"name": "sgd", **({"name": value} if isinstance(value, str) else table_of(value, "optimizer"))}
    name = table["name"]
    if not isinstance(name, str):
        raise RecipeError(f"optimizer.name must be a string, but is {name!r}; correct it in the recipe")
    if name == SUITED:
        name = table["name"] = suited_optimizer(space())
    if not isinstance(name, FromFile) or name in OPTIMIZERS or ":" not in name:
        return build(OPTIMIZERS.find(name), table, "optimizer", path=("optimizer",))
    settings = {key: tuple(setting) if isinstance(setting, list) else setting for key, setting in table.items()}
    kind = make_dataclass("NotImported", [(key, Any) for key in settings], bases=(_NotImported,), frozen=True, kw_only=True)
    made: Optimizer = kind(**settings)
    return made


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The full state of an optimizer: its tensors by ``NUMBER.KEY``, and JSON values."""
    state = optimizer.state_dict()
    flat = {f"{number}.{key}": value for number, values in state["state"].items() for key, value in values.items()}
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return tensors, {"state": {name: value for name, value in flat.items() if name not in tensors}, "groups": groups}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Load a copy of what ``optimizer_state`` returned into an optimizer of the same settings and parameters."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**values["state"], **{name: tensor.clone() for name, tensor in tensors.items()}}.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    groups = [
        {**group, "params": own["params"]} for group, own in zip(values["groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def has_fused_kernel(groups: Groups) -> bool:
    """Whether torch has a fused kernel for the devices of all parameters."""
    return all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
