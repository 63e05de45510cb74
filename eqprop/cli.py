"""The command line: check it, then let Hydra run one job or many. A job is ``main``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eqprop.compose import check, conf_dir, register_resolvers, validate_composed
from eqprop.errors import UserError
from eqprop.failures import TRACEBACK, before_the_run, describe, reported
from eqprop.files import write_atomically
from eqprop.output import prepare_output
from eqprop.record import RunFolder
from eqprop.slug import new_folder

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def main(cfg: DictConfig) -> float:
    """One run: compose, train, record. Returns the objective, the best accuracy."""
    config = validate_composed(cfg)
    path, group = placement(config.paths.outputs)
    with reported(path), RunFolder.claim(path) as folder:
        save_resolved(cfg, path)
        from eqprop import assembly  # loads torch, which no mistake above should have to wait for
        from eqprop.console import show_result

        training = assembly.build_training(cfg, config)
        folder.record_environment()  # again: now it can name the GPUs
        trackers = assembly.build_trackers(config, cfg, training)
        run = assembly.run_info(config, cfg, path, group)
        with assembly.recording(trackers, run, training):
            objective = training.fit()
        folder.finish("done", objective=objective)
        show_result(training.summary(), path, trackers)
    return objective


def save_resolved(cfg: DictConfig, folder: Path) -> None:
    """Write what the run really uses where Hydra has left its interpolations as they are."""
    part = HydraConfig.get().output_subdir if HydraConfig.initialized() else ".hydra"
    if part is not None:
        (folder / part).mkdir(exist_ok=True)
        text = OmegaConf.to_yaml(cfg, resolve=True)
        write_atomically(folder / part / "config.yaml", text.encode())


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
    """The command ``eqprop-train``: exits 0 done, 1 failed, 2 wrong command, 130 interrupted."""
    sys.path.insert(0, os.getcwd())  # an energy of one's own lies beside the command
    if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
        os.environ[TRACEBACK] = "1"
    try:
        prepare_output()
        check(sys.argv[1:])
        os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors arrive here and become one line
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if TRACEBACK in os.environ:
            raise
        error = before_the_run(error)
        if not hasattr(error, "reported"):
            print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, UserError) else 1)
