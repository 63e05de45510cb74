"""Makes the objects of a run from its validated configuration."""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.console import ConsoleProgress, ConsoleTracker
from eqprop.config.rules import graph_obstacle
from eqprop.config.schema import Config
from eqprop.config.targets import locate
from eqprop.data import Data
from eqprop.network import CEnergy, EnergyBasedModel, Network
from eqprop.network.closed_form import ClosedForms, replaced
from eqprop.relaxation import Solver, compiled
from eqprop.run import environment
from eqprop.run.errors import ConfigError, UserError
from eqprop.run.hardware import processors
from eqprop.run.redact import redact, redact_all
from eqprop.run.resume import Earlier, cut_metrics, take, warn_of_differences
from eqprop.run.signals import Stop
from eqprop.run.text import one_line
from eqprop.tracking import JsonlTracker, LocalFiles, RunInfo, Trackers
from eqprop.training.callback import Callback
from eqprop.training.checkpoints import Checkpoints
from eqprop.training.diagnostics import Diagnostics
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.load import DTYPES, network_of
from eqprop.training.loop import Training
from eqprop.training.optimizer import build_optimizer
from eqprop.training.profiler import Profiler
from eqprop.training.session import Session
from eqprop.training.snapshot import restore
from eqprop.training.step import CapturedStep, CudaGraphs, PlainStep, Step

log = logging.getLogger(__name__)


def build_session(cfg: DictConfig, config: Config) -> Session:
    """The data, network, solver, estimator and optimizer, on the device, from one seed."""
    device = prepare_device(config)
    seed_everything(config.seed)
    dtype = DTYPES[config.device.dtype]
    data: Data = made(cfg.dataset, root=config.paths.data).load(device, dtype)
    cost: CEnergy = made(cfg.cost, beta=1.0)
    network = build_network(cfg, data, cost).to(device=device, dtype=dtype)
    estimator = made(cfg.estimator)
    solver = build_solver(cfg, config, network, len(data.train))
    say_what_is_generic(network, [network.local, cost, solver, *network.phi, *network.W])
    if config.trainer.limit_batches is not None:
        data = data.first(config.trainer.limit_batches, config.trainer.eval_batch_size)
    return Session(
        network=network,
        cost=cost,
        solver=solver,
        estimator=estimator,
        optimizer=build_optimizer(cfg.optimizer, network, captures(config, device)),
        data=data,
        generator=torch.Generator(device).manual_seed(config.seed),
        seed=config.seed,
        epochs=config.trainer.epochs,
        eval_batch_size=config.trainer.eval_batch_size,
    )


def build_training(
    config: Config, session: Session, trackers: Trackers, run: RunInfo, stop: Stop
) -> Training:
    """The loop around a session, with what watches it."""
    trainer, checkpoints = config.trainer, run.folder / "checkpoints"
    guard = DivergenceGuard()
    diagnostics = Diagnostics(trackers.show, trainer.curves_every, checkpoints)
    console = next(t for t in trackers.active if isinstance(t, ConsoleTracker))
    rows = next(t for t in trackers.active if isinstance(t, JsonlTracker))
    meta = {
        "run_id": run.id,
        "config": run.config,
        "versions": environment.versions(),
        **rounding(session),
    }
    how = config.checkpoint
    keeping = (how.every, how.every_steps, how.keep, how.share)
    callbacks: list[Callback] = [
        guard,
        ConsoleProgress(console),
        diagnostics,
        Checkpoints(checkpoints, meta, stop, rows.sync, guard, *keeping),
    ]
    if trainer.profile is not None:
        callbacks.insert(0, Profiler(trainer.profile, run.folder))
    return Training(
        session,
        callbacks,
        record=trackers.log,
        look=diagnostics.see,
        take_step=build_step(config, session.device),
        log_every=trainer.log_every,
        eval_every=trainer.eval_every,
    )


def made(node: DictConfig, **more: Any) -> Any:
    """The object of a part; a mistake that its class finds in the keys is told in its own words."""
    try:
        return instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, (ValueError, TypeError)):
            raise ConfigError(f"{node._target_}: {one_line(cause)}") from error
        raise


