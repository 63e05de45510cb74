"""The record of a sweep: an Optuna study whose journal, ``study.log``, lies in the sweep's folder.

A point is a trial. Its user attributes are ``overrides``, ``runs`` (the fields of ``Run`` for each
repeat), and at its end ``reason`` or ``standard_error``.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from eqprop.run.errors import ConfigError
from eqprop.run.resume import differences
from eqprop.run.text import show
from eqprop.sweep.job import Outcome
from eqprop.sweep.plan import Params, Plan
from eqprop.sweep.space import Distribution

NAME = "eqprop"
ELSEWHERE = "choose another folder with hydra.sweep.dir=DIR"

_PRUNERS = {
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    "halving": SuccessiveHalvingPruner,
    "hyperband": HyperbandPruner,
}


@dataclass
class Run:
    """One repeat of a point."""

    number: int  # of its job; unique in the sweep
    seed: int | None  # None where a point is one run
    folder: str  # relative to the sweep's
    state: str = "waiting"  # or running; then done, failed, pruned, interrupted or skipped
    objective: float | None = None
    reason: str | None = None
    exit_code: int | None = None
    seconds: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether it will not be started again; one that was interrupted is resumed."""
        return self.state not in ("waiting", "interrupted")


@dataclass
class Point:
    """A trial with its values and its runs."""

    trial: Trial
    params: Params
    runs: list[Run]

    def save(self, run: Run | None = None, outcome: Outcome | None = None) -> None:
        """Record the runs as they stand, or with the outcome of one of them."""
        if run is not None and outcome is not None:
            vars(run).update(asdict(outcome))
        self.trial.set_user_attr("runs", [asdict(run) for run in self.runs])


