"""What W&B is given of this process, and how long it is waited for.

It gets no secret, prompts for nothing and writes no files of the user's own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from eqprop.run.environment import git_state
from eqprop.run.redact import redact

Mode = Literal["offline", "online"]
INIT_TIMEOUT = 30.0  # seconds that an online start may take
FINISH_TIMEOUT = 60.0  # seconds that the end of an online run waits for its upload
GRACE = 5.0  # seconds more, in which W&B itself notices that this time is over


def settings(mode: Mode) -> Any:
    """Settings of a run that keeps quiet and writes every row at once.

    W&B would record uncommitted changes and the remote's address as they are, so it gets the commit
    and the redacted address instead.
    """
    import wandb

    git = git_state(diff=False)
    return wandb.Settings(
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


def why_offline() -> str | None:
    """Why a run cannot be online, as far as is known without asking the server."""
    import wandb

    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "dryrun", "disabled"):
        return f"WANDB_MODE is {mode}"
    wandb.setup(wandb.Settings(silent=True))
    if wandb.login(prompt=False, verify=False):
        return None
    return "no W&B login; run `wandb login` or set WANDB_API_KEY"


def stop_asking(run: Any) -> None:
    """Let an online run log tables and checkpoints without waiting for the server.

    W&B would check the login before the first one, and before each that its name is not taken by
    another type of artifact: for minutes, if the server has gone.
    """
    run._public_api()  # checks the login now, and is cached
    run._assert_can_log_artifact = lambda artifact: None


def end_session() -> None:
    """End W&B's session, so that neither this process's end nor the next run waits for it."""
    import wandb

    with contextlib.suppress(Exception, SystemExit):  # W&B exits where its service has died
        try:
            within(FINISH_TIMEOUT, lambda: wandb.teardown(exit_code=1))
        except TimeoutError:
            kill_service()


def kill_service() -> None:
    """Kill W&B's service process, which may wait for a server for hours; its files are written."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("wandb-core"):
                child.kill()


def within(seconds: float, call: Callable[[], object]) -> None:
    """Do ``call`` in a thread, and wait for it no longer than that.

    Raises:
        TimeoutError: if it has not returned by then; it goes on in its thread.
    """
    outcome: concurrent.futures.Future[object] = concurrent.futures.Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    done, _ = concurrent.futures.wait([outcome], seconds)
    if not done:
        raise TimeoutError
    outcome.result()


def identifier(text: str) -> str:
    """``text`` with what W&B or a file name cannot hold replaced, at most 128 characters."""
    return re.sub(r"[^\w.+=,-]+", "-", text, flags=re.ASCII).strip("-.")[:128] or "run"


@contextlib.contextmanager
def environment(*, keep: bool) -> Iterator[None]:
    """The process as W&B sees it while a run starts.

    ``WANDB_*`` variables could disable an offline run, rename it or ask for a login: they are left
    out unless ``keep``; another process's service always is. W&B records ``sys.argv``: its secrets
    are masked. Without a home its service litters the working directory and the terminal, and its
    reports of its own errors would end up in this run's log.
    """
    saved, argv = dict(os.environ), sys.argv
    sys.argv = [redact(word) for word in argv]
    for name in saved:
        if name.startswith("WANDB_") and (not keep or name == "WANDB_SERVICE"):
            del os.environ[name]
    os.environ.setdefault("HOME", tempfile.gettempdir())
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        yield
    finally:
        sys.argv = argv
        for name in set(os.environ) - set(saved):
            del os.environ[name]
        os.environ.update(saved)
