"""Runs in Weights & Biases, by default offline: no account, prompt or network.

The only module that knows W&B; the package is imported when a run starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from eqprop.environment import git_state
from eqprop.files import one_line
from eqprop.redact import redact
from eqprop.tracking.base import RunInfo, State, Tracker
from eqprop.tracking.connection import why_offline

log = logging.getLogger(__name__)

Mode = Literal["offline", "online"]
INIT_TIMEOUT = 30.0  # seconds that an online start may take
FINISH_TIMEOUT = 60.0  # seconds that the end of an online run waits for its upload
_EXIT_CODES: dict[State, int] = {"done": 0, "failed": 1, "interrupted": 130}


class WandbTracker(Tracker):
    """Records a run in ``<outputs>/wandb/`` under its readable id.

    ``mode``: ``offline``, or ``online``, which becomes offline with one warning where there is no
    login or no answer from the server.
    """

    def __init__(self, mode: Mode = "offline") -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"mode is offline or online, not {mode!r}")
        self.mode: Mode = mode
        self._run: Any = None
        self._page: str | None = None
        self._outputs: Path | None = None
        self._step = 0
        self._known = 0

    def start(self, run: RunInfo) -> None:
        """Open the run in W&B; an earlier one left open in this process is given up first."""
        self._outputs = run.outputs.absolute()
        self._step = self._known = 0
        (self._outputs / "wandb").mkdir(parents=True, exist_ok=True)
        with _environment(keep=self.mode == "online"):
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

    def log(self, row: Mapping[str, float | int]) -> None:
        """Record ``row`` at its ``step``; rows of the same step are merged."""
        if int(row.get("step", self._step)) < self._known:
            return  # the server has it from before the run was interrupted
        # W&B drops a row whose step goes back: it joins the present step instead
        self._step = max(self._step, int(row.get("step", self._step)))
        self._run.log(dict(row), step=self._step)

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Write the summary and close the run as finished or failed."""
        run, self._run = self._run, None
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

    def _reachable_mode(self) -> Mode:
        if self.mode == "offline":
            return "offline"
        import wandb

        quiet = wandb.Settings(silent=True)
        session = wandb.setup(quiet)
        if session.did_environment_change():  # an offline run has opened it without the variables
            self.abandon()
            session = wandb.setup(quiet)
        base_url = str(session.settings.base_url)
        reason = why_offline(base_url, has_login=_has_login(session.settings))
        if reason is None:
            return "online"
        self._warn_offline(reason)
        return "offline"

    def _warn_offline(self, reason: str) -> None:
        log.warning("W&B: this run is recorded offline (%s)", redact(reason))

    def _open(self, run: RunInfo, mode: Mode) -> Any:
        import wandb

        return wandb.init(
            id=_identifier(run.id),
            resume="allow" if run.resumed and mode == "online" else None,
            name=run.name[:128],
            project=run.project,
            entity=run.entity,
            group=run.group[:128] if run.group else None,
            tags=[tag[:64] for tag in run.tags if tag],
            notes=run.notes,
            config=dict(run.config),
            dir=str(self._outputs),
            settings=_settings(wandb, mode),
        )


def _settings(wandb: Any, mode: Mode) -> Any:
    """Settings of a run that keeps quiet, writes every row at once and no file of the user's.

    W&B would copy the uncommitted changes and the remote's address as they are, so the commit and
    the cleaned address are handed over instead.
    """
    git = git_state(diff=False)
    return wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        x_transaction_log_flush_interval=1,
        disable_code=True,
        disable_git=git is None,
        git_commit=git["commit"] if git else None,
        git_remote_url=git["remote"] if git else None,
    )


def _has_login(settings: Any) -> bool:
    from wandb.sdk.lib import wbauth

    if os.environ.get("WANDB_API_KEY") or settings.api_key or settings.identity_token_file:
        return True
    return wbauth.read_netrc_auth(host=str(settings.base_url)) is not None


def _identifier(text: str) -> str:
    """``text`` with what W&B or a file name cannot hold replaced, at most 128 characters."""
    return re.sub(r"[^\w.+=,-]+", "-", text, flags=re.ASCII).strip("-.")[:128] or "run"


@contextlib.contextmanager
def _environment(*, keep: bool) -> Iterator[None]:
    """The process as W&B shall see it while a run starts.

    ``WANDB_*`` variables could disable an offline run, rename it or ask for a login: they are left
    out unless ``keep``; another process's service always is. W&B records ``sys.argv``: its secrets
    are masked. Without a home its service litters the working directory and the terminal, and its
    reports of its own errors would end in this run's log.
    """
    saved, argv = dict(os.environ), sys.argv
    masked = [redact(word) for word in argv]  # while the variables are still there to mask by
    for name in [name for name in saved if name.startswith("WANDB_")]:
        if not keep or name == "WANDB_SERVICE":
            del os.environ[name]
    os.environ.setdefault("HOME", tempfile.gettempdir())
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    sys.argv = masked
    try:
        yield
    finally:
        sys.argv = argv
        for name in set(os.environ) - set(saved):
            del os.environ[name]
        os.environ.update(saved)
