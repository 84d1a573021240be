"""The images of a run: when it begins, and when later commands match them with its record.

Shapes: N recorded images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ofa.data import Images, Splits
from ofa.data.labels import label_sets
from ofa.data.splitting import split_indices, whole_keys
from ofa.errors import DataError
from ofa.progress import Progress, silent
from ofa.training.changes import DataChanges
from ofa.training.comparison import Comparison
from ofa.training.places import anchored, check_places
from ofa.training.recipe import Recipe
from ofa.training.record import PARTS, DataRecord, Facts, Source

__all__ = ["RunData", "data_of_run", "first_data"]

_TEST = PARTS.index("test")


@dataclass(frozen=True, eq=False, kw_only=True)
class RunData:
    """The images of a run, ready to use.

    Attributes:
        splits: its three parts, with the normalization and the classes of the run.
        record: the run's record of its data; None for a run without a record.
        changes: changes since the run began, and defects of the data.
    """

    splits: Splits
    record: DataRecord | None
    changes: DataChanges

    def provenance(self, recipe: Recipe) -> dict[str, Any]:
        """Provenance for a bundle's card: the data's name as typed, its digest, and whether the data changed since the run began."""
        if self.record is None:
            return {"data": recipe.data}
        return {
            "data": self.record.facts.data.typed,
            "data_digest": self.record.digest,
            "data_images": self.record.counts,
            "data_changed": self.changes.changed,
        }


def first_data(recipe: Recipe, progress: Progress = silent) -> RunData:
    """Read the images of a new run, split them into parts by the recipe's seed, and record them.

    Args:
        recipe: the run's recipe.
        progress: told how many images have been read.

    Returns:
        The images, their record, and defects of the data.

    Raises:
        DataError: the data cannot be used.
    """
    data, test = recipe.load_sources(progress)
    fractions = recipe.fractions[:2] if test is not None else recipe.fractions
    chosen = split_indices(data, fractions, recipe.generator("split"))
    normalization = data.pick(chosen[0]).normalization
    parts = [data.pick(index).normalized(normalization) for index in chosen]
    if test is not None:
        parts.append(test.normalized(normalization))
    splits = Splits(*parts)
    left = np.setdiff1d(np.arange(len(data)), torch.cat(chosen).numpy())
    record = DataRecord(
        facts=_facts(recipe, splits.train),
        keys=np.concatenate([*(part.keys.numpy() for part in splits), data.keys.numpy()[left]]),
        parts=np.repeat(np.arange(len(PARTS)), [*map(len, splits), len(left)]),
        labels=np.concatenate([*(part.labels.cpu().numpy() for part in splits), data.labels.cpu().numpy()[left]]),
    )
    return RunData(splits=splits, record=record, changes=DataChanges(leaked=_leaked(splits), ambiguous=_ambiguous(record)))


def data_of_run(
    recipe: Recipe,
    record: DataRecord | None,
    *,
    data: str = "",
    test_data: str = "",
    exact: bool = False,
    progress: Progress = silent,
) -> RunData:
    """Read the images of an existing run, each in the part that it had when the run began.

    Known images keep their part and order, whatever their file names. The part of a new image is derived from its content, so that an
    image is never both trained and tested on. Batches have the run's normalization.

    Args:
        recipe: the run's recipe.
        record: the run's record of its data; without one, the parts are drawn by the recipe's seed.
        data: where the images are now; empty for the recipe's own source.
        test_data: where the test images are now; empty for the recipe's own source.
        exact: whether the images to train and to select on must be unchanged, as resuming a run requires; new images are then left out.
        progress: told how many images have been read.

    Returns:
        The images, their record, and the changes since the run began.

    Raises:
        DataError: the images are gone, are of other classes, are another set, or leave a part empty; with ``exact``, images to train or
            to select on are gone or of another class.
    """
    now = replace(recipe, data=data or recipe.data, test_data=test_data or recipe.test_data)
    check_places(now)
    if record is None:
        return RunData(splits=now.load_splits(progress), record=None, changes=DataChanges(recorded=False))
    facts = record.facts
    images, test = now.load_sources(progress, rule=facts.rule, test_classes=facts.class_names, known=record.known)
    is_test_N = (record.parts == _TEST) & (test is not None)
    found = [Comparison(record, ~is_test_N, images, now.data)]
    if test is not None:
        found.append(Comparison(record, is_test_N, test, now.test_data, tests=True))
    if exact:
        for comparison in found:
            comparison.check_exact()
    parts = [part for part in PARTS if part != "unused"]
    splits = Splits(*(_picked(found, part, facts, exact=exact) for part in parts))
    return RunData(splits=splits, record=record, changes=_changes(found, splits, exact=exact))


# -- parts and changes ------------------------------------------------------------------------------------------------


def _picked(found: Sequence[Comparison], part: str, facts: Facts, *, exact: bool) -> Images:
    """The images of a part, from the source that has it."""
    source = found[-1] if part == "test" else found[0]
    index = source.chosen(PARTS.index(part), exact=exact)
    if not len(index):
        raise DataError(
            f"a run must have images in each part, but '{source.line}' has none of its images of the {part} part left; put them back, or "
            "train a new run"
        )
    images: Any = source.images  # every kind of images is a dataclass with this field
    # Images may be missing now: a trained network can be evaluated on a single class, but training needs two.
    chosen: Images = replace(images, least_classes=2 if part == "train" else 1).pick(index)
    return chosen.normalized(facts.normalization)


def _changes(found: Sequence[Comparison], splits: Splits, *, exact: bool) -> DataChanges:
    added: Counter[str] = sum((comparison.added for comparison in found), Counter())
    removed: Counter[str] = sum((comparison.removed for comparison in found), Counter())
    relabelled: Counter[str] = sum((comparison.relabelled for comparison in found), Counter())
    return DataChanges(
        reordered=any(comparison.reordered for comparison in found),
        added={} if exact else _in_order(added),
        removed=_in_order(removed),
        relabelled=_in_order(relabelled),
        left_out=added.total() if exact else 0,
        leaked=_leaked(splits),
    )


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {part: counts[part] for part in PARTS if counts[part]}


def _leaked(splits: Splits) -> int:
    """How many test images also occur in other parts, by content."""
    used, tested = (np.concatenate([part.keys.numpy() for part in parts]) for parts in (splits[:2], splits[2:]))
    return int(np.isin(whole_keys(tested), whole_keys(used)).sum())


def _ambiguous(record: DataRecord) -> int:
    """How many image contents occur under more than one class."""
    _, contents = np.unique(whole_keys(record.keys), return_inverse=True)
    pairs = np.unique(np.stack([contents, label_sets(record.labels)[1]]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _facts(recipe: Recipe, train: Images) -> Facts:
    mean, std = train.normalization
    data, test_data = (Source(path=anchored(line), typed=line) for line in (recipe.data, recipe.test_data))
    return Facts(
        class_names=train.class_names,
        mean=mean,
        std=std,
        data=data,
        test_data=test_data,
        fractions=recipe.fractions,
        seed=recipe.seed,
        rule=train.rule,
    )
