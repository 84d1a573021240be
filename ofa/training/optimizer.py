"""Optimizers as data: the settings that a recipe holds, what they make, and its state.

The optimizer of a supernet steps the whole store: what the step's subnets do not have gets a gradient of zero, but moves on with its
momentum and decays.
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
    """The settings of an optimizer. One of one's own is a frozen dataclass that inherits from this one and makes it.

    Attributes:
        name: its name in ``OPTIMIZERS``, or ``module:attribute``; left out, that of its class.
        weight_decay: of convolution and linear weights.

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
        """The optimizer of some parameters, with all its state in its ``state_dict``.

        Args:
            groups: of parameters, each with its ``weight_decay``.
            learning_rate: of the first step; each group's ``lr`` is set before every step.
        """


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, on CPUs and NVIDIA's GPUs by torch's fused kernel: one pass over the weights.

    Attributes:
        name: says which optimizer it is.
        weight_decay: of convolution and linear weights, times which the weights are added to their gradients.
        momentum: share of the last step that is made again (0..1).
        nesterov: whether the gradient is taken as if that were made already (Nesterov, in the form of Sutskever et al., ICML 2013).
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
        name: says which optimizer it is.
        weight_decay: of convolution and linear weights, times which and the learning rate each step shrinks them.
        betas: decays of the means of the gradients and of their squares (0..1).
        eps: is added to the root of the mean square.
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
"""The named optimizers: the classes of their settings."""


def suited_optimizer(space: Space) -> Literal["sgd", "adamw"]:
    """What networks of a space are usually trained by: SGD where batch norms alone bear its large steps.

    It is AdamW where there is a layer norm or attention, as in transformers and in ConvNeXt, or no batch norm.
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
    """Of a recipe that was read without importing what it names: it can be written again, and makes nothing."""

    def make(self, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
        return OPTIMIZERS.find(self.name)().make(groups, learning_rate)


def check_trusted(optimizer: Optimizer) -> None:
    """Raise TrustError if only a file names it, and its class is therefore not imported; its ``make`` raises it too."""
    if isinstance(optimizer, _NotImported):
        OPTIMIZERS.find(optimizer.name)


def read_optimizer(value: Any, space: Callable[[], Space]) -> Optimizer:
    """The settings that a recipe says.

    Args:
        value: a name, or a table of settings whose ``name`` is one (``sgd`` if it is left out). Of one whose name is a file's
            ``module:attribute``, which is not imported, the settings are kept as they are, and ``make`` raises TrustError. The name
            ``suited`` stands for that of the optimizer that suits the space.
        space: of the recipe, asked for where it matters.

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
    """All that decides an optimizer's next steps: its own tensors by ``NUMBER.KEY``, and JSON values."""
    state = optimizer.state_dict()
    flat = {f"{number}.{key}": value for number, values in state["state"].items() for key, value in values.items()}
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]]
    return tensors, {"state": {name: value for name, value in flat.items() if name not in tensors}, "groups": groups}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Give an optimizer of the same settings and parameters a copy of what ``optimizer_state`` told."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**values["state"], **{name: tensor.clone() for name, tensor in tensors.items()}}.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    groups = [
        {**group, "params": own["params"]} for group, own in zip(values["groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def has_fused_kernel(groups: Groups) -> bool:
    """Whether there is one for all parameters."""
    return all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
