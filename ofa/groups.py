"""Groups: which dimensions of which tensors of a network have the same units, such as channels or heads.

The units of a group stay or go together wherever they lie, and keep one order there. Sharing lists the groups of a space, adopting finds
those of a model, and importance says which units matter.
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
    """A dimension of a tensor along which the units of a group lie.

    Attributes:
        tensor: name of the tensor in its network.
        dim: the dimension.
        runs: what it is made of, in order: the runs of the group, and of no axis whatever else lies there.
        use: what the tensor does to the units, which importance goes by: ``reads`` them as the input of its layer, ``scales`` them as a
            norm does, or ``follows`` their order, as those do of which nothing else is known.
        place: the block that it is part of.
    """

    tensor: str
    dim: int
    runs: Runs
    use: Literal["reads", "scales", "follows"] = "follows"
    place: str = ""


@dataclass(frozen=True)
class Group:
    """Units that have one number and one order all over a network.

    Attributes:
        name: the axis of its runs.
        units: how many there are.
        members: where they lie.
    """

    name: str
    units: int
    members: tuple[Member, ...]

    def by_unit(self, member: Member, values: Tensor) -> Tensor:
        """The sums [U] of all values that belong to each unit.

        Args:
            member: one of the group's.
            values: of the shape of the member's tensor, or [length of its dimension].
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
        """The tensor of a member, whose units have changed places.

        Args:
            member: one of the group's.
            tensor: its tensor.
            order_U: the old number of each unit.
        """
        return tensor.index_select(member.dim, permuted(member.runs, self.name, order_U, {self.name: self.units}))


def runs_by_dim(groups: Iterable[Group]) -> dict[tuple[str, int], Runs]:
    """By tensor and dimension what it is made of, with the runs of all groups that have units there."""
    found: dict[tuple[str, int], Runs] = {}
    for group in groups:
        for member in group.members:
            known = found.get((member.tensor, member.dim), member.runs)
            found[member.tensor, member.dim] = tuple(own if own.axis else other for own, other in zip(member.runs, known, strict=True))
    return found
