"""Groups: the dimensions of a network's tensors that are coupled, because they index the same units (channels, heads).

Units of a group are kept or pruned together in all its tensors, and have the same order there. ``ofa.sharing`` lists the groups of a
space, ``ofa.adopting`` finds the groups of a model, and ``ofa.importance`` scores their units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ofa.blocks.runs import Runs, permuted

__all__ = ["Group", "Member", "runs_by_dim"]


@dataclass(frozen=True)
class Member:
    """A dimension of a tensor that contains the units of a group.

    Attributes:
        tensor: name of the tensor in its network.
        dim: index of the dimension.
        runs: the sections of the dimension, in order: runs of the group, and runs without an axis for everything else.
        use: the role of the tensor, which criteria of importance distinguish: ``reads`` (weights of the layer that reads the units),
            ``scales`` (scale of a norm over them), or ``follows`` (any other tensor in their order).
        place: the block that the tensor belongs to.
    """

    tensor: str
    dim: int
    runs: Runs
    use: Literal["reads", "scales", "follows"] = "follows"
    place: str = ""


@dataclass(frozen=True)
class Group:
    """Units that have the same number and order in all tensors of a network.

    Attributes:
        name: the axis of the group's runs.
        units: number of units.
        members: the dimensions that contain them.
    """

    name: str
    units: int
    members: tuple[Member, ...]

    def by_unit(self, member: Member, values: Tensor) -> Tensor:
        """Sum of all values of each unit.

        Args:
            member: a member of the group.
            values: of the shape of the member's tensor, or [length of the member's dimension].

        Returns:
            The sums [U].
        """
        others = [dim for dim in range(values.dim()) if dim != member.dim]
        along = values if values.dim() == 1 else values.sum(dim=others)
        parts = along.split([run.length({self.name: self.units}) for run in member.runs])
        own = [
            part.view(run.outer, self.units, run.inner).transpose(0, 1).flatten(1)
            for part, run in zip(parts, member.runs, strict=True)
            if run.axis == self.name
        ]
        return torch.cat(own, 1).sum(1)

    def reordered(self, member: Member, tensor: Tensor, order_U: Tensor) -> Tensor:
        """The tensor of a member with its units permuted.

        Args:
            member: a member of the group.
            tensor: the member's tensor.
            order_U: for each new position, the old index of its unit [U].
        """
        return tensor.index_select(member.dim, permuted(member.runs, self.name, order_U, {self.name: self.units}))


def runs_by_dim(groups: Iterable[Group]) -> dict[tuple[str, int], Runs]:
    """The sections of each dimension, by (tensor, dimension), with the runs of all groups that have units there."""
    found: dict[tuple[str, int], Runs] = {}
    for group in groups:
        for member in group.members:
            known = found.get((member.tensor, member.dim), member.runs)
            found[member.tensor, member.dim] = tuple(own if own.axis else other for own, other in zip(member.runs, known, strict=True))
    return found
