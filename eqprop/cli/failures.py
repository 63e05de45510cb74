"""How a failure reaches the person: one line on standard error and in the run's log."""

from __future__ import annotations

import errno
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from eqprop.cli.command import how_to_go_on
from eqprop.run.errors import TRACEBACK, ConfigError, UserError
from eqprop.run.redact import redact
from eqprop.run.text import one_line

log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def describe(error: BaseException) -> str:
    """One line for any error; one that nobody foresaw says what it is and how to see more."""
    if isinstance(error, UserError):
        return one_line(error, 1000)
    if _is_out_of_memory(error):
        return (
            f"out of memory ({redact(one_line(error, 200))}); lower dataset.batch_size, "
            "trainer.eval_batch_size, model.hidden or dataset.limit"
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" {redact(one_line(error.filename, 300))}" if error.filename else ""
        return (
            f"cannot write{where}: {error.strerror}; free the disk, or set paths.outputs to a "
            "folder that can be written"
        )
    text = redact(one_line(error, 300))
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows the traceback)"


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Log what ends a job in one line, and end a single run with its exit status.

    The jobs of a multirun raise on, so that Hydra knows that they failed.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError):
            with suppress(OSError):
                (folder / "traceback.txt").write_text(redact(traceback.format_exc()))
        log.error(describe(error))
        error.reported = True  # type: ignore[attr-defined]
        if TRACEBACK in os.environ or not _is_single_run():
            raise
        raise SystemExit(error.exit_code if isinstance(error, UserError) else 1) from error
    except KeyboardInterrupt as error:
        log.error("%s; go on with: %s", str(error) or "interrupted", how_to_go_on(folder))
        raise


def before_the_run(error: Exception) -> Exception:
    """The error as a person's own where Hydra could not make or write a run's folder."""
    if not isinstance(error, OSError) or hasattr(error, "reported"):
        return error
    folder = f" {error.filename}" if error.filename else ""
    return ConfigError(
        f"cannot write the run's folder{folder}: {error.strerror or error}; set hydra.run.dir or "
        "paths.outputs to a folder that can be written"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _is_single_run() -> bool:
    return HydraConfig.get().mode is RunMode.RUN
