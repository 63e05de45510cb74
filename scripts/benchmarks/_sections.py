"""The parts of benchmark.py: each measures, shows its table, and returns its rows."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import _cases
import torch
from _backprop import accuracy
from _cases import AUTOGRAD, EP, SOLVERS, Place, Point
from _child import command, in_child
from _common import Row, show
from _step_report import show_steps
from _timing import Case, Timing, device_wait, interleave

from eqprop.cli.device import default_threads
from eqprop.run.errors import UserError
from eqprop.training.session import evaluate

TRAIN = str(Path(__file__).resolve().parents[1] / "train.py")
COMPILED = ("euler", "newton")  # the solvers that have loops
MIB = 2**20


class Bench:
    """One benchmark: its points and place, and what was left out on the way.

    Raises:
        UserError: if nothing can run at the place that was asked for.
    """

    def __init__(self, args: argparse.Namespace, points: list[Point]) -> None:
        self.args, self.points = args, points
        threads = args.threads or default_threads()
        self.place = Place(args.device, args.dtype, threads, args.activation, tuple(args.override))
        self.skipped: dict[str, str] = {}
        self.checks: list[Row] = []
        words = args.cases or [""]
        names = [*SOLVERS, *AUTOGRAD]
        self.names = [name for name in names if any(word in name for word in words)]
        if not self.names:
            raise UserError(f"--cases {' '.join(words)}: no case has that; known: {names}")
        EP("gaussian euler", Point(1, 1, 1), self.place)  # tells of a wrong place

    # ---------------------------------------------------------------- one training step

    def step(self) -> list[Row]:
        """Every case at every point."""
        self._check_autograd(self.points[0])
        rows = []
        for point in self.points:
            here = self._step_at(point)
            show_steps(here)
            rows += here
        return rows

    def _step_at(self, point: Point) -> list[Row]:
        backprop = _cases.backprop_step(point, self.place)
        cases = [Case("backprop", backprop, {"kind": "backprop", "relaxation_steps": 0})]
        for name, ep in self._working(self.names, point, EP.step).items():
            labels = {
                "kind": "autograd" if name in AUTOGRAD else "ep",
                "relaxation_steps": ep.relaxation_steps,
                "steps_per_phase": ep.session.solver.n_nudged,
            }
            cases.append(Case(name, ep.step, labels))
        for n in sorted({case.labels["relaxation_steps"] for case in cases[1:]}):
            floor = _cases.floor_step(point, self.place, n)
            labels = {"kind": "floor", "relaxation_steps": n}
            cases.append(Case(f"floor, {n} steps", floor, labels))
        timings = {timing.case.name: timing for timing in self._timed(cases)}
        return [_step_row(timing, timings, point) for timing in timings.values()]

    def _timed(self, cases: Sequence[Case]) -> list[Timing]:
        wait = device_wait(self.place.device)
        return interleave(cases, self.args.rounds, self.args.budget, wait)

    def _working(
        self, names: Iterable[str], point: Point, use: Callable[[EP], object], samples: int = 1
    ) -> dict[str, EP]:
        """Each case that can be built and used; the reason is noted where one cannot."""
        found = {}
        for name in names:
            try:
                ep = EP(name, point, self.place, samples)
                use(ep)
                found[name] = ep
            except (NotImplementedError, UserError, torch.OutOfMemoryError) as error:
                self.skipped[name] = str(error).splitlines()[0]
        return found

    def _check_autograd(self, point: Point) -> None:
        """Before it is timed: that the autograd path computes the closed form's gradient."""
        for name in (name for name in self.names if name in AUTOGRAD):
            closed = f"{name.partition(' ')[0]} euler"
            mine, other = (EP(n, point, self.place).gradient() for n in (name, closed))
            error = float((mine - other).norm() / other.norm())
            self.checks.append({"case": name, "against": closed, "relative_difference": error})

    # ---------------------------------------------------------------- evaluation

    def evaluation(self) -> list[Row]:
        """Samples a second of the free phase, or of the forward pass."""
        point, n = self.points[0], self.args.samples
        network, split = _cases.backprop_split(point, self.place, n)
        cases = [Case("backprop", lambda: accuracy(network, (split.x, split.y)))]
        names = (name for name in self.names if name not in AUTOGRAD)
        for name, ep in self._working(names, point, _evaluate, n).items():
            cases.append(Case(name, lambda ep=ep: _evaluate(ep)))
        timings = self._timed(cases)
        rows: list[Row] = [
            {
                "case": timing.case.name,
                "samples_per_s": n / timing.spread()["median_s"],
                **timing.spread(),
                "vs_backprop": timing.over(timings[0]),
            }
            for timing in timings
        ]
        columns = {
            "case": lambda row: row["case"],
            "samples/s": lambda row: f"{row['samples_per_s']:,.0f}",
            "/ backprop": lambda row: f"{row['vs_backprop']['median']:.2f}",
        }
        show(f"Evaluation of {n} samples in batches of 1000", rows, columns)
        return rows

    # ---------------------------------------------------------------- processes of their own

    def memory(self) -> list[Row]:
        """Peak memory, for few and for ten times as many steps."""
        point, few = self.points[0], 2 if self.args.quick else 10
        known = [name for name in self.names if name not in self.skipped]
        wanted = [("backprop", None), *((name, n) for name in known for n in (few, 10 * few))]
        rows = []
        for name, n in wanted:
            measured = in_child(name, replace(point, steps=n), self.place)
            rows.append({"case": name, "steps_per_phase": n, **measured})

        def named(row: Row) -> str:
            n = row["steps_per_phase"]
            return f"{row['case']}, {n} steps a phase" if n else row["case"]

        columns = {
            "case": named,
            "peak, MiB": lambda row: f"{row['peak_bytes'] / MIB:.1f}",
            "added, MiB": lambda row: f"{row['added_bytes'] / MIB:.1f}",
        }
        show("Peak memory of a process", rows, columns)
        return rows

    def first_step(self) -> list[Row]:
        """The first step beside later ones: what compiling or capturing costs, and brings."""
        rows = []
        for name in (n for n in self.names if n not in self.skipped and n not in AUTOGRAD):
            for extra, cold in self._starts(name):
                measured = in_child(name, self.points[0], self.place, (extra,), cold)
                rows.append({"case": name, "overrides": [extra], "cold": cold, **measured})
        columns = {
            "case": lambda row: " ".join([row["case"], *row["overrides"], "cold" * row["cold"]]),
            "assembling, s": lambda row: f"{row['assemble_s']:.2f}",
            "first step, s": lambda row: f"{row['first_step_s']:.3f}",
            "later steps, ms": lambda row: f"{row['later_step_s'] * 1e3:.2f}",
        }
        show("The first training step", rows, columns)
        return rows

    def _starts(self, name: str) -> list[tuple[str, bool]]:
        """Overrides to start with, and whether with loops still to be compiled."""
        starts = [("device.compile=false", False), ("device.compile=true", False)]
        if self.place.device == "cuda":
            starts.append(("device.cuda_graph=true", False))
        elif name.endswith(COMPILED) and not self.args.quick:
            starts.insert(1, ("device.compile=true", True))
        return starts

    def startup(self) -> list[Row]:
        """Seconds until an answer."""
        commands = {
            "python -c pass": (["-c", "pass"], 0),
            "import torch": (["-c", "import torch"], 0),
            "import eqprop": (["-c", "import eqprop"], 0),
            "train.py --help": ([TRAIN, "--help"], 0),
            "train.py optimizer.lr=abc": ([TRAIN, "optimizer.lr=abc"], 2),
        }
        cases = [Case(name, command(*words)) for name, words in commands.items()]
        return _commands(cases, min(self.args.rounds, 5), "Start-up")

    def run(self) -> list[Row]:
        """The default command, whole."""
        with tempfile.TemporaryDirectory() as folder:
            case = Case("train.py", command([TRAIN, f"paths.outputs={folder}"], 0))
            return _commands([case], min(self.args.rounds, 3), "The default command")


