"""What is to be said of a run's data: what changed since the run began, and what makes its numbers doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DataChanges"]

_USES = {"train": "to train on", "selection": "to select on", "test": "to test on", "unused": "left over by the fractions"}


@dataclass(frozen=True, kw_only=True)
class DataChanges:
    """How a run's data differs from what it was when the run began; counts of images, by the names of parts.

    Attributes:
        recorded: whether the run has a record to compare with.
        reordered: whether the classes are listed in another order; they are taken by name.
        added: images that are new.
        removed: images that are gone.
        relabelled: images that are of another class now.
        left_out: new images that a resumed run goes on without.
        leaked: images of the test data whose content is also among the images to train or to select on.
        ambiguous: contents that are there under more than one class.
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
        """Whether anything is other than when the run began."""
        return any((self.reordered, self.added, self.removed, self.relabelled, self.left_out))

    def sentences(self) -> tuple[str, ...]:
        """What a person should know, a sentence each."""
        since = "the data has changed since the run began"
        said = (
            (
                not self.recorded,
                "this run has no record of its data, as those of earlier versions and imported weights have none, so its parts are drawn "
                "by its seed and nobody can tell whether images or classes changed since; a run that is trained anew has one",
            ),
            (self.reordered, f"{since}: its classes are listed in another order, and are taken by name"),
            (self.added, f"{since}: {_counted(self.added, 'new')}; each goes to a part by its own content"),
            (self.removed, f"{since}: {_counted(self.removed, 'gone')}"),
            (self.relabelled, f"{since}: {_counted(self.relabelled, 'of another class now')}; each counts as what it is now"),
            (
                self.left_out,
                f"{since}: {_are(self.left_out)} new and left out, because a run goes on with the images that it began with",
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
        """JSON-ready values, the sentences among them."""
        return {**asdict(self), "changed": self.changed, "sentences": list(self.sentences())}


def _counted(counts: Mapping[str, int], what: str) -> str:
    uses = ", ".join(f"{count:,} {_USES[part]}" for part, count in counts.items())
    return f"{_are(sum(counts.values()))} {what} ({uses})"


def _are(count: int, of: str = "") -> str:
    return f"1 image{of} is" if count == 1 else f"{count:,} images{of} are"
