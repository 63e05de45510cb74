"""The gradient check of a command line: the network, its batches and the estimators, examined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.build import build_session, checked, made
from eqprop.cli.command import merge, recorded_command, run_folder
from eqprop.config.compose import check
from eqprop.config.signature import Component, component_type
from eqprop.config.targets import locate
from eqprop.config.validation import resolved, validate_composed
from eqprop.data import one_hot
from eqprop.estimator import Estimator
from eqprop.estimator.alignment import Alignment, total
from eqprop.estimator.error_sweep import Floor, fitted_slope, steps, strengths
from eqprop.estimator.gradient_check import Candidate, Problem, Solved
from eqprop.estimator.limits import judge, measure, unknown
from eqprop.run.errors import ConfigError
from eqprop.run.resume import refuse_other_defaults
from eqprop.run.text import key_of
from eqprop.training import load, snapshot
from eqprop.training.session import Session

STRENGTHS = ("beta", "radius")
"""The constructor keys that a sweep varies."""
HALVINGS = 9  # of the strength, from twice its value, unless the values are given
EXACT = {"tol": 1e4, "max_iterations": 1000}
"""Of a reference that solves equations: its tol in units of the precision, and its iterations."""


@dataclass(frozen=True)
class Request:
    """What to compare: as the options of ``eqprop-gradient-check``."""

    words: Sequence[str] = ()  # overrides, as of eqprop-train
    flags: Sequence[str] = ()  # of Hydra's, such as --config-dir=DIR
    run: str | None = None
    checkpoint: str = "last"
    estimators: Sequence[str] = ()  # options of the group; none: the one that is configured
    reference: str = "implicit"
    batches: int = 3
    betas: Sequence[float] | None = None
    steps: Sequence[int] | None = None


def gradient_check(request: Request) -> dict[str, Any]:
    """Everything that was found, in plain values: what ``--json`` writes. Trains nothing."""
    flags, words = _command(request)
    compose = partial(_composed, flags)
    cfg = compose(words)
    own = str(cfg.hydra.runtime.choices.get("estimator"))
    parts = {name: _with(compose, words, name) for name in request.estimators} or {own: cfg}
    truth = _with(compose, words, request.reference)
    session = build_session(cfg, validate_composed(cfg))
    if request.run is not None:
        found = load.find(request.run, request.checkpoint)
        snapshot.restore_weights(session.network, found)
    problem = _problem(session, request.batches)
    typed = {key_of(word) for word in words}
    reference = _exact(truth, typed, problem).make()
    candidates = {name: _candidate(name, part) for name, part in parts.items()}
    for estimator in (reference, *(c.make() for c in candidates.values())):
        checked(partial(estimator.check, session.network))
        checked(partial(estimator.check_with, session.solver, session.cost))
    solved = checked(lambda: problem.solve(reference))
    floor = Floor.of(problem, solved)
    return {
        "dtype": cfg.device.dtype,
        "batches": len(problem.batches),
        "samples": sum(len(x) for x, _ in problem.batches),
        "parameters": problem.names,
        "reference": {"name": request.reference, "residual": solved.own_residual},
        "steps": {"n_relax": session.solver.n_relax, "n_nudged": session.solver.n_nudged},
        "estimators": {
            name: _plain(
                _examined(problem, candidate, parts[name], reference, solved, floor, request)
            )
            for name, candidate in candidates.items()
        },
    }


def _examined(
    problem: Problem,
    candidate: Candidate,
    cfg: DictConfig,
    reference_estimator: Estimator,
    reference: Solved,
    floor: Floor,
    request: Request,
) -> dict[str, Any]:
    solved = checked(lambda: problem.solve(candidate.make()))
    alignments = solved.against(reference, problem.names)
    whole, order = total(alignments), candidate.order
    values = _strengths(problem, candidate, cfg, request.betas)
    over_beta = strengths(problem, candidate, reference, floor, values)
    slope, fitted = fitted_slope(over_beta)
    n_steps = candidate.steps or problem.solver.n_nudged
    counts = sorted({2**k for k in range((4 * n_steps).bit_length())} | {n_steps})
    varies = solved.nudged or candidate.steps is not None
    counts = list(request.steps or counts) if varies else []
    over_steps = steps(problem, candidate, reference, floor, counts)
    found, limit = None, unknown(whole, candidate)
    if limit is None:
        parts = problem, candidate, reference_estimator, reference, solved, floor
        found = measure(*parts, over_beta)
        limit = judge(found, candidate, order, cfg.device.dtype)
    return {
        "strength": None if candidate.key is None else {candidate.key: candidate.strength},
        "parameters": {name: numbers(one) for name, one in alignments.items()},
        "whole": numbers(whole),
        "beta_sweep": [asdict(point) for point in over_beta],
        "slope": {"fitted": slope, "expected": order, "at": fitted},
        "steps": {"estimator.steps" if candidate.steps else "dynamics.n_nudged": n_steps},
        "step_sweep": [asdict(point) for point in over_steps],
        "limit": asdict(limit),
        "evidence": found and asdict(found),
        "seconds": problem.seconds(candidate.make()),
    }


def numbers(one: Alignment) -> dict[str, Any]:
    """What an alignment says, by name."""
    found = {
        "cosine": one.cosine,
        "norm_ratio": one.norm_ratio,
        "equal_signs": one.equal_signs,
        "relative_error": one.relative_error,
    }
    return {**found, "note": one.note}


def _plain(value: Any) -> Any:
    """Numbers that are not finite as None: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _command(request: Request) -> tuple[list[str], list[str]]:
    """The flags and the overrides, after those of the run, if there is one."""
    typed = [word for word in request.words if key_of(word) in ("resume", "rerun")]
    if typed:
        raise ConfigError(f"{typed[0]}: nothing is trained here; a trained network is RUN=folder")
    if request.run is None:
        return list(request.flags), list(request.words)
    folder = run_folder("RUN", request.run)
    flags, words = recorded_command(folder)
    refuse_other_defaults(folder, resolved(_composed(flags, words)))
    return [*flags, *request.flags], merge(words, request.words)