def _evaluate(ep: EP) -> object:
    return evaluate(ep.session, ep.session.data.test)


def _commands(cases: Sequence[Case], rounds: int, title: str) -> list[Row]:
    timings = interleave(cases, rounds, warm=False)
    rows: list[Row] = [{"command": t.case.name, **t.spread()} for t in timings]
    columns = {
        "command": lambda row: row["command"],
        "s": lambda row: f"{row['median_s']:.2f}",
        "quartiles": lambda row: f"{row['q1_s']:.2f}–{row['q3_s']:.2f}",
    }
    show(title, rows, columns)
    return rows


def _step_row(timing: Timing, timings: dict[str, Timing], point: Point) -> Row:
    labels, energy = timing.case.labels, timing.case.name.partition(" ")[0]
    others = {
        "vs_floor": timings.get(f"floor, {labels['relaxation_steps']} steps"),
        "autograd_over_this": timings.get(f"{energy} autograd"),
        "script_over_this": timings.get(f"{energy} script"),
    }
    if labels["kind"] != "ep":
        others = dict.fromkeys(others)
    ratios = {
        name: other and (timing.over(other) if name == "vs_floor" else other.over(timing))
        for name, other in others.items()
    }
    return {
        "point": asdict(point),
        "case": timing.case.name,
        "kind": labels["kind"],
        "relaxation_steps": labels["relaxation_steps"],
        "steps_per_phase": labels.get("steps_per_phase"),
        **timing.spread(),
        "turns": len(timing.seconds),
        "calls_per_turn": timing.repeats,
        "vs_backprop": timing.over(timings["backprop"]),
        **ratios,
    }
