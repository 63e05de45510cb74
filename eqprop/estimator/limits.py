"""What limits a gradient: β, too few steps, rounding, or a kink. Decided by measuring."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.estimator.alignment import Alignment
from eqprop.estimator.error_sweep import Floor, Point
from eqprop.estimator.estimator import Estimator
from eqprop.estimator.gradient_check import Candidate, Problem, Solved
from eqprop.network import Network, State

HELPS = 0.25  # powers of two that an error falls by, or more: what was changed limits it
NEAR = 3.0  # times the floor: an error that is smaller lies on it
SMALL = 0.01  # share of the floor that is rounding: the rest, a residual, is none
OFF = 0.5  # from the order: a slope that is further off is not due to β alone


@dataclass(frozen=True)
class Evidence:
    """What was measured of a gradient; None where it does not apply.

    Attributes:
        error: of the whole gradient, relative, under the settings as they are.
        floor: what it cannot be less than under these, and ``least`` under any.
        rounding: the share of the floor that is rounding.
        residual: where the phases stop, and ``residual_after`` twice the steps.
        half: the error with half the strength.
        smaller: of the sweep's smaller strengths the one whose error is least.
        twice: the error with twice the steps, which ``steps`` says in words.
        moved: the share of units on another piece of φ, or of pool windows with another maximum, in
            the nudged phase.
    """

    error: float
    floor: float
    least: float
    rounding: float
    residual: float = 0.0
    residual_after: float | None = None
    half: float | None = None
    smaller: Point | None = None
    twice: float | None = None
    steps: str = ""
    moved: float | None = None


@dataclass(frozen=True)
class Limit:
    """What limits a gradient, as one word and as one sentence.

    ``name`` is beta, steps, rounding or kink; estimator, if it is none of these; nothing, if the
    gradient equals the reference; unknown, if there is nothing to compare.
    """

    name: str
    sentence: str


def measure(
    problem: Problem,
    candidate: Candidate,
    reference_estimator: Estimator,
    reference: Solved,
    solved: Solved,
    floor: Floor,
    sweep: Sequence[Point] = (),
) -> Evidence:
    """Repeat the candidate's gradient, ``solved``, with half the strength and twice the steps.

    ``sweep`` are its errors with other strengths, where they are known.
    """
    names, strength, half, twice, after = problem.names, candidate.strength, None, None, None
    error, lowest = solved.error(reference, names), floor(strength, solved.residual)
    if strength is not None:
        halved = candidate.make(**{str(candidate.key): strength / 2})
        half = problem.solve(halved).error(reference, names)
        sweep = [p for p in sweep if abs(p.setting) < abs(strength) and math.isfinite(p.error)]
    longer, steps = _longer(problem, candidate, solved)
    if steps:
        theirs = longer.solve(reference_estimator) if solved.relaxed else reference
        more = {} if candidate.steps is None else {"steps": 2 * candidate.steps}
        ours = longer.solve(candidate.make(**more))
        twice, after = ours.error(theirs, names), ours.residual
    of_rounding = (floor(strength, 0.0) / lowest) if lowest < math.inf else 0.0
    return Evidence(
        error,
        lowest,
        floor.reference,
        of_rounding,
        residual=solved.residual,
        residual_after=after,
        half=half,
        smaller=min(sweep, key=lambda point: point.error, default=None),
        twice=twice,
        steps=steps,
        moved=share_moved(problem, candidate.make()),
    )


def judge(found: Evidence, candidate: Candidate, order: int | None, dtype: str) -> Limit:
    """What limits the gradient: what lowers its error most, else the floor that it lies on."""
    error, key = found.error, f"estimator.{candidate.key}"
    by_beta, by_steps = _gain(error, found.half), _gain(error, found.twice)
    kinks = (
        f"the nudge takes {100 * (found.moved or 0.0):.2g} % of the units or pool windows over one"
    )
    if error <= NEAR * found.least:
        return Limit("nothing", "nothing limits it: it equals the reference")
    if by_steps >= max(by_beta, HELPS):
        how = f"twice {found.steps} take the error from {error:.2g} to {found.twice:.2g}"
        return Limit("steps", f"too few steps limit it: {how}")
    if by_beta >= HELPS:
        how = f"takes the error from {error:.2g} to {found.half:.2g}"
        if found.moved and order is not None and abs(by_beta - order) > OFF:
            return Limit("kink", f"kinks limit it: {kinks}; half of {key} {how}")
        return Limit("beta", f"{key}={candidate.strength:g} limits it: half of it {how}")
    if (less := found.smaller) is not None and candidate.strength is not None:
        halvings = math.log2(abs(candidate.strength / less.setting))
        if _gain(error, less.error) >= HELPS * halvings:
            how = f"{less.setting:.2g} takes the error from {error:.2g} to {less.error:.2g}"
            return Limit("beta", f"{key}={candidate.strength:g} limits it: {how}")
    if candidate.strength is not None and (error <= NEAR * found.floor or by_beta <= -HELPS):
        at = f"an error of {error:.2g} lies at the floor of {found.floor:.2g}"
        if found.rounding >= SMALL:
            how = f"take a larger {key}, or device.dtype=float64"
            return Limit("rounding", f"rounding in {dtype} limits it: {at}; {how}")
        after = found.residual_after
        if after is not None and after > found.residual / 2:
            why = f"twice the steps leave a residual of {after:.2g}; lower dynamics.dt"
            return Limit("steps", f"the steps limit it: {at}, and {why}")
    if found.moved:
        return Limit("kink", f"kinks limit it: {kinks}")
    why = f"neither steps nor rounding explain an error of {error:.2g}"
    return Limit("estimator", f"what it estimates is another gradient: {why}")


def unknown(whole: Alignment, candidate: Candidate) -> Limit | None:
    """Where there is nothing to compare: why, and what to do."""
    if math.isfinite(whole.relative_error):
        return None
    why = whole.note or "the error is not finite"
    lower = [f"estimator.{candidate.key}"] if candidate.key else []
    how = f"; lower {' or '.join([*lower, 'dynamics.dt'])}" if "finite" in why else ""
    return Limit("unknown", f"there is nothing to compare: {why}{how}")


def _longer(problem: Problem, candidate: Candidate, solved: Solved) -> tuple[Problem, str]:
    """The problem with twice the steps, and which these are in words; none if it takes none."""
    solver, settings = problem.solver, dict[str, int]()
    if solved.relaxed:
        settings["n_relax"] = 2 * solver.n_relax
    if solved.nudged:
        settings["n_nudged"] = 2 * solver.n_nudged
    doubled = [f"dynamics.{key}={n // 2}" for key, n in settings.items()]
    doubled += [] if candidate.steps is None else [f"estimator.steps={candidate.steps}"]
    if not doubled:
        return problem, ""
    words = " and ".join(doubled)
    words += f" (with dynamics.tol=0, not {solver.tol:g})" if solver.tol > 0 else ""
    return problem.with_solver(**settings, tol=0.0), words


def _gain(before: float, after: float | None) -> float:
    """How many powers of two an error has fallen by."""
    if after is None or not math.isfinite(after):
        return -math.inf
    return math.log2(before / after) if after > 0.0 else math.inf


# ---------------------------------------------------------------------- kinks


def share_moved(problem: Problem, estimator: Estimator) -> float | None:
    """Share of the units, or pool windows, that a nudged phase takes over a kink; None: no kinks.

    Of all nudged phases that the estimator names, whichever takes most.
    """
    moved = units = 0
    network, solver = problem.network, problem.solver
    for state, target in problem.states():
        with torch.no_grad(), state.held():
            solver.free_phase(network, state)
            before, free, most = list(pieces(network, state)), state.copy(), 0
            units += sum(where.numel() for where in before)
            for _, nudge in estimator.nudges(problem.cost, target):
                state.restore(free)
                solver.relax(network, state, nudge, solver.n_nudged)
                after = pieces(network, state)
                pairs = zip(before, after, strict=True)
                most = max(most, sum(int((a != b).sum()) for a, b in pairs))
            moved += most
    return moved / units if units else None


def pieces(network: Network, state: State) -> Iterator[Tensor]:
    """Where the state lies between kinks: whole numbers that change when one is crossed.

    Of each free layer with kinks, and of each pool the places of the maxima.
    """
    drives = network.local.acts_on_drive and network.feedforward
    for layer in state.free:
        ends = {end for low, high, *_ in network.phi[layer].pieces for end in (low, high)}
        kinks = sorted(end for end in ends if math.isfinite(end))
        if kinks:
            at = network.drive(state, layer) if drives else state.u[layer]
            bounds, at = at.new_tensor(kinks), at.contiguous()
            # a unit that is held at a kink lies between those on either side
            yield torch.bucketize(at, bounds) + torch.bucketize(at, bounds, right=True)
    for edge in () if network.by_autograd else network.edges:
        network.drive(state, edge.target)
        if isinstance(places := state.memory[edge].get("indices"), Tensor):
            yield places.clone()
