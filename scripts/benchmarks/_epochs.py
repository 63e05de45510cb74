"""What the benchmarks of whole epochs share: their arguments, and trainings as the command has."""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _common import composed, natural

from eqprop.config.schema import Config

if TYPE_CHECKING:
    from eqprop.training.loop import Training


def add_arguments(
    parser: argparse.ArgumentParser, experiments: Sequence[str], epochs: int = 5
) -> None:
    """The arguments; ``epochs`` is the default of its own."""
    add, default = parser.add_argument, " ".join(experiments)
    add("experiments", nargs="*", default=list(experiments), help=f"default: {default}")
    add("--data", default="data", help="folder of the data files (default: data)")
    told = f"timed epochs of each (default: {epochs})"
    add("--epochs", type=natural, default=epochs, help=told)
    add("--limit", type=natural, help="use fewer training samples")
    add("--override", nargs="+", default=[], metavar="KEY=VALUE", help="more for the configuration")
    add("--json", metavar="PATH", help="write every number there")


def overrides_of(name: str, args: argparse.Namespace, *more: str) -> list[str]:
    """The command line of an experiment."""
    return [
        *(f"experiment={name}", "tracking=none", "trainer.progress=false"),
        *(f"paths.data={args.data}", f"dataset.limit={args.limit or 'null'}"),
        *(*more, *args.override),
    ]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the files of runs, with a log file there as Hydra would have it."""
    with tempfile.TemporaryDirectory() as temporary:
        root, log = logging.getLogger(), logging.FileHandler(Path(temporary) / "run.log")
        level = root.level
        root.setLevel(logging.INFO)
        root.addHandler(log)
        try:
            yield Path(temporary)
        finally:
            root.removeHandler(log)
            root.setLevel(level)
            log.close()


@contextlib.contextmanager
def recorded(overrides: list[str], folder: Path) -> Iterator[tuple[Training, Config]]:
    """A training whose record and checkpoints lie in ``folder``, as the command makes it."""
    cfg, config = composed(overrides)
    from eqprop.cli import build  # loads torch: no mistake above waits for it
    from eqprop.run.signals import Stop

    (folder / "checkpoints").mkdir(parents=True)
    session = build.build_session(cfg, config)
    trackers = build.build_trackers(config, cfg, session)
    run = build.run_info(cfg, folder)
    training = build.build_training(config, session, trackers, run, Stop())
    with build.recording(trackers, run, session):
        for callback in training.callbacks:
            callback.on_start(session)
        yield training, config