def build_network(cfg: DictConfig, data: Data, cost: CEnergy) -> Network:
    """The energy of ``cfg.model`` on layers between the data's input and its classes."""
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    try:
        return network_of(model, (data.input_size,), data.n_classes, cost, data.batch_size)
    except ValueError as error:
        raise ConfigError(one_line(error)) from error


def build_solver(cfg: DictConfig, config: Config, network: Network, n_samples: int) -> Solver:
    """The solver of ``cfg.dynamics``, which a network may refuse, with its compiled loops."""
    chooses = "network" in signature(locate(cfg.dynamics._target_)).parameters
    solver: Solver = made(cfg.dynamics, **({"network": network} if chooses else {}))
    try:
        solver.check(network)
    except ValueError as error:
        raise ConfigError(one_line(error)) from error
    wanted = config.device.compile
    steps = solver.n_nudged + (0 if solver.feeds_forward(network) else solver.n_relax)
    worth_it = compiled.fits(network) and compiled.pays(network, steps, n_samples)
    if wanted is True or (wanted == "auto" and worth_it):
        solver.use_compiled_loops(network)
    if wanted is True and network.by_autograd:
        network.compile_energy()
    elif wanted is True and not solver.compiled:
        log.warning(
            "device.compile=true changes nothing here: there are loops for one hidden layer of "
            "sigmoid or tanh, with dynamics euler (not adaptive) or newton, dynamics.tol=0, in "
            "float32 on the CPU"
        )
    return solver


def say_what_is_generic(network: Network, parts: list[Any]) -> None:
    """Log which closed forms a class does without because it overrides what they belong to."""
    terms = getattr(network, "terms_of", EnergyBasedModel.terms_of)
    if terms is not EnergyBasedModel.terms_of and not network.layerwise:
        name = type(network).__name__
        log.info(
            "%s: trained by what it overrides, without the closed forms of %s", name, terms.__name__
        )
    for part in parts:
        lost = replaced(part) if isinstance(part, ClosedForms) else []
        if lost:
            names = ", ".join(lost)
            log.info("%s: the generic form of %s is used", type(part).__name__, names)


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


def captures(config: Config, device: torch.device) -> bool:
    """Whether the training step is to be captured as a CUDA graph.

    What is not our own may do what cannot be captured, so that is only tried where asked for.
    """
    wanted = config.device.cuda_graph
    if wanted is False or device.type != "cuda":
        return False
    parts = (config.model, config.cost, config.dynamics, config.estimator, config.optimizer)
    ours = all(part.target.startswith(("eqprop.", "torch.optim.")) for part in parts)
    return wanted is True or (ours and graph_obstacle(config) is None)


def build_step(config: Config, device: torch.device) -> Step:
    """The captured step, where it can be; one that was asked for must succeed."""
    if not captures(config, device):
        return PlainStep()
    return CapturedStep(CudaGraphs(device), strict=config.device.cuda_graph is True)


def build_trackers(config: Config, cfg: DictConfig, session: Session) -> Trackers:
    """The run's own files, which are the truth, then the console, then the configured trackers."""
    trainer = config.trainer
    console = ConsoleTracker(trainer.epochs, len(session.data.train), trainer.progress)
    configured = [made(node) for node in cfg.tracking.trackers.values()]
    return Trackers([JsonlTracker(), LocalFiles(), console, *configured])


@contextmanager
def recording(trackers: Trackers, run: RunInfo, session: Session) -> Iterator[None]:
    """Open the trackers for a run, and close them with its summary and how it ended."""
    try:
        trackers.start(run)
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        trackers.finish(session.summary(), "interrupted" if stopped else "failed")
        raise
    trackers.finish(session.summary(), "done")


def rounding(session: Session) -> dict[str, Any]:
    """What decides a run's last digits and may be other when it is resumed."""
    device = session.device
    on_gpu = device.type == "cuda"
    return {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else environment.hardware()["cpu"],
        "matmul": torch.get_float32_matmul_precision(),
        "compiled": session.solver.compiled or session.network.compiled,
    }


def go_on(session: Session, earlier: Earlier) -> None:
    """Put the training where its newest checkpoint was written, and the metrics with it."""
    start = take(earlier)
    if start is not None:
        restore(session, start)
        warn_of_differences(start.meta, rounding(session))
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
