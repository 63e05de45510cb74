"""The command line: check it, then let Hydra run one job or many. A job is ``main``."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from eqprop.cli.command import prepared
from eqprop.cli.failures import TRACEBACK, before_the_run, describe, reported
from eqprop.config.compose import conf_dir, register_resolvers, validate_composed
from eqprop.config.slug import new_folder
from eqprop.run.errors import UserError
from eqprop.run.files import remove_leftovers, write_atomically
from eqprop.run.folder import RunFolder
from eqprop.run.hardware import calm_idle_threads
from eqprop.run.output import prepare_output
from eqprop.run.redact import redact_all
from eqprop.run.resume import earlier_run
from eqprop.run.signals import listening
from eqprop.run.streams import flush, open_streams
from eqprop.sweep import plugin

log = logging.getLogger(__name__)
register_resolvers()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def main(cfg: DictConfig) -> float:
    """One run: compose, train, record. Returns the objective, the best accuracy."""
    config = validate_composed(cfg)
    path, group = placement(config.paths.outputs)
    with listening() as stop, reported(path):
        earlier = earlier_run(path, config.resume, plain(cfg))
        if earlier is not None and earlier.is_finished(config.trainer.epochs):
            log.info("%s is done already, with an objective of %.4f", path, earlier.objective)
            return earlier.objective
        configuration = partial(save_configuration, cfg)
        with RunFolder.claim(path, resume=earlier is not None, first=configuration) as folder:
            from eqprop.cli import build  # loads torch, which no mistake above should wait for
            from eqprop.cli.console import show_result
            from eqprop.training.profiling import profiling

            training = build.build_training(cfg, config)
            folder.record_environment()  # again: now it can name the GPUs
            run = build.run_info(config, cfg, path, group, earlier)
            trackers = build.build_trackers(config, cfg, training, folder.checkpoints)
            build.attach_keeper(training, config, run, trackers, stop)
            if earlier is not None:
                build.go_on(training, earlier)
            traced = profiling(training, config.trainer.profile, path)
            with build.recording(trackers, run, training), traced, stop.deferred():
                objective = training.fit()
            folder.finish("done", objective=objective)
            show_result(training.summary(), path, trackers)
    return objective


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain, resolved values."""
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def save_configuration(cfg: DictConfig, folder: Path) -> None:
    """Write ``.hydra``: what the run really uses, where Hydra leaves interpolations as they are.

    No secret gets into it, and Hydra itself writes none: ``hydra.output_subdir`` is null.
    """
    contents: dict[str, Any] = {"config.yaml": plain(cfg)}
    if HydraConfig.initialized():
        settings: Any = OmegaConf.to_container(HydraConfig.instance().cfg, enum_to_str=True)
        contents["hydra.yaml"] = settings
        contents["overrides.yaml"] = settings["hydra"]["overrides"]["task"]
    (folder / ".hydra").mkdir(exist_ok=True)
    remove_leftovers(folder / ".hydra")
    for name, content in contents.items():
        # before it is quoted and folded, which would hide a secret
        write_atomically(folder / ".hydra" / name, to_yaml(redact_all(content)).encode())


def to_yaml(content: Any) -> str:
    """Plain values as OmegaConf writes them: it reads more texts as numbers than YAML does."""
    how: dict[str, Any] = {"default_flow_style": False, "sort_keys": False}
    return str(yaml.dump(content, allow_unicode=True, Dumper=get_omega_conf_dumper(), **how))


def placement(outputs: str) -> tuple[Path, str | None]:
    """The folder of this job, and the group that the jobs of its multirun share."""
    if not HydraConfig.initialized():  # called from Python, not from the command line
        return new_folder(outputs), None
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    if settings.mode is not RunMode.MULTIRUN:
        return folder, None
    return folder, "-".join(Path(settings.sweep.dir).parts[-2:])


def run() -> None:
    """The command ``eqprop-train``.

    Exits 0 done, 1 failed, 2 wrong command, 130 or 143 interrupted, 75 to be queued again.
    """
    open_streams()
    calm_idle_threads()
    sys.path.insert(0, os.getcwd())  # an energy of one's own lies beside the command
    if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
        os.environ[TRACEBACK] = "1"
    try:
        prepare_output()
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
        error = before_the_run(error)
        if not hasattr(error, "reported"):
            print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, UserError) else 1)
    finally:
        flush()
