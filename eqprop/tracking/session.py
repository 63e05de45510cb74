"""What W&B is given of this process and its settings: no secret, no prompt, nobody's own files."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from eqprop.run.environment import git_state
from eqprop.run.redact import redact

Mode = Literal["offline", "online"]
INIT_TIMEOUT = 30.0  # seconds that an online start may take
FINISH_TIMEOUT = 60.0  # seconds that the end of an online run waits for its upload
GRACE = 5.0  # seconds more for W&B to notice by itself that this time is over


def settings(wandb: Any, mode: Mode) -> Any:
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
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=1,
        disable_code=True,
        disable_git=git is None,
        git_commit=git["commit"] if git else None,
        git_remote_url=git["remote"] if git else None,
    )


def stop_asking(run: Any) -> None:
    """Let an online run log tables and checkpoints without a word with the server in between.

    W&B would check the login before the first one, and before each that its name is not taken by
    another type of artifact: training waits for that, and with a server that has gone, for minutes.
    """
    run._public_api()  # checks the login now, and is kept
    run._assert_can_log_artifact = lambda artifact: None


def stop_watching(run: Any) -> None:
    """End the thread that asks the service how its network is: it would die of its end, loudly."""
    checker = getattr(run, "_run_status_checker", None)
    if checker is not None:
        checker.stop()


def within(seconds: float, call: Callable[[], object]) -> None:
    """Do ``call``, but wait no longer than that for it; time that the process is stopped is free.

    Raises:
        TimeoutError: if it has not returned by then; it goes on in a thread of its own.
    """
    raised: list[BaseException] = []

    def keeping() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=keeping, daemon=True)
    thread.start()
    for _ in range(round(seconds)):
        thread.join(1.0)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]


def end_service() -> None:
    """Kill W&B's service process, which may wait for a server for hours; its files are written."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("wandb-core"):
                child.kill()


def has_login(found: Any) -> bool:
    """Whether W&B's settings, the environment or the netrc file hold a login."""
    from wandb.sdk.lib import wbauth

    if os.environ.get("WANDB_API_KEY") or found.api_key or found.identity_token_file:
        return True
    return wbauth.read_netrc_auth(host=str(found.base_url)) is not None


def identifier(text: str) -> str:
    """``text`` with what W&B or a file name cannot hold replaced, at most 128 characters."""
    return re.sub(r"[^\w.+=,-]+", "-", text, flags=re.ASCII).strip("-.")[:128] or "run"


@contextlib.contextmanager
def environment(*, keep: bool) -> Iterator[None]:
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


@contextlib.contextmanager
def data_folder(folder: Path) -> Iterator[None]:
    """W&B keeps in ``folder``, not in the user's home, what is to be uploaded later."""
    saved = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if saved is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = saved