class Record:
    """A sweep's study. The caller holds the folder's lock: nobody else writes.

    ``ended`` is why a search has no more points, where that is not that all of them are done.

    Raises:
        ConfigError: if the study cannot be read, or is another sweep's.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.options = plan.options
        self.ended: str | None = None
        self.space = {axis.name: axis.distribution for axis in plan.axes}
        self.storage = _open(plan.folder / "study.log")
        make_pruner: Any = _PRUNERS.get(plan.options.pruner or "", NopPruner)
        if not self.storage.get_all_studies():
            self.storage.create_new_study([StudyDirection.MAXIMIZE], NAME)
        self.study = optuna.load_study(study_name=NAME, storage=self.storage, pruner=make_pruner())
        self._identify()
        sizes = [len(axis.values) or math.inf for axis in plan.axes]
        # a search that is to try every point is a grid
        self.is_grid = not self.options.searches or math.prod(sizes) <= (self.options.n_trials or 0)
        if self.is_grid:
            self._enqueue_cells()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that were started, but for those that were started anew by ``sweep.retry``."""
        found = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get("retries") for trial in found}
        return [t for t in found if t.number not in again and t.state != TrialState.WAITING]

    @property
    def runs(self) -> list[Run]:
        """The runs of all those trials."""
        return [run for trial in self.trials for run in _runs(trial)]

    @property
    def total(self) -> int:
        """How many jobs there will be in the end, if none of a search's points fails."""
        points = self.options.n_trials or len(self.study.get_trials(deepcopy=False))
        return points * self.options.repeats

    def unfinished(self) -> list[Point]:
        """Return the points that were started and have no result."""
        study = self.storage.get_study_id_from_name(NAME)
        identify = self.storage.get_trial_id_from_study_id_trial_number
        found = []
        for trial in self.trials:
            if trial.state == TrialState.RUNNING:
                self._use_sampler(trial.number)  # it may have been killed while it drew the values
                found.append(self._point(Trial(self.study, identify(study, trial.number))))
        return found

    def next(self) -> Point | None:
        """Return a new point, None where there is none to be started now."""
        counts = Counter(trial.state for trial in self.study.get_trials(deepcopy=False))
        wanted = self.options.n_trials or math.inf
        failures = self.options.max_failures or wanted
        if counts[TrialState.COMPLETE] + counts[TrialState.RUNNING] >= wanted:
            return None
        if self.options.searches and counts[TrialState.FAIL] >= failures:
            self.ended = f"gave up after {failures} failed points (sweep.max_failures)"
            return None
        if self.is_grid and not counts[TrialState.WAITING]:
            if self.options.searches:
                self.ended = "every point of the space has been tried"
            return None
        self._use_sampler(counts.total())
        return self._point(self.study.ask())

    def is_hopeless(self, point: Point, epoch: int, accuracy: float) -> bool:
        """Record the accuracy after an epoch, once; returns whether the pruner would stop here."""
        known = self.study.get_trials(deepcopy=False)[point.trial.number].intermediate_values
        if epoch <= max(known, default=0):
            return False
        point.trial.report(accuracy, epoch)
        return point.trial.should_prune()

    def tell(self, point: Point) -> None:
        """Record the result of a point whose runs have all ended.

        It is done if all of them are: the mean of those that did not fail would flatter it.
        """
        for run in point.runs:
            if run.state in ("pruned", "failed"):
                seed = "" if run.seed is None else f"with seed {run.seed}: "
                point.trial.set_user_attr("reason", f"{seed}{run.reason}")
                told = TrialState.PRUNED if run.state == "pruned" else TrialState.FAIL
                self.study.tell(point.trial, state=told)
                return
        found = [run.objective for run in point.runs if run.objective is not None]
        if len(found) > 1:
            error = statistics.stdev(found) / math.sqrt(len(found))
            point.trial.set_user_attr("standard_error", error)
        self.study.tell(point.trial, statistics.fmean(found))

    def _point(self, trial: Trial) -> Point:
        params = {name: _value(trial, name, drawn) for name, drawn in self.space.items()}
        if "overrides" not in trial.user_attrs:
            trial.set_user_attr("overrides", self.plan.point(params))
        return Point(trial, params, _runs(trial))

    def _enqueue_cells(self) -> None:
        """Add the cells that are not there yet, and, with ``sweep.retry``, those that failed."""
        trials = self.study.get_trials(deepcopy=False)
        known = {frozenset(trial.params.items()): trial for trial in trials}
        for params in self.plan.cells():
            attributes: dict[str, Any] = {}
            if (old := known.get(frozenset(params.items()))) is not None:
                if not self.options.retry or old.state != TrialState.FAIL:
                    continue
                runs = [asdict(run) for run in _runs(old)]
                for run in runs:
                    run["state"] = "done" if run["state"] == "done" else "interrupted"
                attributes = {"retries": old.number, "runs": runs}
            # enqueue_trial would not let an axis get more values
            cell: dict[str, Any] = {"params": params, "distributions": self.space}
            waiting = create_trial(state=TrialState.WAITING, user_attrs=attributes, **cell)
            self.study.add_trial(waiting)

    def _use_sampler(self, number: int) -> None:
        """Draw the trial of this number by a seed of its own: going on gives the same points."""
        seed = (self.options.seed * 1_000_003 + number) % 2**32
        tpe = self.options.sampler == "tpe"
        self.study.sampler = TPESampler(seed=seed) if tpe else RandomSampler(seed)

    def _identify(self) -> None:
        """Write down what the sweep is, or refuse to go on with another one."""
        known, asked = self.study.user_attrs.get("sweep"), self.plan.identity()
        if known is None:
            self.study.set_user_attr("sweep", asked)
        elif changes := differences(known, asked):
            told = ", ".join(f"{key} ({show(old)} → {show(new)})" for key, old, new in changes)
            raise ConfigError(
                f"{self.plan.folder} holds another sweep, with other {told}; {ELSEWHERE}"
            )


def _runs(trial: FrozenTrial | Trial) -> list[Run]:
    return [Run(**run) for run in trial.user_attrs.get("runs", [])]


def _value(trial: Trial, name: str, drawn: Distribution) -> Any:
    """Return a trial's value, the same however often it is asked for, by another process too."""
    if name in trial.params:
        return trial.params[name]
    if isinstance(drawn, FloatDistribution):
        return trial.suggest_float(name, drawn.low, drawn.high, log=drawn.log)
    if isinstance(drawn, IntDistribution):
        return trial.suggest_int(name, drawn.low, drawn.high, log=drawn.log)
    return trial.suggest_categorical(name, drawn.choices)


def _open(path: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with suppress(FileNotFoundError), open(path, "r+b") as file:
        text = file.read()  # a line that its writer did not finish would spoil the next one
        if not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
    for lock in path.parent.glob(f"{path.name}.lock*"):  # its holder was killed
        lock.unlink()
    # Optuna's default lock is a symbolic link, which some file systems do not have
    backend = JournalFileBackend(str(path), JournalFileOpenLock(str(path)))
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as Optuna's journal; {ELSEWHERE}") from error
