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
from eqprop.files import one_line
from eqprop.redact import redact
from eqprop.tracking import media, session
from eqprop.tracking.base import RunInfo, State, Tracker
from eqprop.tracking.connection import why_offline
from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistakes
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
        self._defined: set[str] = set()
        self._run: Any = None
        self._page: str | None = None
        self._outputs: Path | None = None
        self._step = 0
        self._known = 0

    def start(self, run: RunInfo) -> None:
        """Open the run in W&B; an earlier one left open in this process is given up first."""
        self._outputs = run.outputs.absolute()
        self._step = self._known = 0
        self._defined = set()
        (self._outputs / "wandb").mkdir(parents=True, exist_ok=True)
        self._curves = list(read_curves(run.folder)) if run.resumed else []
        with session.environment(keep=self.mode == "online"):
            import wandb

            if wandb.run is not None:
                self.abandon()
            mode = self._reachable_mode()
            try:
                self._run = self._open(run, mode)
            except Exception as error:
                if mode == "online":
                    self._warn_offline(one_line(f"{type(error).__name__}: {error}"))
                # a session whose service has died, or whose login failed, starts nothing any more
                self.abandon()
                self._run = self._open(run, "offline")
            if run.resumed and self._run.resumed:
                self._known = int(self._run.step)
            self._page = None if self._run.offline else self._run.url
            command = shlex.join(sys.argv)  # its secrets are masked within
            self._run.summary.update({"command": command, "eqprop": __version__})

    def log(self, row: Mapping[str, float | int]) -> None:
        """Record ``row`` at its ``step``; rows of the same step are merged."""
        if int(row.get("step", self._step)) < self._known:
            return  # the server has it from before the run was interrupted
        # W&B drops a row whose step goes back: it joins the present step instead
        self._step = max(self._step, int(row.get("step", self._step)))
        for name in [name for name in row if name not in self._defined]:
            media.define_metric(self._run, name)
            self._defined.add(name)
        self._run.log(dict(row), step=self._step)

    def show(self, name: str, item: object, step: int) -> None:
        """Record a chart, a table with pictures or a checkpoint, whatever it is."""
        if step < self._known and not isinstance(item, CheckpointFile):
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
        run, self._run = self._run, None
        if run is None:  # interrupted before it had begun
            return
        # the last row is still pending, and would overwrite the summary when it is committed
        run.log({}, step=self._step, commit=True)
        run.summary.update(dict(summary))
        run.finish(exit_code=_EXIT_CODES[state])

    def abandon(self) -> None:
        """Give W&B's session up, so that neither this process's end nor the next run meets it."""
        self._run = None
        import wandb

        with contextlib.suppress(Exception):
            wandb.teardown(exit_code=1)

    def location(self) -> str | None:
        """The command that shows all runs in the terminal, and the run's page if it has one."""
        if self._outputs is None:
            return None
        folder = self._outputs / "wandb"
        with contextlib.suppress(ValueError):
            folder = folder.relative_to(Path.cwd())
        command = f"wandb leet {shlex.quote(str(folder))}"
        return f"{command}, or {self._page}" if self._page else command

    def _folder(self) -> Path:
        """W&B's folder of this run."""
        return Path(self._run.dir).parent

    def _media(self, name: str, thing: Any, step: int) -> None:
        self._step = max(self._step, step)
        try:
            self._run.log({name: thing}, step=self._step)
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
            resume="allow" if run.resumed and mode == "online" else None,
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
