"""Runs in Weights & Biases, by default offline: no account, prompt or network.

The only module that knows W&B; the package is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqprop import __version__
from eqprop.run.files import one_line
from eqprop.run.redact import redact
from eqprop.tracking import media, session
from eqprop.tracking.base import RunInfo, State, Tracker
from eqprop.tracking.connection import why_offline
from eqprop.tracking.history import History
from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistakes
from eqprop.tracking.jsonl import read_rows
from eqprop.tracking.local import read_curves
from eqprop.tracking.session import Mode

log = logging.getLogger(__name__)

_EXIT_CODES: dict[State, int] = {"done": 0, "failed": 1, "interrupted": 130}


class WandbTracker(Tracker):
    """Records a run in ``<outputs>/wandb/`` under its readable id.

    ``mode``: ``offline``, or ``online``, which becomes offline with one warning where there is no
    login or no answer from the server. ``checkpoints``: whether the best and the last checkpoint
    become versions of an artifact.
    """

    def __init__(self, mode: Mode = "offline", checkpoints: bool = True) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"mode is offline or online, not {mode!r}")
        self.mode: Mode = mode
        self.checkpoints = checkpoints
        self._curves: list[Curve] = []
        self._run: Any = None
        self._history: Any = None
        self._page: str | None = None
        self._outputs: Path | None = None

    def start(self, run: RunInfo) -> None:
        """Open the run in W&B; an earlier one left open in this process is given up first."""
        self._outputs = run.outputs.absolute()
        (self._outputs / "wandb").mkdir(parents=True, exist_ok=True)
        self._curves = list(read_curves(run.folder)) if run.resumed else []
        with session.environment(keep=self.mode == "online"):
            import wandb

            if wandb.run is not None:
                self.abandon()
            mode = self._reachable_mode()
            try:
                self._run = self._open(run, mode)
                if mode == "online":
                    session.stop_asking(self._run)
            except Exception as error:
                if mode == "online":
                    self._warn_offline(one_line(f"{type(error).__name__}: {error}"))
                # a session whose service has died, or whose login failed, starts nothing any more
                self.abandon()
                self._run = self._open(run, "offline")
            self._page = None if self._run.offline else self._run.url
            command = shlex.join(sys.argv)  # its secrets are masked within
            self._run.summary.update({"command": command, "eqprop": __version__})
            if self._page:
                log.info("W&B: %s", self._page)
        self._history = History(self._run)
        if run.resumed:
            self._history.resume(read_rows(run.folder), online=self._page is not None)

    def log(self, row: Mapping[str, float | int]) -> None:
        """Record ``row`` at its ``step``; rows of the same step are merged."""
        self._history.log(row)

    def show(self, name: str, item: object, step: int) -> None:
        """Record a chart, a table with pictures or a checkpoint, whatever it is."""
        if self._history.has(step) and not isinstance(item, CheckpointFile):
            return
        import wandb

        with session.data_folder(self._folder()):
            if isinstance(item, Curve):
                self._curves.append(item)
                of_phase = [curve for curve in self._curves if curve.phase == item.phase]
                self._media(name, media.curves_chart(wandb, of_phase), step)
            elif isinstance(item, ConfusionMatrix):
                self._media(name, media.confusion_chart(wandb, item), step)
            elif isinstance(item, Mistakes):
                self._media(name, media.mistakes_table(wandb, item), step)
            elif isinstance(item, CheckpointFile) and self.checkpoints:
                called = f"checkpoint-{self._run.id}"
                folder = self._folder() / "checkpoints"
                artifact = media.checkpoint_artifact(wandb, called, item, folder)
                self._run.log_artifact(artifact, aliases=[item.alias])

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Write the summary and close the run as finished or failed."""
        run = self._run
        if run is None:  # interrupted before it had begun
            return
        folder, self._run = _near(self._folder()), None
        run.summary.update({**self._history.close(), **summary})
        # W&B's own limit begins only when its service comes to the end of what it has to send
        limit = session.FINISH_TIMEOUT + session.GRACE
        try:
            session.within(limit, lambda: run.finish(exit_code=_EXIT_CODES[state]))
        except TimeoutError:
            session.end_service()
            self.abandon()
            log.warning(
                "W&B: %s has not taken everything within %g s; send the rest with: %s",
                *(self._page or folder, session.FINISH_TIMEOUT),
                shlex.join(["wandb", "sync", "--no-skip-online", str(folder)]),
            )

    def abandon(self) -> None:
        """Give W&B's session up, so that neither this process's end nor the next run meets it."""
        run, self._run = self._run, None
        import wandb

        with contextlib.suppress(Exception, SystemExit):  # W&B exits where its service has died
            session.stop_watching(run)
            try:
                session.within(session.FINISH_TIMEOUT, lambda: wandb.teardown(exit_code=1))
            except TimeoutError:
                session.end_service()

    def location(self) -> str | None:
        """The command that shows all runs in the terminal, and the run's page if it has one."""
        if self._outputs is None:
            return None
        folder = _near(self._outputs / "wandb")
        command = f"wandb leet {shlex.quote(str(folder))}"
        return f"{command}, or {self._page}" if self._page else command

    def _folder(self) -> Path:
        """W&B's folder of this run."""
        return Path(self._run.dir).parent

    def _media(self, name: str, thing: Any, step: int) -> None:
        try:
            self._history.show(f"{media.SECTION}/{name}", thing, step)
        finally:
            media.tidy(thing)

    def _reachable_mode(self) -> Mode:
        if self.mode == "offline":
            return "offline"
        import wandb

        quiet = wandb.Settings(silent=True)
        opened = wandb.setup(quiet)
        if opened.did_environment_change():  # an offline run has opened it without the variables
            self.abandon()
            opened = wandb.setup(quiet)
        base_url = str(opened.settings.base_url)
        reason = why_offline(base_url, has_login=session.has_login(opened.settings))
        if reason is None:
            return "online"
        self._warn_offline(reason)
        return "offline"

    def _warn_offline(self, reason: str) -> None:
        log.warning("W&B: this run is recorded offline (%s)", redact(reason))

    def _open(self, run: RunInfo, mode: Mode) -> Any:
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
            dir=str(self._outputs),
            settings=session.settings(wandb, mode),
        )


def _near(path: Path) -> Path:
    """``path`` as it is seen from the working directory, if it lies in that."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
