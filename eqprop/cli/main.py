"""The command line: check it, then let Hydra run one job or many. A job is ``main``."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.command import before_the_run, describe, prepared, reported
from eqprop.config.compose import conf_dir, drop_left_over_keys
from eqprop.config.hydra_internals import to_yaml
from eqprop.config.slug import register_resolvers
from eqprop.config.validation import resolved, validate_composed
from eqprop.run.errors import TRACEBACK
from eqprop.run.files import remove_leftovers, write_atomically
from eqprop.run.folder import RunFolder
from eqprop.run.hardware import calm_idle_threads
from eqprop.run.redact import redact_all
from eqprop.run.resume import earlier_run
from eqprop.run.signals import listening
from eqprop.run.streams import prepare_streams
from eqprop.sweep import plugin

log = logging.getLogger(__name__)
register_resolvers()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def main(cfg: DictConfig) -> float:
    """One run: compose, train, record. Returns the objective, the best accuracy."""
    for line in drop_left_over_keys(cfg, HydraConfig.get().overrides.task):
        log.info(line)
    config = validate_composed(cfg)
    path, group = folder_and_group()
    with listening() as stop, reported(path):
        earlier = earlier_run(path, config.resume, resolved(cfg))
        if earlier is not None and earlier.is_finished(config.trainer.epochs):
            log.info("%s is done already, with an objective of %.4f", path, earlier.objective)
            return earlier.objective
        configuration = partial(save_configuration, cfg)
        with RunFolder.claim(path, resume=earlier is not None, first=configuration) as folder:
            from eqprop.cli import build  # loads torch, which --help needs not wait for
            from eqprop.cli.console import show_result

            session = build.build_session(cfg, config)
            folder.record_gpus()
            run = build.run_info(cfg, path, group, earlier)
            trackers = build.build_trackers(config, cfg, session)
            training = build.build_training(config, session, trackers, run, stop)
            if earlier is not None:
                build.go_on(session, earlier)
            with build.recording(trackers, run, session), stop.deferred():
                objective = training.fit()
            folder.finish("done", objective=objective)
            show_result(session.summary(), path, trackers)
    return objective


def save_configuration(cfg: DictConfig, folder: Path) -> None:
    """Write ``.hydra`` without secrets: what the run really uses; Hydra itself writes none."""
    settings: Any = OmegaConf.to_container(HydraConfig.instance().cfg, enum_to_str=True)
    overrides = settings["hydra"]["overrides"]["task"]
    contents = {"config": resolved(cfg), "hydra": settings, "overrides": overrides}
    (folder / ".hydra").mkdir(exist_ok=True)
    remove_leftovers(folder / ".hydra")
    for name, content in contents.items():
        # before it is quoted and folded, which would hide a secret
        text = to_yaml(redact_all(content))
        write_atomically(folder / ".hydra" / f"{name}.yaml", text.encode())


def folder_and_group() -> tuple[Path, str | None]:
    """The folder of this job, and the group that the jobs of its multirun share."""
    settings = HydraConfig.get()
    is_job = settings.mode is RunMode.MULTIRUN
    group = "-".join(Path(settings.sweep.dir).parts[-2:]) if is_job else None
    return Path(settings.runtime.output_dir), group


def run() -> None:
    """Exit 0 done, 1 failed, 2 wrong command, 130 or 143 interrupted, 75 to be queued again."""
    prepare_streams()
    calm_idle_threads()
    sys.path.insert(0, os.getcwd())  # an energy of one's own lies beside the command
    if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
        os.environ[TRACEBACK] = "1"
    try:
        sys.argv[1:] = prepared(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors arrive here and become one line
        plugin.register()
        main()
        sys.exit(plugin.Sweeper.exit_code)  # of the sweep, if it was one
    except KeyboardInterrupt as stop:
        sys.exit(getattr(stop, "exit_code", 130))
    except Exception as error:
        if TRACEBACK in os.environ:
            raise
        if not hasattr(error, "reported"):
            error = before_the_run(error)
            print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
