"""What W&B is given of this process, and how long it is waited for.

It gets no secret, prompts for nothing and writes no files of the user's own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from eqprop.run.environment import git_state
from eqprop.run.home import prepare_home
from eqprop.run.redact import redact
from eqprop.tracking.base import RunInfo

Mode = Literal["offline", "online", "disabled"]
_MODES: dict[str, Mode] = {
    **{"offline": "offline", "dryrun": "offline", "online": "online", "run": "online"},
    "disabled": "disabled",
}
_KEPT = (
    *("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR", "WANDB_DIR"),
    *("WANDB_NAME", "WANDB_JOB_TYPE"),
)
log = logging.getLogger(__name__)

INIT_TIMEOUT = 30.0  # seconds that an online start may take
ANSWER_TIMEOUT = 15.0  # seconds that the server has to take charts and files
FINISH_TIMEOUT = 60.0  # seconds that the end of an online run waits for its upload
GRACE = 5.0  # seconds more, in which W&B itself notices that this time is over


def init(run: RunInfo, mode: Mode) -> Any:
    """W&B's run, which keeps quiet and writes every row at once.

    W&B would record uncommitted changes and the remote's address as they are, so it gets the commit
    and the redacted address instead.
    """
    import wandb

    # the agent of a W&B sweep has decided what the run is called and where it goes
    in_sweep = mode == "online" and "WANDB_SWEEP_ID" in os.environ
    git = git_state(diff=False)
    settings = wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=1,
        disable_code=True,
        disable_git=git is None,
        git_commit=git["commit"] if git else None,
        git_remote_url=git["remote"] if git else None,
    )
    return wandb.init(
        id=None if in_sweep else run.id,
        resume=None if in_sweep or mode == "offline" else "allow" if run.resumed else "never",
        # typed or configured, else as W&B's users expect, else the folder's
        name=run.name if run.config.get("name") else os.environ.get("WANDB_NAME", run.name),
        project=None if in_sweep else run.project,
        entity=None if in_sweep else run.entity,
        group=run.group,
        tags=run.tags,
        notes=run.notes,
        config=dict(run.config),
        dir=os.environ.get("WANDB_DIR") or str(run.outputs.absolute()),
        settings=settings,
    )


def chosen_mode(configured: Mode | None) -> Mode:
    """The mode that is configured, else that of W&B's variables; logs which of them have no say."""
    variables = os.environ
    off = variables.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "t", "y")
    told = "disabled" if off else variables.get("WANDB_MODE", "offline").lower()
    mode = configured or _MODES.get(told, "offline")
    if mode == "disabled":
        log.info("W&B: disabled, nothing is recorded there")
        return mode
    ignored = [] if "WANDB_SWEEP_ID" in variables else ["WANDB_RUN_ID", "WANDB_RESUME"]
    if mode == "offline" and _MODES.get(told) != mode:
        ignored += ["WANDB_MODE", "WANDB_DISABLED"]
    if found := [f"{name}={variables[name]}" for name in ignored if variables.get(name)]:
        log.info("W&B: ignored: %s; this run is recorded %s", ", ".join(found), mode)
    return mode


def check_login() -> None:
    """Raise ConnectionError if a run cannot be online, without asking the server."""
    import wandb

    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        raise ConnectionError(f"WANDB_MODE is {mode}")
    wandb.setup(wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        raise ConnectionError("no W&B login; run `wandb login` or set WANDB_API_KEY")


def end_session() -> None:
    """End W&B's session, so that neither this process's end nor the next run waits for it."""
    import wandb

    with contextlib.suppress(Exception, SystemExit):  # W&B exits where its service has died
        if not within(FINISH_TIMEOUT, lambda: wandb.teardown(exit_code=1)):
            kill_service()


def kill_service() -> None:
    """Kill W&B's service process, which may wait for a server for hours; its files are written."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("wandb-core"):
                child.kill()


def within(seconds: float, call: Callable[[], object]) -> bool:
    """Do ``call`` in a thread, and wait for it no longer than that; whether it was done in time."""
    outcome: concurrent.futures.Future[object] = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() or isinstance(outcome.exception(), TimeoutError):
        return False
    outcome.result()
    return True


@contextlib.contextmanager
def environment(*, keep: bool) -> Iterator[None]:
    """The process as W&B, which records ``sys.argv``, sees it while a run starts: without secrets.

    ``WANDB_*`` variables could disable an offline run, or ask for a login: but for folders they are
    left out unless ``keep``; another process's service always is. W&B's reports of its own errors
    would end up in this run's log.
    """
    prepare_home()  # without a home W&B litters the working directory
    saved, argv = dict(os.environ), sys.argv
    sys.argv = [redact(word) for word in argv]
    for name in saved:
        kept = keep and name != "WANDB_SERVICE"
        if name.startswith("WANDB_") and name not in _KEPT and not kept:
            del os.environ[name]
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        yield
    finally:
        sys.argv = argv
        for name in set(os.environ) - set(saved):
            del os.environ[name]
        os.environ.update(saved)
