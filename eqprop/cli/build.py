"""Makes the objects of a run from its validated configuration."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.console import ConsoleTracker
from eqprop.cli.device import build_step, captures, prepare_device, rounding
from eqprop.config.schema import Config
from eqprop.config.validation import validate
from eqprop.data import Data
from eqprop.network import CEnergy, EnergyBasedModel, Network
from eqprop.network.closed_form import ClosedForms, replaced
from eqprop.relaxation import Solver, compiled
from eqprop.run import environment
from eqprop.run.checkpoint import Checkpoint
from eqprop.run.errors import ConfigError, UserError
from eqprop.run.resume import Earlier
from eqprop.run.signals import Stop
from eqprop.run.text import one_line
from eqprop.tracking import LocalFiles, RunInfo, Trackers
from eqprop.training.ablation import Ablation
from eqprop.training.callback import Callback
from eqprop.training.checkpoints import Checkpoints
from eqprop.training.diagnostics import Diagnostics
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.gradient_diagnostics import GradientDiagnostics
from eqprop.training.learning_check import LearningCheck
from eqprop.training.load import DTYPES, network_of, refuse_foreign, solver_of
from eqprop.training.loop import Training
from eqprop.training.optimizer import build_optimizer
from eqprop.training.profiler import Profiler
from eqprop.training.scheduler import build_schedule
from eqprop.training.session import Session
from eqprop.training.summary import Summary

log = logging.getLogger(__name__)


def build_session(cfg: DictConfig, config: Config) -> Session:
    """The data, network, solver, estimator and optimizer, on the device, from one seed."""
    device = prepare_device(config)
    dtype = DTYPES[config.device.dtype]
    data: Data = made(cfg.dataset, root=config.paths.data).load(device, dtype)
    cost: CEnergy = made(cfg.cost, beta=1.0)
    network = build_network(cfg, data, cost).to(device=device, dtype=dtype)
    data = data.shaped(network.shapes[0])
    estimator = made(cfg.estimator)
    if config.device.channels_last:
        network.use_channels_last()
    solver = build_solver(cfg, config, network, len(data.train))
    checked(lambda: estimator.check(network))
    checked(lambda: estimator.check_with(solver, cost))
    say_what_is_generic(network, [network.local, cost, solver, *network.phi, *network.W])
    if config.trainer.limit_batches is not None:
        data = data.first(config.trainer.limit_batches, config.trainer.eval_batch_size)
    captured = captures(config, device)
    ablation: Ablation | None = None if config.ablation is None else made(cfg.ablation)
    trained = None if ablation is None else ablation.trained(network)
    own = cfg.get("callbacks") or {}
    session = Session(
        network=network,
        cost=cost,
        solver=solver,
        estimator=estimator,
        optimizer=build_optimizer(cfg.optimizer, network, captured, trained),
        data=data,
        generator=torch.Generator(device).manual_seed(config.seed),
        seed=config.seed,
        epochs=config.trainer.epochs,
        eval_batch_size=config.trainer.eval_batch_size,
        clip_norm=cfg.optimizer.get("clip_norm"),
        noise=None if config.noise is None else made(cfg.noise),
        callbacks={str(name): made(node) for name, node in own.items()},
    )
    length = session.epochs, session.steps_an_epoch
    session.schedule = build_schedule(cfg.get("scheduler"), session.optimizer, *length, captured)
    return session


def build_training(
    config: Config, session: Session, trackers: Trackers, run: RunInfo, stop: Stop
) -> Training:
    """The loop around a session, with what watches it."""
    trainer, checkpoints = config.trainer, run.folder / "checkpoints"
    guard = DivergenceGuard()
    diagnostics = Diagnostics(trackers.show, trainer.curves_every, checkpoints)
    console = next(t for t in trackers.active if isinstance(t, ConsoleTracker))
    rows = next(t for t in trackers.active if isinstance(t, LocalFiles))
    plain = {key: value for key, value in run.config.items() if key != "chosen"}
    meta = {"run_id": run.id, "config": plain, "versions": environment.versions()}
    meta |= rounding(session) | {"init_from": run.config.get("chosen", {}).get("init_from")}
    how = config.checkpoint
    keeping = (how.every, how.every_steps, how.keep, how.share)
    saving = Checkpoints(checkpoints, meta, stop, rows.sync, guard, *keeping)
    callbacks: list[Callback] = [
        *(guard, LearningCheck(), console, diagnostics, *session.callbacks.values(), saving)
    ]
    if (every := config.diagnostics.gradient_every) is not None:
        comparing = GradientDiagnostics(every)
        checked(lambda: comparing.reference.check(session.network))
        callbacks.insert(0, comparing)
    if trainer.summary:
        callbacks.insert(0, Summary())
    if trainer.profile is not None:
        callbacks.insert(0, Profiler(trainer.profile, run.folder))
    return Training(
        session,
        callbacks,
        record=trackers.log,
        take_step=build_step(config, session.device),
        log_every=trainer.log_every,
        eval_every=trainer.eval_every,
    )


def session_of_run(found: Checkpoint, changes: Mapping[str, Any]) -> Session:
    """The session of an earlier run, untrained, with ``changes`` of settings by dotted keys.

    CheckpointError, if the checkpoint names code that is no part of a training.
    """
    refuse_foreign(found)
    cfg = OmegaConf.create(found.meta["config"])
    here = {"device.type": "auto", "device.index": 0, "device.cuda_graph": "auto"}
    alone: dict[str, Any] = {"tracking.trackers": {}, "callbacks": {}, "init_from": None}
    for key, value in {**here, **alone, **changes}.items():
        OmegaConf.update(cfg, key, value, merge=False)
    plain: Any = OmegaConf.to_container(cfg)
    return build_session(cfg, validate(plain))


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
    ends = data.sample_shape, data.n_classes
    return checked(lambda: network_of(model, *ends, cost, data.batch_size))


def checked(look: Callable[[], Any]) -> Any:
    """Return what ``look`` does; what it finds wrong is a mistake in the configuration."""
    try:
        return look()
    except ValueError as error:
        raise ConfigError(one_line(error)) from error


def build_solver(cfg: DictConfig, config: Config, network: Network, n_samples: int) -> Solver:
    """The solver of ``cfg.dynamics``, which a network may refuse, with its compiled loops."""
    solver: Solver = checked(lambda: solver_of(made, cfg.dynamics, network))
    wanted = config.device.compile
    steps = solver.n_nudged + (0 if solver.feeds_forward(network) else solver.n_relax)
    worth_it = compiled.fits(network) and compiled.pays(network, steps, n_samples)
    if wanted is True or (wanted == "auto" and worth_it):
        solver.use_compiled_loops(network)
    if wanted is True and network.by_autograd:
        log.info("torch compiles the energy at the first step, which takes seconds")
        network.compile_energy()
    elif wanted is True and not solver.compiled:
        loops = "one hidden layer of sigmoid or tanh, float32 on the CPU, and dynamics=newton or"
        log.warning(
            "device.compile=true changes nothing here: there are loops only for %s euler (neither "
            "adaptive nor clipped) with tol=0",
            loops,
        )
    return solver


def say_what_is_generic(network: Network, parts: list[Any]) -> None:
    """Log which closed forms a class does without because it overrides what they belong to."""
    terms = getattr(network, "terms_of", EnergyBasedModel.terms_of)
    if terms is not EnergyBasedModel.terms_of and not network.layerwise:
        own = "trained by what it overrides, without the closed forms of"
        log.info("%s: %s %s", type(network).__name__, own, terms.__name__)
    for part in parts:
        if isinstance(part, ClosedForms) and (lost := ", ".join(replaced(part))):
            log.info("%s: the generic form of %s is used", type(part).__name__, lost)


def build_trackers(config: Config, cfg: DictConfig, session: Session) -> Trackers:
    """The run's own files, which are the truth, then the console, then the configured trackers."""
    trainer = config.trainer
    console = ConsoleTracker(trainer.epochs, len(session.data.train), trainer.progress)
    configured = [made(node) for node in cfg.tracking.trackers.values()]
    return Trackers([LocalFiles(), console, *configured])


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


def run_info(
    cfg: DictConfig,
    folder: Path,
    group: str | None = None,
    earlier: Earlier | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> RunInfo:
    """What trackers may show of the run in ``folder``, under its earlier id if it had one.

    ``chosen`` is what ``auto`` chose, which they get beside the configuration.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    plain |= {} if chosen is None else {"chosen": dict(chosen)}
    known = earlier.meta if earlier is not None and earlier.meta is not None else {}
    shared = plain["tracking"]
    name = re.sub(r"^\d\d-\d\d-\d\d-", "", folder.name)  # W&B puts the time before it
    return RunInfo(
        id=str(known.get("run_id", name)),
        name=name,
        project=shared["project"],
        folder=folder,
        outputs=Path(cfg.paths.outputs),
        entity=shared["entity"],
        group=shared["group"] or group,
        tags=tuple(shared["tags"]),
        notes=shared["notes"],
        config=plain,
        resumed=earlier is not None,
        epoch=int(known.get("epoch", 1)),
    )
