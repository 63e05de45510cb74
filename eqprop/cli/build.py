"""Makes the objects of a run from its validated configuration."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.console import ConsoleTracker
from eqprop.config.schema import Config
from eqprop.data import Data
from eqprop.energy import EnergyBasedModel, LayeredEnergy
from eqprop.relaxation import Solver, fused
from eqprop.run import environment
from eqprop.run.errors import ConfigError, UserError
from eqprop.run.hardware import processors
from eqprop.run.redact import redact, redact_all
from eqprop.run.resume import Earlier, cut_metrics, take, warn_of_differences
from eqprop.run.signals import Stop
from eqprop.tracking import JsonlTracker, LocalFiles, RunInfo, Trackers
from eqprop.training.graphs import build_step, captures
from eqprop.training.inspection import Inspection
from eqprop.training.keeper import Checkpoints
from eqprop.training.loop import Training
from eqprop.training.optimizer import build_optimizer
from eqprop.training.snapshot import restore

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def build_training(cfg: DictConfig, config: Config) -> Training:
    """The data, model, solver, estimator and optimizer, on the device, from one seed."""
    device = prepare_device(config)
    seed_everything(config.seed)
    dtype = DTYPES[config.device.dtype]
    data: Data = made(cfg.dataset, root=config.paths.data).load(device, dtype)
    model = build_model(cfg, config, data).to(device=device, dtype=dtype)
    if config.device.compile is True and not isinstance(model, LayeredEnergy):
        model.energy = torch.compile(model.energy)  # type: ignore[method-assign]
    model.generator = torch.Generator(device).manual_seed(config.seed)
    solver: Solver = made(cfg.dynamics).for_model(model)
    fused.prepare(solver, model, config.device.compile, len(data.train))
    trainer, captured = config.trainer, captures(config, device)
    if trainer.limit_batches is not None:
        data = data.first(trainer.limit_batches, trainer.eval_batch_size)
    return Training(
        model=model,
        solver=solver,
        estimator=made(cfg.estimator),
        optimizer=build_optimizer(cfg.optimizer, model, captured),
        data=data,
        seed=config.seed,
        epochs=trainer.epochs,
        log_every=trainer.log_every,
        eval_every=trainer.eval_every,
        eval_batch_size=trainer.eval_batch_size,
        take_step=build_step(config, device),
    )


def made(node: DictConfig, **more: Any) -> Any:
    """The object of a part; a mistake that its class finds in the keys is told in its own words."""
    try:
        return instantiate(node, **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise


def prepare_device(config: Config) -> torch.device:
    """The device asked for, with its threads and determinism set.

    Raises:
        ConfigError: if CUDA was asked for and torch cannot use it.
    """
    wanted = config.device
    usable = torch.cuda.is_available() if wanted.type != "cpu" else False
    if wanted.type == "cuda" and not usable:
        raise ConfigError("device.type='cuda': torch finds no usable GPU; choose device=cpu")
    torch.set_num_threads(wanted.threads or default_threads())
    torch.set_float32_matmul_precision(wanted.matmul)
    if wanted.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted.deterministic)  # loads the compiler: seconds
    return torch.device("cuda", wanted.index) if usable else torch.device("cpu")


def default_threads() -> int:
    """As many as this process may use processors, or as OpenMP is told."""
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"]) or 1
    return processors()


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and Python: an energy of somebody else's may use any of them."""
    torch.manual_seed(seed)
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))
    random.seed(seed)


def build_model(cfg: DictConfig, config: Config, data: Data) -> EnergyBasedModel:
    """The energy of ``cfg.model`` between the data's input and its classes."""
    hidden, activation = list(config.model.hidden), config.model.activation
    given: Any = OmegaConf.to_container(cfg.model, resolve=True)
    del given["hidden"], given["activation"]
    model: EnergyBasedModel = instantiate(given, _partial_=True)(
        dimensions=[data.input_size, *hidden, data.n_classes],
        c_energy=made(cfg.cost, beta=cfg.estimator.get("beta", 1.0)),
        batch_size=data.batch_size,
        phi=["identity", *[activation] * (len(hidden) + 1)],
    )
    return model


def build_trackers(
    config: Config, cfg: DictConfig, training: Training, checkpoints: Path | None = None
) -> Trackers:
    """The run's own files, which are the truth, then the console, then the configured trackers.

    ``checkpoints`` is where those lie that the trackers shall have at the end.
    """
    trainer = config.trainer
    console = ConsoleTracker(trainer.epochs, len(training.data.train), trainer.progress)
    configured = [made(node) for node in cfg.tracking.trackers.values()]
    trackers = Trackers([JsonlTracker(), LocalFiles(), console, *configured])
    training.record, training.advance = trackers.log, console.advance
    training.inspection = Inspection(trackers.show, trainer.curves_every, checkpoints)
    return trackers


@contextmanager
def recording(trackers: Trackers, run: RunInfo, training: Training) -> Iterator[None]:
    """Open the trackers for a run, and close them with its summary and how it ended."""
    try:
        trackers.start(run)
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        trackers.finish(training.summary(), "interrupted" if stopped else "failed")
        raise
    trackers.finish(training.summary(), "done")


def attach_keeper(
    training: Training, config: Config, run: RunInfo, trackers: Trackers, stop: Stop
) -> None:
    """Let the training save into its folder, and stop there when a signal has come."""
    rows = next(tracker for tracker in trackers.active if isinstance(tracker, JsonlTracker))
    meta = {
        "run_id": run.id,
        "config": run.config,
        "versions": environment.versions(),
        **rounding(training),
    }
    how = config.checkpoint
    training.keeper = Checkpoints(
        *(run.folder / "checkpoints", meta, stop, rows.sync),
        *(how.every, how.every_steps, how.keep, how.share),
    )


def rounding(training: Training) -> dict[str, Any]:
    """What decides a run's last digits and may be other when it is resumed."""
    device = training.data.train.x.device
    on_gpu = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else environment.hardware()["cpu"],
        "matmul": torch.get_float32_matmul_precision(),
        "compiled": training.solver.compiled or "energy" in vars(training.model),
    }


def go_on(training: Training, earlier: Earlier) -> None:
    """Put the training where its newest checkpoint was written, and the metrics with it."""
    start = take(earlier)
    if start is not None:
        restore(training, start)
        warn_of_differences(start.meta, rounding(training))
    size = 0 if start is None else int(start.meta["metrics_bytes"])
    cut_metrics(earlier.folder / "metrics.jsonl", size)


def run_info(
    config: Config,
    cfg: DictConfig,
    folder: Path,
    group: str | None,
    earlier: Earlier | None = None,
) -> RunInfo:
    """What trackers may show of the run in ``folder``, under its earlier id if it had one."""
    plain: Any = redact_all(OmegaConf.to_container(cfg, resolve=True))
    known = earlier.meta if earlier is not None and earlier.meta is not None else {}
    shared = config.tracking
    name = re.sub(r"^\d\d-\d\d-\d\d-", "", folder.name)  # W&B puts the time before it
    return RunInfo(
        id=str(known.get("run_id", name)),
        name=name,
        project=redact(shared.project),
        folder=folder,
        outputs=Path(config.paths.outputs),
        entity=redact_all(shared.entity),
        group=redact_all(shared.group or group),
        tags=tuple(redact_all(shared.tags)),
        notes=redact_all(shared.notes),
        config=plain,
        resumed=earlier is not None,
        epoch=int(known.get("epoch", 1)),
    )
