"""Changes of a run's data since the run began, and defects of the data that make accuracies doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DataChanges"]

_USES = {"train": "to train on", "selection": "to select on", "test": "to test on", "unused": "left over by the fractions"}


@dataclass(frozen=True, kw_only=True)
class DataChanges:
    """How a run's data differs from its data when the run began. Counts are numbers of images; mappings are keyed by part.

    Attributes:
        recorded: whether the run has a record to compare with.
        reordered: whether the classes are listed in another order; they are matched by name.
        added: new images.
        removed: images that are gone.
        relabelled: images whose class has changed.
        left_out: new images that a resumed run ignores.
        leaked: test images whose content also occurs among the images to train or to select on.
        ambiguous: image contents that occur under more than one class.
    """

    recorded: bool = True
    reordered: bool = False
    added: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    relabelled: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    leaked: int = 0
    ambiguous: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything differs from when the run began."""
        return any((self.reordered, self.added, self.removed, self.relabelled, self.left_out))

    def sentences(self) -> tuple[str, ...]:
        """One sentence for each change or defect."""
        since = "the data has changed since the run began"
        said = (
            (
                not self.recorded,
                "this run has no record of its data (runs of earlier versions and imported weights have none), so its parts are drawn by "
                "its seed, and changes of images or classes since cannot be detected; a newly trained run has a record",
            ),
            (self.reordered, f"{since}: its classes are listed in another order; they are matched by name"),
            (self.added, f"{since}: {_counted(self.added, 'new')}; each goes to a part by its own content"),
            (self.removed, f"{since}: {_counted(self.removed, 'gone')}"),
            (self.relabelled, f"{since}: {_counted(self.relabelled, 'of another class now')}; each counts as its present class"),
            (
                self.left_out,
                f"{since}: {_are(self.left_out)} new and left out, because a run is resumed with the images that it began with",
            ),
            (
                self.leaked,
                f"{_are(self.leaked, ' of the test data')} also among the images to train or to select on, which makes accuracies on it "
                "too high; remove them from one of the two",
            ),
            (
                self.ambiguous,
                f"{_are(self.ambiguous)} there under more than one class, of which at most one can be right; correct the labels",
            ),
        )
        return tuple(sentence for holds, sentence in said if holds)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values, including the sentences."""
        return {**asdict(self), "changed": self.changed, "sentences": list(self.sentences())}


def _counted(counts: Mapping[str, int], what: str) -> str:
    uses = ", ".join(f"{count:,} {_USES[part]}" for part, count in counts.items())
    return f"{_are(sum(counts.values()))} {what} ({uses})"


def _are(count: int, of: str = "") -> str:
    return f"1 image{of} is" if count == 1 else f"{count:,} images{of} are"
