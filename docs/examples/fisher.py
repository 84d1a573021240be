"""A criterion of importance: the squared change of the loss without a channel, to first order (Theis et al., 2018)."""

import torch
from torch import Tensor

from ofa.groups import Group
from ofa.importance import Importance, Observation


def fisher_score(group: Group, seen: Observation, generator: torch.Generator | None) -> Tensor | None:
    """The scores [U] of a group's units for one batch; the mean over batches counts."""
    readers = [member for member in group.members if member.use == "reads"]
    if not readers:
        return None  # nothing to go by: the units keep their order
    changes = [group.by_unit(member, seen.tensors[member.tensor] * seen.gradients[member.tensor]) for member in readers]
    return torch.stack(changes).sum(0).square()


FISHER = Importance(fisher_score, needs_images=True)
