"""Runs in Weights & Biases, by default offline: no account, prompt or network.

Only the modules ``wandb*`` know W&B; the package is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from eqprop.run.reading import read_rows
from eqprop.run.redact import redact
from eqprop.run.text import one_line
from eqprop.run.version import __version__
from eqprop.tracking import wandb_charts as charts
from eqprop.tracking import wandb_session as session
from eqprop.tracking.base import Row, RunInfo, State, Tracker
from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistakes
from eqprop.tracking.local import read_curves
from eqprop.tracking.wandb_history import History, extremes
from eqprop.tracking.wandb_session import Mode

log = logging.getLogger(__name__)

_EXIT_CODES: dict[State, int] = {"done": 0, "failed": 1, "interrupted": 130}


class WandbTracker(Tracker):
    """Records a run in ``<outputs>/wandb/`` under its readable id.

    ``mode``: ``offline``, or ``online``, which becomes offline with one warning where there is no
    login or no answer from the server. ``checkpoints``: whether the best and the last checkpoint
    become versions of an artifact.
    """

    def __init__(
        self,
        mode: Annotated[
            Mode, Doc("offline needs no account and no network, online a login (wandb login)")
        ] = "offline",
        checkpoints: Annotated[
            bool, Doc("best.pt and last.pt become versions of an artifact")
        ] = True,
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"mode is offline or online, not {mode!r}")
        self.mode: Mode = mode
        self.checkpoints = checkpoints
        self._curves: list[Curve] = []
        self._info: RunInfo | None = None
        self._run: Any = None
        self._history: Any = None
        self._page: str | None = None

    def start(self, run: RunInfo) -> None:
        """Open the run in W&B; an earlier one left open in this process is closed as failed."""
        self._info = run
        (run.outputs.absolute() / "wandb").mkdir(parents=True, exist_ok=True)
        with session.environment(keep=self.mode == "online"):
            # an earlier session may have died, or have been opened in another environment
            session.end_session()
            self._run = self._open(run)
        # it leaves the folder of each logged table to the garbage collector
        warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
        # the artifacts that are to be uploaded later lie there, not in the user's home
        os.environ["WANDB_DATA_DIR"] = str(self._folder())
        command = shlex.join(redact(word) for word in sys.argv)
        self._run.summary.update({"command": command, "eqprop": __version__})
        self._page = None if self._run.offline else self._run.url
        if self._page:
            log.info("W&B: %s", self._page)
        self._history = History(self._run)
        self._curves = list(read_curves(run.folder)) if run.resumed else []
        if run.resumed and self._page:
            self._history.resume(read_rows(run.folder))

    def log(self, row: Row) -> None:
        self._history.log(row)

    def show(self, name: str, item: object, step: int) -> None:
        if self._history.has(step) and not isinstance(item, CheckpointFile):
            return
        if isinstance(item, Curve):
            self._curves.append(item)
            chart = charts.curves_chart([c for c in self._curves if c.phase == item.phase])
            self._history.show(name, chart, step)
        elif isinstance(item, ConfusionMatrix):
            self._history.show(name, charts.confusion_chart(item), step)
        elif isinstance(item, Mistakes):
            self._history.show(name, charts.mistakes_table(item), step)
        elif isinstance(item, CheckpointFile) and self.checkpoints:
            artifact = charts.checkpoint_artifact(item, self._run.id)
            self._run.log_artifact(artifact, aliases=[item.alias])

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Write the summary and close the run as finished or failed."""
        run, info = self._run, self._info
        if run is None or info is None:  # interrupted before it had begun
            return
        folder, self._run = _near(self._folder()), None
        self._history.close()
        before = extremes(read_rows(info.folder)) if info.resumed else {}
        run.summary.update({**before, **summary})
        # W&B's own limit begins only when its service comes to the end of what it has to send
        limit = session.FINISH_TIMEOUT + session.GRACE
        try:
            session.within(limit, lambda: run.finish(exit_code=_EXIT_CODES[state]))
        except TimeoutError:
            session.kill_service()
            session.end_session()
            log.warning(
                "W&B: %s has not taken everything within %g s; send the rest with: %s",
                *(self._page or folder, session.FINISH_TIMEOUT),
                shlex.join(["wandb", "sync", "--no-skip-online", str(folder)]),
            )

    def abandon(self) -> None:
        self._run = None
        session.end_session()

    def location(self) -> str | None:
        """The command that shows all runs in the terminal, and the run's page if it has one."""
        if self._info is None:
            return None
        folder = _near(self._info.outputs.absolute() / "wandb")
        command = f"wandb leet {shlex.quote(str(folder))}"
        return f"{command}, or {self._page}" if self._page else command

    def _folder(self) -> Path:
        """W&B's folder of this run."""
        return Path(self._run.dir).parent

    def _open(self, run: RunInfo) -> Any:
        """W&B's run: online if that is wanted and works, else offline."""
        if self.mode == "online":
            try:
                reason = session.why_offline()
                if reason is None:
                    opened = _init(run, "online")
                    session.stop_asking(opened)
                    return opened
            except Exception as error:
                reason = one_line(f"{type(error).__name__}: {error}")
            log.warning("W&B: this run is recorded offline (%s)", redact(str(reason)))
            session.end_session()  # one whose login failed starts nothing any more
        return _init(run, "offline")


def _init(run: RunInfo, mode: Mode) -> Any:
    import wandb

    # the agent of a W&B sweep has decided what the run is called and where it goes
    in_sweep = mode == "online" and "WANDB_SWEEP_ID" in os.environ
    return wandb.init(
        id=None if in_sweep else session.identifier(run.id),
        resume=None if in_sweep or mode == "offline" else "allow" if run.resumed else "never",
        name=run.name[:128],
        project=None if in_sweep else run.project,
        entity=None if in_sweep else run.entity,
        group=run.group[:128] if run.group else None,
        tags=[tag[:64] for tag in run.tags if tag],
        notes=run.notes,
        config=dict(run.config),
        dir=str(run.outputs.absolute()),
        settings=session.settings(mode),
    )


def _near(path: Path) -> Path:
    """``path`` as it is seen from the working directory, if it lies in that."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
