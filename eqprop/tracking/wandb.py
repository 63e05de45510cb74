"""Runs in Weights & Biases, by default offline: no account, prompt or network.

Only this module and ``wandb_session`` know W&B; the package is imported when a run starts.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from eqprop.run.reading import read_rows
from eqprop.run.redact import redact
from eqprop.run.text import one_line
from eqprop.tracking import base
from eqprop.tracking import wandb_session as session
from eqprop.tracking.base import Row, RunInfo, State, Tracker
from eqprop.tracking.local import read_curves
from eqprop.tracking.wandb_session import Mode

log = logging.getLogger(__name__)

_EXIT_CODES: dict[State, int] = {"done": 0, "failed": 1, "interrupted": 130}
_OF_EPOCHS = ("accuracy/", "time/", "throughput/", "energy/test")  # metrics over epochs, not steps
_OF_EPOCH_ROWS = ("time/train_s", "time/eval_s")  # whatever else such a row has is of epochs too
# what a run's summary, a short list, leaves out: what is of one layer or parameter, or of a batch
_NOT_IN_SUMMARY = re.compile(
    r"step|time/eval_s|(gradient|weight)_.*|learning_rate/.*|saturation/.*|throughput/.*"
    r"|energy/(free|nudged|difference|layer/.*)|relaxation/.*(_steps|/\d+)"
)


class WandbTracker(Tracker):
    """Records a run in ``<outputs>/wandb/`` under its readable id.

    ``online`` becomes offline with one warning where there is no login or no answer. What was
    recorded of a resumed run is recorded again, except what the server has: offline, the new record
    takes the place of the earlier ones.
    """

    def __init__(
        self,
        mode: Annotated[
            Mode | None,
            Doc(
                "offline needs no account and no network, online a login (wandb login); null: as "
                "WANDB_MODE says, offline without it"
            ),
        ] = "offline",
        checkpoints: Annotated[
            bool, Doc("best.pt and last.pt become versions of an artifact")
        ] = True,
    ) -> None:
        self.mode: Mode | None = mode
        self.checkpoints = checkpoints
        self._run: Any = None
        self._record = self._folder = Path()  # the run's own, and W&B's of it
        self._location: str | None = None
        self._step = 0
        self._defined = {"epoch"}
        self._shown: dict[str, list[Any]] = {}

    def start(self, run: RunInfo) -> None:
        """Open the run in W&B; an earlier one left open in this process is closed as failed."""
        self._record = run.folder
        mode = self.mode = session.chosen_mode(self.mode)
        if mode == "disabled":
            return
        (run.outputs.absolute() / "wandb").mkdir(parents=True, exist_ok=True)
        with session.environment(keep=mode == "online"):
            # an earlier session may have died, or have been opened in another environment
            session.end_session()
            self._run = self._open(run)
        self._folder = Path(self._run.dir).parent
        # it leaves the folder of each logged table to the garbage collector
        warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
        # the artifacts that are to be uploaded later lie there, not in the user's home
        os.environ["WANDB_DATA_DIR"] = str(self._folder)
        self._location = f"wandb leet {shlex.quote(os.path.relpath(self._folder.parent))}"
        if not self._run.offline:
            log.info("W&B: %s", self._run.url)
            self._location += f", or {self._run.url}"
        if run.resumed:
            for row in read_rows(run.folder):
                self.log({name: math.nan if x is None else x for name, x in row.items()})
            for curve in read_curves(run.folder):
                self.show(f"curves/{curve.phase}", curve, curve.step)
            if self._run.offline:  # all of it is in the new record: a run is one entry
                for earlier in self._folder.parent.glob(f"offline-run-*-{glob.escape(run.id)}"):
                    if earlier.name != self._folder.name and _is_of(earlier, run.id):
                        shutil.rmtree(earlier, ignore_errors=True)

    def log(self, row: Row) -> None:
        if self._run is None:  # disabled
            return
        of_epoch = not row.keys().isdisjoint(_OF_EPOCH_ROWS)
        for name in row.keys() - self._defined:
            self._define(name, of_epoch)
        self._step = max(int(row.get("step", 0)), self._step)  # W&B drops a row that goes back
        if self._step >= self._run.starting_step:  # else the server has it, of an earlier process
            self._run.log(dict(row), step=self._step)

    def show(self, name: str, item: object, step: int) -> None:
        """Keep it for the end: online, W&B asks the server before it takes a chart or a file."""
        self._shown.setdefault(name, []).append(item)

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Send what was shown and the summary, and close the run as finished or failed."""
        if self._run is None:  # disabled, or interrupted before it had begun
            return
        run, self._run = self._run, None
        self._step = max(self._step, run.starting_step)
        answered = session.within(session.ANSWER_TIMEOUT, lambda: self._send_shown(run))
        run.log({}, step=self._step, commit=True)  # a pending row would overwrite the summary
        if run.resumed:  # of which W&B knows the extremes of this process's part only
            run.summary.update(extremes(read_rows(self._record)))
        run.summary.update(summary)
        # W&B's own limit begins only when its service comes to the end of what it has to send
        limit = session.FINISH_TIMEOUT + session.GRACE
        if not session.within(limit, lambda: run.finish(exit_code=_EXIT_CODES[state])):
            session.kill_service()
            session.end_session()
            sync = shlex.join(["wandb", "sync", "--no-skip-online", str(self._folder)])
            took = f"{run.url} has not taken everything within {session.FINISH_TIMEOUT:g} s"
            log.warning("W&B: %s; send the rest with: %s", took, sync)
        elif not answered:
            log.warning("W&B: %s did not answer: charts or checkpoints are missing", run.url)

    def abandon(self) -> None:
        self._run = None
        session.end_session()

    def location(self) -> str | None:
        return self._location

    def _open(self, run: RunInfo) -> Any:
        """W&B's run: online if that is wanted and works, else offline."""
        if self.mode == "online":
            try:
                session.check_login()
                return session.init(run, "online")
            except Exception as error:
                log.warning("W&B: this run is recorded offline (%s)", redact(one_line(error)))
            session.end_session()  # one whose login failed starts nothing any more
        return session.init(run, "offline")

    def _define(self, name: str, of_epoch: bool) -> None:
        """Give a metric its x axis and its extremes; W&B's patterns match no name with a dot."""
        self._defined.add(name)
        axis = "epoch" if of_epoch or name.startswith(_OF_EPOCHS) else "step"
        whole = name.replace(".", "\\.")
        shown = "none" if _NOT_IN_SUMMARY.fullmatch(name) else "min,max,last"
        self._run.define_metric(whole, step_metric=None if name == axis else axis, summary=shown)

    def _send_shown(self, run: Any) -> None:
        """Send it as ``zoom/…``, which dashboards sort behind the metrics."""
        import wandb

        for name, items in self._shown.items():
            if make := _CHARTS.get(type(items[-1])):
                run.log({f"zoom/{name}": make(items)}, step=self._step)
            elif isinstance(items[-1], base.CheckpointFile) and self.checkpoints:
                artifact = wandb.Artifact(f"checkpoint-{run.id}"[:128], type="model")
                artifact.add_file(str(items[-1].path), skip_cache=True)  # may be uploaded later
                run.log_artifact(artifact, aliases=[items[-1].alias])


