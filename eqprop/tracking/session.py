"""What W&B is given of this process and its settings: no secret, no prompt, nobody's own files."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from eqprop.environment import git_state
from eqprop.redact import redact

Mode = Literal["offline", "online"]
INIT_TIMEOUT = 30.0  # seconds that an online start may take
FINISH_TIMEOUT = 60.0  # seconds that the end of an online run waits for its upload


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
        x_transaction_log_flush_interval=1,
        disable_code=True,
        disable_git=git is None,
        git_commit=git["commit"] if git else None,
        git_remote_url=git["remote"] if git else None,
    )


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