def _composed(flags: Sequence[str], words: Sequence[str]) -> DictConfig:
    cfg = check([*flags, *words])
    if cfg is None or {"-m", "--multirun"}.intersection(flags):
        raise ConfigError("of Hydra's flags only --config-dir works here")
    return cfg


def _with(compose: Callable[[Sequence[str]], DictConfig], words: Sequence[str], name: str) -> Any:
    """The configuration with another estimator, and those typed keys of the group that it has."""
    others = [word for word in words if key_of(word).partition(".")[0] != "estimator"]
    cfg = compose([*others, f"estimator={name}"])
    kind = _kind(cfg)
    known = {f"estimator.{field.alias or key}" for key, field in kind.model_fields.items()}
    mine = [word for word in words if key_of(word) in known - {"estimator._target_"}]
    return compose([*others, f"estimator={name}", *mine]) if mine else cfg


def _problem(session: Session, n: int) -> Problem:
    """The first batches that a training of this seed would see."""
    classes = session.data.n_classes
    found = [
        (x.clone(), one_hot(y, classes, x.dtype))
        for x, y, _ in islice(session.data.epoch(session.seed, 1), n)
    ]
    return Problem(session.network, session.solver, session.cost, found, session.seed)


def _kind(cfg: DictConfig) -> type[Component]:
    return component_type("estimator", locate(str(cfg.estimator._target_)))


def _candidate(name: str, cfg: DictConfig) -> Candidate:
    fields = {f.alias or key: f for key, f in _kind(cfg).model_fields.items()}
    key = next((key for key in STRENGTHS if key in fields), None)
    given = {key: cfg.estimator.get(key, field.default) for key, field in fields.items()}
    strength = None if key is None else float(given[key])
    own = given.get("steps")
    return Candidate(
        name,
        lambda **changes: made(cfg.estimator, **changes),
        key,
        strength,
        own if isinstance(own, int) else None,
    )


def _exact(cfg: DictConfig, typed: set[str], problem: Problem) -> Candidate:
    """The reference, as exact as the precision allows unless its keys are typed."""
    eps = torch.finfo(problem.batches[0][0].dtype).eps
    for key, most in EXACT.items():
        if key in cfg.estimator and f"estimator.{key}" not in typed:
            value = min(cfg.estimator[key], most * eps) if key == "tol" else int(most)
            OmegaConf.update(cfg, f"estimator.{key}", value)
    return _candidate("reference", cfg)


def _strengths(
    problem: Problem, candidate: Candidate, cfg: DictConfig, given: Sequence[float] | None
) -> Sequence[float]:
    """Those of the sweep: the ones given, or those that the configuration allows."""
    if candidate.key is None or candidate.strength is None:
        return []
    usual = [2 * candidate.strength / 2**k for k in range(HALVINGS + 2)]
    found = []
    for value in given or usual:
        changed = cfg.copy()
        OmegaConf.update(changed, f"estimator.{candidate.key}", value)
        try:
            validate_composed(changed)
            estimator = candidate.make(**{candidate.key: value})
            checked(partial(estimator.check_with, problem.solver, problem.cost))
        except ConfigError:
            if given:
                raise
        else:
            found.append(value)
    return found
