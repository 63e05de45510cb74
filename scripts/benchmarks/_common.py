"""What the benchmarks share: arguments, configurations, tables, and reports as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eqprop.config.compose import compose
from eqprop.config.schema import Config
from eqprop.config.validation import validate_composed
from eqprop.run import environment
from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically

if TYPE_CHECKING:
    from eqprop.training.session import Session

Row = dict[str, Any]


def parser_for(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def natural(text: str) -> int:
    """A whole number >= 1, for argparse."""
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")


def positive(text: str) -> float:
    """A finite number > 0, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a finite number > 0")


def composed(overrides: Sequence[str]) -> tuple[DictConfig, Config]:
    """The configuration of a command line, and its validated form."""
    cfg = compose(overrides)
    return cfg, validate_composed(cfg)


def session_of(overrides: Sequence[str]) -> Session:
    """What the command with these overrides would train."""
    cfg, config = composed(overrides)
    from eqprop.cli.build import build_session  # loads torch: no mistake above waits for it

    return build_session(cfg, config)


def console() -> Console:
    """The terminal, or a width that the tables fit into."""
    found = Console(markup=False, highlight=False)
    if not found.is_terminal:
        found.width = 110
    return found


def show(title: str, rows: Sequence[Row], columns: dict[str, Callable[[Row], str]]) -> None:
    """Print a table; ``columns``: heading → what makes its cell of a row."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for i, heading in enumerate(columns):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    screen, name = console(), next(iter(columns.values()))
    failed = [row for row in rows if "error" in row]
    for row in rows:
        if row not in failed:
            table.add_row(*(cell(row) for cell in columns.values()))
    screen.print(table)
    for row in failed:
        screen.print(f"{name(row)}: {row['error']}")


def machine() -> Row:
    """The hardware, versions and commit that numbers belong to."""
    state: Row = {
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "git": environment.git_state(Path(__file__).resolve().parents[2], diff=False),
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state["threads"] = torch.get_num_threads()
        state["cuda"] = torch.version.cuda
    return state


def write_json(path: str | None, report: Any) -> None:
    """Write the report if a path was given; a folder that is not there is made.

    Raises:
        UserError: if it cannot be written.
    """
    if path is None:
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
