"""The ledger: the study in a storage, on which any number of workers write.

A worker claims a trial before it evaluates a network: it writes the trial whole, as running and as its own. With the trial finished, its
values are there. What a dead worker has claimed is taken over under the same number: the first of the living workers by name lets it wait
again, and of all who ask for a waiting trial the storage gives it to one. Nobody can finish a finished trial.

Of the wanted number of trials those with the lowest numbers count; who claims one too many lets it fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from ofa.errors import SearchError
from search.study.claims import Claim, Look
from search.study.heartbeat import Beats, group_of, is_alive
from search.study.optuna_logging import without_notices
from search.study.steering import directions_of
from search.study.storages import in_one_sentence, open_storage, without_password
from search.units import called, typed

__all__ = ["PATIENCE_S", "Ledger"]

PATIENCE_S = 60.0
"""Seconds without a sign of life after which a worker on another machine counts as dead."""
_BEATS = 6  # in that time
_LOOK_FOR_DEAD_S = 1.0
_ATTEMPTS = 3
"""Workers that may die on a trial before it fails: it may be what kills them."""

_DESCRIPTION_KEY = "ofa"
_WORKER_KEY = "worker"
_ATTEMPTS_KEY = "attempts"

_CALLED = {
    "genes_digest": "choices of the space",
    "objectives": "costs to trade",
    "expected_latency": "use of the expected latency",
    "accuracy": "source of accuracies",
    "latency_digest": "latency table",
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Ledger:
    """A study in a storage, seen by one worker.

    As a context manager it says that the worker lives, from entering to leaving, and closes the storage then.

    Args:
        text: the storage, see ``open_storage``.
        name: the study's.
        description: what two searches must share to be one study, as JSON values.
        worker: this worker's name.
        patience_s: seconds of silence after which other workers count as dead.

    Attributes:
        close: lets the storage go.

    Raises:
        SearchError: the storage cannot be used, or the study there is of another problem.
    """

    def __init__(self, text: str, name: str, description: Mapping[str, Any], *, worker: str, patience_s: float = PATIENCE_S) -> None:
        self.worker = worker
        self._text = text
        self._patience_s = patience_s
        self._known: set[int] = set()
        self._trials: list[FrozenTrial] = []
        self._looked_for_dead = -float("inf")
        self._beats = Beats(lambda: self._say(time.time()), patience_s / _BEATS)
        opened = open_storage(text)
        self._storage = opened.storage
        self.close = opened.close
        try:
            with in_one_sentence(text), without_notices():
                directions = directions_of(description["objectives"])
                optuna.create_study(storage=self._storage, study_name=name, directions=directions, load_if_exists=True)
                self._study_id = self._storage.get_study_id_from_name(name)
            self._compare(name, description)
        except BaseException:
            self.close()
            raise

    def _compare(self, name: str, description: Mapping[str, Any]) -> None:
        found = self._do(self._storage.get_study_user_attrs, self._study_id).get(_DESCRIPTION_KEY)
        if found is None and not self._all():
            found = dict(description)
            self._do(self._storage.set_study_user_attr, self._study_id, _DESCRIPTION_KEY, found)
        for key, value in description.items():
            if (found or {}).get(key) != value:
                raise SearchError(
                    f"a study is resumed with the problem that it began with, but the {_CALLED.get(key, key)} of study '{name}' in "
                    f"'{without_password(self._text)}' {_change(key, (found or {}).get(key), value)}; give this study a name of its own"
                )

    def __enter__(self) -> Self:
        try:
            self._do(self._beats.start)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._beats.stop()
        with suppress(Exception):  # silence says the same, later
            self._say(None)
        self.close()

    def strangers(self) -> bool:
        """Whether workers of other runs are at this study."""
        return any(group_of(worker) != group_of(self.worker) for worker in self._living())

    def finished(self) -> int:
        """How many trials are finished."""
        return sum(trial.state == TrialState.COMPLETE for trial in self._all())

    def look(self) -> Look:
        """How far the study is."""
        self._trials = [trial for trial in self._all() if _counts(trial)]
        finished = [trial for trial in self._trials if trial.state == TrialState.COMPLETE]
        fresh = [trial for trial in finished if trial.number not in self._known]
        self._known |= {trial.number for trial in fresh}
        return Look(counted=len(self._trials), finished=len(finished), fresh=fresh)

    def claim(self, trials: Sequence[FrozenTrial], wanted: int) -> list[Claim | None]:
        """Claim trials.

        Args:
            trials: with parameters and whatever else is known; their states and values do not matter.
            wanted: how many the study is to have.

        Returns:
            A claim for each, or None where others were faster and the study has enough.
        """
        templates = [
            create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={**trial.user_attrs, _WORKER_KEY: self.worker},
                system_attrs=dict(trial.system_attrs),
            )
            for trial in trials
        ]
        ids = [self._do(self._storage.create_new_trial, self._study_id, template) for template in templates]
        within = list(filter(_counts, self._all()))[:wanted]
        own = {self._id(trial): trial for trial in within if self._is_own(trial)}
        for trial_id in ids:
            if trial_id not in own:
                self._let_go(trial_id, again=False)
        return [Claim(trial_id, own[trial_id]) if trial_id in own else None for trial_id in ids]

    def _is_own(self, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and trial.user_attrs[_WORKER_KEY] == self.worker

    def take(self, wanted: int) -> Claim | None:
        """A trial that a dead worker has left, which is now this worker's; None if there is none."""
        self._rescue(wanted)
        for trial in self._trials:
            if trial.state == TrialState.WAITING:
                trial_id = self._id(trial)
                with suppress(UpdateFinishedTrialError):
                    if self._do(self._storage.set_trial_state_values, trial_id, TrialState.RUNNING):
                        self._set(trial_id, _WORKER_KEY, self.worker)
                        return Claim(trial_id, self._trial(trial_id))
        return None

    def finish(self, claim: Claim, told: FrozenTrial) -> None:
        """Write what became of a claimed trial, unless another worker has done so.

        Args:
            claim: the trial.
            told: its values, and attributes of which those that the claim lacks are written, too; constraints are among them.
        """
        self._known.add(claim.trial.number)
        with suppress(UpdateFinishedTrialError):
            for key, value in told.system_attrs.items():
                if key not in claim.trial.system_attrs:
                    self._do(self._storage.set_trial_system_attr, claim.trial_id, key, value)
            for key, value in told.user_attrs.items():
                if key not in claim.trial.user_attrs:
                    self._set(claim.trial_id, key, value)
            self._do(self._storage.set_trial_state_values, claim.trial_id, TrialState.COMPLETE, told.values)

    def give_up(self, claims: Sequence[Claim], *, again: bool) -> None:
        """Claimed trials will not be finished by this worker; ``again`` tells whether another one is to try."""
        for claim in claims:
            self._let_go(claim.trial_id, again=again)

    def give_up_all_of(self, group: str, wanted: int) -> None:
        """Let wait what workers of a run have claimed, who all are gone."""
        for trial in self._all():
            if trial.state == TrialState.RUNNING and group_of(trial.user_attrs.get(_WORKER_KEY, "")) == group:
                self._release(trial, wanted)

    # -- the dead ------------------------------------------------------------------------------------------------------

    def _rescue(self, wanted: int) -> None:
        """Let wait what dead workers have claimed, if this worker is the one to do so."""
        running = [trial for trial in self._trials if trial.state == TrialState.RUNNING and trial.user_attrs[_WORKER_KEY] != self.worker]
        now = time.monotonic()
        if not running or now - self._looked_for_dead < _LOOK_FOR_DEAD_S:
            return
        self._looked_for_dead = now
        living = self._living()
        if self.worker == min(living, default=self.worker):
            for trial in running:
                if self._is_lost(trial, living) and self._is_lost(self._trial(self._id(trial)), living):
                    self._release(trial, wanted)
            self._trials = [trial for trial in self._all() if _counts(trial)]

    def _is_lost(self, trial: FrozenTrial, living: Sequence[str]) -> bool:
        worker = trial.user_attrs[_WORKER_KEY]
        if trial.state != TrialState.RUNNING or worker in living:
            return False
        # Between waiting and running a trial is nobody's for a moment.
        started = trial.datetime_start or datetime.min
        return bool(worker) or datetime.now() - started > timedelta(seconds=self._patience_s)

    def _release(self, trial: FrozenTrial, wanted: int) -> None:
        trial_id = self._id(trial)
        attempts = int(trial.user_attrs.get(_ATTEMPTS_KEY, 1))
        surplus = sum(other.number < trial.number for other in self._all() if _counts(other)) >= wanted
        with suppress(UpdateFinishedTrialError):
            self._set(trial_id, _ATTEMPTS_KEY, attempts + 1)
        self._let_go(trial_id, again=not surplus and attempts < _ATTEMPTS)

    def _living(self) -> list[str]:
        said = self._do(self._storage.get_study_user_attrs, self._study_id)
        signs = {key.partition(":")[2]: beat for key, beat in said.items() if key.startswith(f"{_WORKER_KEY}:") and beat is not None}
        return [worker for worker, beat in signs.items() if is_alive(worker, time.time() - beat, self._patience_s)]

    def _say(self, beat: float | None) -> None:
        self._storage.set_study_user_attr(self._study_id, f"{_WORKER_KEY}:{self.worker}", beat)

    # -- the storage ---------------------------------------------------------------------------------------------------

    def _all(self) -> list[FrozenTrial]:
        return self._do(self._storage.get_all_trials, self._study_id, deepcopy=False)

    def _trial(self, trial_id: int) -> FrozenTrial:
        return self._do(self._storage.get_trial, trial_id)

    def _id(self, trial: FrozenTrial) -> int:
        return self._do(self._storage.get_trial_id_from_study_id_trial_number, self._study_id, trial.number)

    def _set(self, trial_id: int, key: str, value: Any) -> None:
        self._do(self._storage.set_trial_user_attr, trial_id, key, value)

    def _let_go(self, trial_id: int, *, again: bool) -> None:
        with suppress(UpdateFinishedTrialError):
            if again:
                # First nobody's, then waiting: who takes it while it still had another's name might lose it again.
                self._set(trial_id, _WORKER_KEY, "")
            self._do(self._storage.set_trial_state_values, trial_id, TrialState.WAITING if again else TrialState.FAIL)

    def _do(self, function: Callable[_P, _T], *values: _P.args, **named: _P.kwargs) -> _T:
        with in_one_sentence(self._text):
            return function(*values, **named)


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those wanted; what users have put into a study to be run by Optuna itself is not."""
    return trial.state == TrialState.COMPLETE or (
        trial.state in (TrialState.RUNNING, TrialState.WAITING) and _WORKER_KEY in trial.user_attrs
    )


def _change(key: str, then: Any, now: Any) -> str:
    """What was and what is, where that can be said in a few words."""
    if key == "objectives" and isinstance(then, list):
        then, now = (", ".join(map(called, names)) or "none" for names in (then, now))
    elif key == "budget" and isinstance(then, Mapping):
        then, now = (", ".join(_limit(name, limit) for name, limit in limits.items()) or "none" for limits in (then, now))
    elif not isinstance(then, str | bool | list) or key.endswith("_digest"):
        return "is another than now"
    return f"is {then} and now {now}"


def _limit(name: str, limit: float | Mapping[str, float]) -> str:
    ends = limit.items() if isinstance(limit, Mapping) else [("least" if name == "accuracy" else "most", limit)]
    return f"{called(name)} of at {' and at '.join(f'{end} {typed(name, value)}' for end, value in ends)}"
