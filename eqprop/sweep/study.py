"""A search whose points are the trials of an Optuna study, kept in the sweep's folder.

``study.log`` is Optuna's journal: ``optuna-dashboard FOLDER/study.log`` opens it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from eqprop.run.errors import ConfigError
from eqprop.sweep import sampler
from eqprop.sweep.book import ELSEWHERE, Book, cut_torn_line
from eqprop.sweep.plan import Plan
from eqprop.sweep.points import Point, Result

LOG = "study.log"
NAME = "eqprop"

_STATES = {
    "done": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
}


class Search:
    """Points by Optuna until ``n_trials`` of them are completed, or too many have failed.

    The folder's lock must be held: nobody else writes the study.

    Raises:
        ConfigError: if the study cannot be read.
    """

    searches = True

    def __init__(self, plan: Plan, book: Book) -> None:
        self.plan = plan
        self.ended: str | None = None
        self.space = sampler.distributions(plan.space)
        options = plan.options
        assert options.sampler != "grid"
        proposing = sampler.UntriedSampler(self.space, options.sampler, options.seed)
        self.storage = _open(book.folder / LOG)
        if not self.storage.get_all_studies():
            self.storage.create_new_study([StudyDirection.MAXIMIZE], NAME)
        pruner = _pruner(options.pruner)
        self.study = optuna.load_study(
            study_name=NAME, storage=self.storage, sampler=proposing, pruner=pruner
        )
        self._axes = {axis.name: axis for axis in plan.space.axes}
        self._trials: dict[int, Trial] = {}
        self._epochs: dict[int, int] = {}

    def unfinished(self) -> list[Point]:
        """Return the trials that are running, whatever has become of who started them."""
        study = self.storage.get_study_id_from_name(NAME)
        points = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            which = self.storage.get_trial_id_from_study_id_trial_number(study, trial.number)
            points.append(self._point(Trial(self.study, which)))
            self._epochs[trial.number] = max(trial.intermediate_values, default=0)
        return points

    def next(self) -> Point | None:
        """Ask for another trial; the space may be smaller than the search is long."""
        count = dict.fromkeys(TrialState, 0)
        for trial in self.study.get_trials(deepcopy=False):
            count[trial.state] += 1
        n_trials = self.plan.options.n_trials or 0
        failures = self.plan.options.max_failures or n_trials
        if count[TrialState.COMPLETE] + count[TrialState.RUNNING] >= n_trials:
            return None
        if count[TrialState.FAIL] >= failures:
            self.ended = f"gave up after {failures} failed points (sweep.max_failures)"
            return None
        if sum(count.values()) - count[TrialState.WAITING] >= sampler.size(self.space):
            self.ended = "every point of the space has been tried"
            return None
        return self._point(self.study.ask())

    def report(self, point: Point, epoch: int, accuracy: float) -> bool:
        """Record the accuracy after an epoch, once; returns what the pruner makes of it."""
        trial = self._trials[point.number]
        if epoch <= self._epochs.get(point.number, 0):
            return False
        self._epochs[point.number] = epoch
        trial.report(accuracy, epoch)
        return trial.should_prune()

    def tell(self, point: Point, result: Result, about: dict[str, Any]) -> None:
        """Finish the trial."""
        trial = self._trials.pop(point.number)
        for key, value in about.items():
            trial.set_user_attr(key, value)
        value = result.mean if result.state == "done" else None
        self.study.tell(trial, value, state=_STATES[result.state])

    def _point(self, trial: Trial) -> Point:
        self._trials[trial.number] = trial
        words = []
        for name, distribution in self.space.items():
            value = _suggested(trial, name, distribution)
            text = repr(float(value)) if isinstance(value, float) else value
            words.append(self._axes[name].word(text))
        return Point(trial.number, tuple(words))


def _pruner(name: str | None) -> BasePruner:
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "halving":
        return SuccessiveHalvingPruner()
    return HyperbandPruner() if name == "hyperband" else NopPruner()


def _suggested(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """A trial's value, the same however often it is asked for, by another process too."""
    if isinstance(distribution, FloatDistribution):
        low, high = distribution.low, distribution.high
        return trial.suggest_float(name, low, high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        bounds = distribution.low, distribution.high
        return trial.suggest_int(name, *bounds, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def _open(path: Path) -> JournalStorage:
    logging.getLogger("optuna").setLevel(logging.WARNING)
    cut_torn_line(path)
    for lock in path.parent.glob(f"{path.name}.lock*"):  # its holder was killed
        with suppress(OSError):
            lock.unlink()
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Optuna's journal; {ELSEWHERE}") from error
