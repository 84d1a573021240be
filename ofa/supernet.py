"""Supernet: one store of weights, and subnets as views into it.

The store is two flat parameters (with and without weight decay) and a flat buffer of batch-norm statistics. A subnet consists of the
plain modules of its blocks. Each of their parameters is a leaf that views the store, and its ``.grad`` is the same view of the store's
gradient. So autograd accumulates in place, and the optimizer steps the flat parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Self, get_args

import torch
from torch import nn

from ofa import sharing
from ofa.arch import Arch
from ofa.blocks import Block, PlacedBlock, Role, assemble, build_empty, initialize, segments
from ofa.blocks.traced import AnyBatchNorm
from ofa.errors import WeightsError
from ofa.families import lower
from ofa.importance import IMPORTANCES, Examples, Importance, Observation, observe, score_groups
from ofa.leaves import Leaf, assign, make_leaf, parametrize_weight
from ofa.pieces import Piece
from ofa.progress import Progress, silent
from ofa.sharing import StoredTensor
from ofa.space import Space
from ofa.synchronized import SynchronizedBatchNorm
from ofa.weights import SPACE_KEY, read_weights, space_header, write_weights

__all__ = ["Supernet"]

_FORGOTTEN = ("_blocks", "_segments", "_gradients", "_stretches", "_flat_gradient")
"""Caches that alias the flat tensors; cleared whenever those tensors are replaced (``.to()``, deepcopy)."""

_SYNCHRONIZED: Mapping[type[nn.Module], type[nn.Module]] = dict.fromkeys((nn.BatchNorm2d, AnyBatchNorm), SynchronizedBatchNorm)


class Supernet(nn.Module):
    """The shared weights of all networks of a space.

    Its parameters are two flat tensors. To train it, give ``parameter_groups`` to an optimizer, run subnets forward and backward
    (their gradients accumulate in the store), and step the optimizer once.

    Args:
        space: the networks that it contains.
        generator: for the initial weights; torch's default generator if None.
        dropout: probability of dropout before the classifier in training mode.
    """

    decayed: nn.Parameter
    undecayed: nn.Parameter
    statistics: torch.Tensor

    def __init__(self, space: Space, *, generator: torch.Generator | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self._allocate(space, dropout)
        largest = assemble((placed, self._build(placed, lambda view: view)) for placed in lower(space, space.largest()))
        initialize(largest, generator)
        for tensor, stored in self._stored():
            if stored.is_transform:
                tensor.copy_(torch.eye(len(tensor)))

    def _allocate(self, space: Space, dropout: float) -> None:
        self.space = space
        self.dropout = dropout
        self._synchronized = False
        self._fixed: frozenset[str] = frozenset()
        self._tensors = {stored.name: stored for stored in sharing.layout(space)}
        lengths: dict[str, int] = dict.fromkeys(get_args(Role), 0)
        for stored in self._tensors.values():
            lengths[stored.role] = stored.slot_end
        # First writes to new memory dominate the cost, so each float is written once: padding here, the rest by the caller.
        flats = {role: torch.empty(length) for role, length in lengths.items()}
        for stored in self._tensors.values():
            flats[stored.role][stored.end : stored.slot_end].zero_()
        self.decayed = nn.Parameter(flats["decayed"])
        self.undecayed = nn.Parameter(flats["undecayed"])
        self.register_buffer("statistics", flats["statistics"])
        self._forget()

    def _forget(self) -> None:
        """Clear the caches that alias the flat tensors, because those were replaced."""
        self._blocks: dict[tuple[str, Block], tuple[nn.Module, tuple[Leaf, ...]]] = {}
        self._segments: dict[tuple[PlacedBlock, ...], nn.Module] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        self._stretches: list[Leaf] = []
        self._flat_gradient: torch.Tensor | None = None

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._forget()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _FORGOTTEN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._forget()

    # -- subnets ------------------------------------------------------------------------------------------------------

    def subnet(self, arch: Arch) -> nn.Sequential:
        """The network of ``arch`` as views into the store; it maps [B, C, H, W] to logits [B, classes].

        Subnets share the modules of their blocks. So all of them are in the mode (training or evaluation) that the supernet was in
        at the latest call.

        Raises:
            ArchError: ``arch`` is not a point of the space.
        """
        pieces = self._bound(arch)
        network = assemble(((placed, piece.module) for piece in pieces for placed in piece.placed), training=self.training)
        network.register_forward_pre_hook(lambda *_: self._attach(pieces))
        return network

    def pieces(self, arch: Arch) -> list[Piece]:
        """The consecutive parts of ``subnet(arch)``, from the input to the logits; the input of each is the output of the part before.

        Call it again for every step, because an optimizer may have detached the gradients.

        Raises:
            ArchError: ``arch`` is not a point of the space.
        """
        bound = self._bound(arch)
        self._attach(bound)
        pieces = iter(bound)
        return [self._joined(list(islice(pieces, len(part)))) for part in segments(lower(self.space, arch))]

    def _joined(self, pieces: list[Piece]) -> Piece:
        if len(pieces) == 1:
            return pieces[0]
        placed = tuple(piece.placed[0] for piece in pieces)
        if placed not in self._segments:
            self._segments[placed] = assemble(zip(placed, (piece.module for piece in pieces), strict=True))
        return Piece(placed, self._segments[placed], tuple(leaf for piece in pieces for leaf in piece.leaves))

    def _bound(self, arch: Arch) -> list[Piece]:
        """One piece per block of an arch, in the supernet's mode."""
        pieces = []
        for placed in lower(self.space, arch):
            key = (placed.name, placed.block)
            if key not in self._blocks:
                self._blocks[key] = self._bind_block(placed)
            module, leaves = self._blocks[key]
            if module.training is not self.training:
                module.train(self.training)
            pieces.append(Piece((placed,), module, leaves))
        return pieces

    def _attach(self, pieces: Iterable[Piece]) -> None:
        self._attach_gradients()
        for piece in pieces:
            for leaf in piece.leaves:
                leaf.attach()

    def extract(self, arch: Arch) -> nn.Sequential:
        """The network of ``arch`` with its own storage; its outputs equal the subnet's bit for bit.

        Raises:
            ArchError: ``arch`` is not a point of the space.
        """
        own = partial(torch.clone, memory_format=torch.contiguous_format)
        return assemble((placed, self._build(placed, own)) for placed in lower(self.space, arch)).train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the supernet; subnets take it over when ``subnet`` or ``pieces`` is called."""
        self.training = mode
        return self

    def synchronize(self, enabled: bool) -> Self:
        """Whether subnets requested from now on synchronize batch norms over all processes; extracted networks never do."""
        if enabled is not self._synchronized:
            self._synchronized = enabled
            self._forget()
        return self

    def freeze(self, names: Collection[str]) -> Self:
        """Freeze the tensors of these names bit for bit; no names unfreeze all. Then create optimizers and request subnets again.

        Optimizers do not get them. Batch norms still use batch statistics, but do not update frozen running statistics.
        ``reorder_channels`` keeps the order of all their channels.
        """
        if self._fixed != frozenset(names):
            self._fixed = frozenset(names)
            self._forget()
        return self

    # -- gradients ----------------------------------------------------------------------------------------------------

    def parameter_groups(self, weight_decay: float, factors: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: weights with ``weight_decay``; biases, batch norms and kernel transforms without.

        They are the two flat parameters or, if tensors are frozen or have a factor, views of parts of them. ``factors`` are multipliers
        of the learning rate by tensor name, 1 if absent; a group has its multiplier as ``rate_factor``.
        """
        decays: dict[Role, float] = {"decayed": weight_decay, "undecayed": 0.0}
        if not self._fixed and not factors:
            return [{"params": [getattr(self, role)], "weight_decay": decay} for role, decay in decays.items()]
        self._attach_gradients()
        self._stretches = []
        return [
            {"params": [self._stretch(role, part) for part in parts], "weight_decay": decays[role], "rate_factor": factor}
            for (role, factor), parts in sharing.stretches(self._tensors.values(), self._fixed, factors or {}).items()
            if role in decays
        ]

    def _stretch(self, role: Role, part: slice) -> nn.Parameter:
        return make_leaf(getattr(self, role).detach()[part], self._gradients[role][part], self._stretches)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Zero the gradients in place. They alias one tensor and stay allocated, so ``set_to_none`` has no effect."""
        self.flat_gradient.zero_()

    @property
    def flat_gradient(self) -> torch.Tensor:
        """The gradient of the whole store, float [values]; distributed training reduces it in one call."""
        self._attach_gradients()
        assert self._flat_gradient is not None
        return self._flat_gradient

    def _attach_gradients(self) -> None:
        if self._flat_gradient is None:
            self._flat_gradient = self.decayed.new_zeros(self.decayed.numel() + self.undecayed.numel()).detach()
            parts = self._flat_gradient.split([self.decayed.numel(), self.undecayed.numel()])
            self._gradients = dict(zip(("decayed", "undecayed"), parts, strict=True))
        for name, gradient in self._gradients.items():
            flat = getattr(self, name)
            if flat.grad is not gradient:
                # An optimizer's zero_grad sets ``.grad`` to None, which means zero.
                gradient.zero_()
                flat.grad = gradient
        for leaf in self._stretches:
            leaf.attach()

    # -- the store ----------------------------------------------------------------------------------------------------

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """All stored tensors in the shape of the largest, by ``place.name``; they are views, so writing to them writes to the store."""
        return {stored.name: tensor for tensor, stored in self._stored()}

    def _stored(self) -> Iterator[tuple[torch.Tensor, StoredTensor]]:
        for stored in self._tensors.values():
            yield self._slot(stored), stored

    def _slot(self, stored: StoredTensor, flats: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        flat = getattr(self, stored.role).detach() if flats is None else flats[stored.role]
        return flat[stored.offset : stored.end].view(stored.shape)

    def channel_scores(
        self,
        importance: Importance,
        examples: Examples | None = None,
        *,
        generator: torch.Generator | None = None,
        progress: Progress = silent,
    ) -> Iterator[torch.Tensor | None]:
        """Importance of channels [U] in the largest network, for each of ``sharing.channel_groups``; None for groups to leave unsorted.

        Scores that need no images are computed lazily, when the iterator reaches their group.

        Args:
            importance: the criterion, one of ``ofa.importance.IMPORTANCES``.
            examples: images, for a criterion that needs them.
            generator: for random criteria; torch's default generator if None.
            progress: called after every batch of images.

        Raises:
            DataError: the criterion needs images, but there are none.
        """
        groups = [each.group for each in sharing.channel_groups(self.space)]
        if not importance.needs_images:
            # Lazily, group by group between re-orderings: the last bits of sums depend on the order, and runs must repeat exactly.
            return (score_groups([group], importance, [Observation(self.named_tensors())], generator)[0] for group in groups)
        seen = () if examples is None else observe(self.subnet(self.space.largest()), groups, examples, progress)
        return iter(score_groups(groups, importance, seen, generator))

    @torch.no_grad()
    def reorder_channels(self, trained: Space, scores: Iterable[torch.Tensor | None] | None = None) -> None:
        """Sort channels by importance, so that small subnets, which keep the leading channels, keep the most important ones.

        No channel crosses a width that subnets of ``trained`` have, so the outputs of these subnets do not change (up to the order of
        summation). The state of an optimizer is not re-ordered: create a new one.

        Args:
            trained: the subspace that is already trained, such as ``space.restrict(expand=[6])``.
            scores: as from ``channel_scores``; by default the L1 norm of the weights that read a channel.
        """
        widths = sharing.trained_widths(trained)
        found = self.channel_scores(IMPORTANCES.get("l1")) if scores is None else scores
        fixed = {(stored.place, axis) for name, stored in self._tensors.items() if name in self._fixed for axis in stored.counted}
        for group, scores_U in zip(sharing.channel_groups(self.space), found, strict=True):
            if scores_U is not None and fixed.isdisjoint(group.axes):
                boundaries = set().union(*(widths.get(axis, frozenset()) for axis in group.axes))
                self._permute(set(group.axes), sharing.order_within(scores_U, boundaries, group.unit))

    def _permute(self, axes: set[tuple[str, str]], order: torch.Tensor) -> None:
        for tensor, stored in self._stored():
            for axis in stored.counted:
                if (stored.place, axis) in axes:
                    for dim, index in stored.order(axis, order):
                        tensor.copy_(tensor.index_select(dim, index))

    # -- binding modules to the store ---------------------------------------------------------------------------------

    def _skeleton(self, block: Block, *, synchronized: bool = False) -> nn.Module:
        """The module of a block, complete except for the storage of its parameters."""
        module = build_empty(block, _SYNCHRONIZED if synchronized else None)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.num_batches_tracked = torch.zeros((), dtype=torch.int64, device=self.decayed.device)
            elif isinstance(part, nn.Dropout):
                part.p = self.dropout
        return module

    @torch.no_grad()
    def _build(self, placed: PlacedBlock, own: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
        """The module of a block, with kernel transforms applied and each tensor passed through ``own``, such as ``torch.clone``."""
        module = self._skeleton(placed.block)
        for name, stored, view, matrices in self._views(placed):
            transform = stored.transform(placed.block.shapes[name], placed.block.lengths, map(nn.Parameter, matrices))
            assign(module, name, own(view if transform is None else transform(view)))
        return module

    def _views(
        self, placed: PlacedBlock, flats: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[tuple[str, StoredTensor, torch.Tensor, list[torch.Tensor]]]:
        """For each tensor of a block: local name, stored tensor, the block's view of it, and the matrices of its kernel transform."""
        for name, shape in placed.block.shapes.items():
            stored = self._tensors[f"{placed.name}.{name}"]
            matrices = [self._slot(self._tensors[matrix], flats) for _, matrix in stored.steps(shape[-1])]
            yield name, stored, stored.view(self._slot(stored, flats), shape, placed.block.lengths), matrices

    def _bind_block(self, placed: PlacedBlock) -> tuple[nn.Module, tuple[Leaf, ...]]:
        """Build the module of a block whose parameters are leaves that view the store."""
        self._attach_gradients()
        module = self._skeleton(placed.block, synchronized=self._synchronized)
        for name, part in module.named_modules():
            if isinstance(part, nn.BatchNorm2d) and f"{placed.name}.{name}.running_mean" in self._fixed:
                part.momentum = 0.0
        leaves: list[Leaf] = []
        gradients = self._views(placed, self._gradients | {"statistics": self.statistics})
        for (name, stored, view, matrices), (_, _, gradient, slots) in zip(self._views(placed), gradients, strict=True):
            leaf = view if placed.block.tensors[name].role == "statistics" else make_leaf(view, gradient, leaves)
            of_matrices = (make_leaf(*each, leaves) for each in zip(matrices, slots, strict=True))
            transform = stored.transform(placed.block.shapes[name], placed.block.lengths, of_matrices)
            if transform is not None and isinstance(leaf, nn.Parameter):
                parametrize_weight(module, name, leaf, transform)
            else:
                assign(module, name, leaf if transform is None else transform(leaf))
        return module, tuple(leaves)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write all tensors as a safetensors file, with the space in the header; raises FileError if that fails.

        Args:
            path: of the file; an existing one is replaced atomically.
            metadata: further texts for the header, such as the recipe.
        """
        header = {"kind": "supernet", **space_header(self.space), "dropout": str(self.dropout)}
        write_weights(self.named_tensors(), path, {**(metadata or {}), **header})

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: Space | None = None) -> Self:
        """Read a supernet that ``save`` wrote.

        Args:
            path: of the file.
            space: the space, if the file does not carry it.

        Raises:
            FileError, WeightsError: the file cannot be read, is damaged, or contains other weights.
            SpaceError: the file's space is unknown, or of a class that has not been imported.
        """
        weights = read_weights(path, kind="supernet")
        carried = weights.space() if space is None or SPACE_KEY in weights.metadata else space
        if space not in (None, carried):
            raise WeightsError(
                f"weights must be of the space given, but '{path}' is of {carried.name} with {carried.num_classes} classes; "
                "leave the space out, or train a supernet of it"
            )
        weights.check({stored.name: stored for stored in sharing.layout(carried)})
        supernet = cls.empty(carried, dropout=weights.probability("dropout"))
        weights.copy_to(supernet.named_tensors())
        return supernet

    @classmethod
    def empty(cls, space: Space, *, dropout: float = 0.0) -> Self:
        """A supernet with uninitialized weights, to be filled through ``named_tensors``."""
        supernet = cls.__new__(cls)
        nn.Module.__init__(supernet)
        supernet._allocate(space, dropout)
        return supernet
