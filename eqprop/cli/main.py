"""The command line: check it, then let Hydra run one job or many. A job is ``main``."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.command import before_the_run, describe, prepared, reported
from eqprop.config.compose import drop_left_over_keys
from eqprop.config.folder import conf_dir
from eqprop.config.hydra_internals import to_yaml
from eqprop.config.slug import register_resolvers
from eqprop.config.validation import resolved, validate_composed
from eqprop.run.errors import TRACEBACK
from eqprop.run.files import remove_leftovers, write_atomically
from eqprop.run.folder import RunFolder
from eqprop.run.hardware import calm_idle_threads
from eqprop.run.home import prepare_home
from eqprop.run.process import alone, look_here_last, put_back
from eqprop.run.resume import earlier_run
from eqprop.run.signals import listening
from eqprop.run.streams import prepare_streams
from eqprop.sweep import plugin

log = logging.getLogger(__name__)
register_resolvers()
PATIENCE = 1.5  # seconds of silence


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def main(cfg: DictConfig) -> float:
    """One run: compose, train, record. Returns the objective, the best accuracy."""
    own = HydraConfig.get()
    for line in drop_left_over_keys(cfg, own.overrides.task, own.runtime):
        log.info(line)
    config = validate_composed(cfg)
    path, group = folder_and_group()
    with listening() as stop, reported(path):
        earlier = earlier_run(path, config.resume, resolved(cfg))
        if earlier is not None and earlier.is_finished(config.trainer.epochs):
            log.info("%s is done already, with an objective of %.4f", path, earlier.objective)
            return earlier.objective
        configuration = partial(save_configuration, cfg)
        with ExitStack() as life:
            with stop.deferred():  # until there is somebody to record the end
                claimed = RunFolder.claim(path, resume=earlier is not None, first=configuration)
                folder = life.enter_context(claimed)
            stop.raise_if_requested()
            log.info("run        %s", path)
            from eqprop.cli import (  # loads torch, which --help needs not wait for
                beginning,
                build,
                start,
            )
            from eqprop.cli.console import show_result

            session = build.build_session(cfg, config)
            folder.record_gpus()
            source = beginning.initial_weights(config, earlier)
            chosen = start.chosen(config, session, beginning.origin(source, earlier))
            save_configuration(cfg, path, chosen)
            run = build.run_info(cfg, path, group, earlier, chosen)
            trackers = build.build_trackers(config, cfg, session)
            training = build.build_training(config, session, trackers, run, stop)
            beginning.begin(session, source, earlier)
            for line in start.lines(config, session):
                log.info("%s", line)
            with build.recording(trackers, run, session), stop.deferred():
                objective = training.fit()
            results = session.results()
            folder.finish("done", reason=session.stopped, objective=objective, results=results)
            show_result(session.summary(), path, trackers, session.objective_name)
    return objective


def save_configuration(cfg: DictConfig, folder: Path, chosen: dict[str, Any] | None = None) -> None:
    """Write ``.hydra``: what the run really uses; Hydra itself writes none.

    ``chosen`` is what ``auto`` chose: it stands beside the configuration, and decides nothing.
    """
    settings: Any = OmegaConf.to_container(HydraConfig.instance().cfg, enum_to_str=True)
    overrides = settings["hydra"]["overrides"]["task"]
    config = resolved(cfg) | ({} if chosen is None else {"chosen": chosen})
    contents = {"config": config, "hydra": settings, "overrides": overrides}
    (folder / ".hydra").mkdir(exist_ok=True)
    remove_leftovers(folder / ".hydra")
    for name, content in contents.items():
        write_atomically(folder / ".hydra" / f"{name}.yaml", to_yaml(content).encode())


def folder_and_group() -> tuple[Path, str | None]:
    """The folder of this job, and the group that the jobs of its multirun share."""
    settings = HydraConfig.get()
    is_job = settings.mode is RunMode.MULTIRUN
    group = "-".join(Path(settings.sweep.dir).parts[-2:]) if is_job else None
    return Path(settings.runtime.output_dir), group


@contextmanager
def told_if_slow(argv: Sequence[str]) -> Iterator[None]:
    """Within it a person who waits at a terminal for a run learns what takes so long."""
    flags = [word for word in argv if word.startswith("-") and not word.startswith("--config")]
    if set(flags) - {"-m", "--multirun"} or not sys.stdout.isatty():
        yield
        return
    line = "loading torch and checking the configuration …"
    timer = threading.Timer(PATIENCE, lambda: print(line, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def run() -> None:
    """Exit 0 done, 1 failed, 2 wrong command, 128 + a signal's number, 75 to be queued again."""
    with put_back():
        prepare_streams()
        try:
            with alone():
                _run()
        except KeyboardInterrupt as stop:
            sys.exit(getattr(stop, "exit_code", 130))
        except Exception as error:
            if TRACEBACK in os.environ:
                raise
            if not hasattr(error, "reported"):
                error = before_the_run(error)
                print(f"error: {describe(error)}", file=sys.stderr)
            sys.exit(getattr(error, "exit_code", 1))


def _run() -> None:
    calm_idle_threads()
    prepare_home()
    look_here_last()
    if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
        os.environ[TRACEBACK] = "1"
    with told_if_slow(sys.argv[1:]):
        sys.argv[1:] = prepared(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors arrive here and become one line
    plugin.register()
    plugin.Sweeper.exit_code = 0
    main()
    sys.exit(plugin.Sweeper.exit_code)  # of the sweep, if it was one