def curves_chart(curves: Sequence[base.Curve]) -> Any:
    """The energies of one phase against its steps, a line for each epoch."""
    import wandb

    return wandb.plot.line_series(
        xs=[list(range(len(curve.energy))) for curve in curves],
        ys=[list(curve.energy) for curve in curves],
        keys=[f"epoch {curve.epoch}" for curve in curves],
        title=f"Energy in the {curves[0].phase} phase",
        xname="relaxation step",
    )


def confusion_chart(shown: Sequence[base.ConfusionMatrix]) -> Any:
    """The confusion matrix in W&B's own chart, which counts the samples itself."""
    import wandb

    matrix = shown[-1]
    places = range(len(matrix.classes))
    pairs = [(i, j) for i in places for j in places for _ in range(matrix.counts[i][j])]
    true, predicted = zip(*pairs, strict=True)
    return wandb.plot.confusion_matrix(
        y_true=true, preds=predicted, class_names=matrix.classes, title="Confusion matrix"
    )


def mistakes_table(shown: Sequence[base.Mistakes]) -> Any:
    """The worst mistakes with their pictures, a row for each."""
    import wandb

    columns = ["picture", "index", "true", "predicted", "probability", "of the true one", "cost"]
    table, classes = wandb.Table(columns=columns), shown[-1].classes
    for m in shown[-1].worst:
        picture = None if m.picture is None else wandb.Image(m.picture)
        words = classes[m.target], classes[m.predicted]
        table.add_data(picture, m.index, *words, m.probability, m.target_probability, m.cost)
    return table


def newest_picture(shown: Sequence[base.Picture]) -> Any:
    """The picture as it was shown last."""
    import wandb

    return wandb.Image(shown[-1].pixels)


_CHARTS: dict[type, Callable[[Any], Any]] = {
    base.Curve: curves_chart,
    base.ConfusionMatrix: confusion_chart,
    base.Mistakes: mistakes_table,
    base.Picture: newest_picture,
}


def _is_of(folder: Path, run_id: str) -> bool:
    """Whether a folder of W&B's is that run's: another's id may end with the same words."""
    return (folder / f"run-{run_id}.wandb").is_file()


def extremes(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Name → lowest, highest and last value, as W&B has it in the summary of a run.

    What is left out of summaries has none.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        for name in row.keys() - {"epoch"}:
            if row[name] is not None and not _NOT_IN_SUMMARY.fullmatch(name):
                values.setdefault(name, []).append(row[name])
    return {name: {"min": min(v), "max": max(v), "last": v[-1]} for name, v in values.items()}
