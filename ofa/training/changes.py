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
        left_out = "are new and left out, because a run goes on with the images that it began with"
        if self.left_out == 1:
            left_out = "is new and left out, because a run goes on with the images that it began with"
        said = {
            "this run has no record of its data, as those of earlier versions and imported weights have none, so its parts are drawn by "
            "its seed and nobody can tell whether images or classes changed since; a run that is trained anew has one": not self.recorded,
            f"{since}: its classes are listed in another order, and are taken by name": self.reordered,
            f"{since}: {_counted(self.added, 'new')}; each goes to a part by its own content": self.added,
            f"{since}: {_counted(self.removed, 'gone')}": self.removed,
            f"{since}: {_counted(self.relabelled, 'of another class now')}; each counts as what it is now": self.relabelled,
            f"{since}: {_images(self.left_out)} {left_out}": self.left_out,
            f"{_images(self.leaked)} of the test data {_is(self.leaked)} also among the images to train or to select on, which makes "
            "accuracies on it too high; remove them from one of the two": self.leaked,
            f"{_images(self.ambiguous)} {_is(self.ambiguous)} there under more than one class, of which at most one can be right; "
            "correct the labels": self.ambiguous,
        }
        return tuple(sentence for sentence, holds in said.items() if holds)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values, the sentences among them."""
        return {**asdict(self), "changed": self.changed, "sentences": list(self.sentences())}


def _counted(counts: Mapping[str, int], what: str) -> str:
    total = sum(counts.values())
    uses = ", ".join(f"{count:,} {_USES[part]}" for part, count in counts.items())
    return f"{_images(total)} {_is(total)} {what} ({uses})"


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
