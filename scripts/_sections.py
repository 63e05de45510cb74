"""The parts of scripts/benchmark.py: each measures, shows its table, and returns its rows."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import _cases
import torch
from _backprop import accuracy
from _cases import AUTOGRAD, SOLVERS, Place, Point
from _child import command, in_child
from _report import show, show_steps
from _timing import Case, Timing, device_wait, interleave, machine
from rich.console import Console

from eqprop.cli.build import default_threads
from eqprop.run.errors import UserError

Row = dict[str, Any]
TRAIN = str(Path(__file__).resolve().parent / "train.py")
COMPILED = ("euler", "newton")  # the solvers that have loops
MIB = 2**20


class Bench:
    """One benchmark: its points and place, and what was left out on the way.

    Raises:
        UserError: if nothing can run at the place that was asked for.
    """

    def __init__(self, args: argparse.Namespace, points: list[Point], console: Console) -> None:
        self.args, self.points, self.console = args, points, console
        threads = args.threads or default_threads()
        self.place = Place(args.device, args.dtype, threads, args.activation, tuple(args.override))
        self.wait = device_wait(args.device)
        self.skipped: dict[str, str] = {}
        self.checks: list[Row] = []
        words = args.cases or [""]
        names = [*SOLVERS, *AUTOGRAD]
        self.names = [name for name in names if any(word in name for word in words)]
        if not self.names:
            raise UserError(f"--cases {' '.join(words)}: no case has that; known: {names}")
        _cases.training_of("gaussian euler", Point(1, 1, 1), self.place)  # tells of a wrong place

    def machine(self) -> Row:
        return machine()

    # ---------------------------------------------------------------- one training step

    def step(self) -> list[Row]:
        """Every case at every point."""
        rows = []
        for i, point in enumerate(self.points):
            if i == 0:
                self._check_autograd(point)
            here = self._step_at(point)
            show_steps(self.console, here)
            rows += here
        return rows

    def _step_at(self, point: Point) -> list[Row]:
        cases = [self._backprop(point), *self._ep_cases(point)]
        for n in sorted({case.labels["relaxation_steps"] for case in cases[1:]}):
            labels = {"kind": "floor", "relaxation_steps": n}
            floor = _cases.floor_step(point, self.place, n)
            cases.append(Case(f"floor, {n} steps", floor, labels))
        timings = interleave(cases, self.args.rounds, self.args.budget, self.wait)
        return [_step_row(timing, timings, point) for timing in timings]

    def _backprop(self, point: Point) -> Case:
        labels = {"kind": "backprop", "relaxation_steps": 0}
        return Case("backprop", _cases.backprop_step(point, self.place)[1], labels)

    def _ep_cases(self, point: Point) -> list[Case]:
        cases = []
        for name in self.names:
            training = self._try(name, lambda name=name: self._working(name, point))
            if training is None:
                continue
            labels = {
                "kind": "autograd" if name in AUTOGRAD else "ep",
                "relaxation_steps": training.solver.steps_of_both(training.model),
                "steps_per_phase": training.solver.n_nudged,
            }
            cases.append(Case(name, _cases.ep_step(training), labels))
        return cases

    def _working(self, name: str, point: Point) -> Any:
        training = _cases.training_of(name, point, self.place)
        _cases.ep_step(training)()  # an energy says here which solver it cannot serve
        return training

    def _try(self, name: str, build: Callable[[], Any]) -> Any:
        """What ``build`` gives, or None with the reason noted where the case cannot work."""
        try:
            return build()
        except (NotImplementedError, UserError, torch.OutOfMemoryError) as error:
            self.skipped[name] = str(error).splitlines()[0]
            return None

    def _check_autograd(self, point: Point) -> None:
        """Before it is timed: that the autograd path computes the closed form's gradient."""
        for name in (name for name in self.names if name in AUTOGRAD):
            closed = f"{name.partition(' ')[0]} euler"
            pair = [_cases.training_of(n, point, self.place) for n in (name, closed)]
            error = _cases.gradient_difference(*pair)
            self.checks.append({"case": name, "against": closed, "relative_difference": error})

    # ---------------------------------------------------------------- evaluation

    def evaluation(self) -> list[Row]:
        """Samples a second of the free phase, or of the forward pass."""
        point, n = self.points[0], self.args.samples
        network, split = _cases.backprop_split(point, self.place, n)
        cases = [Case("backprop", lambda: accuracy(network, (split.x, split.y)))]
        for name in (name for name in self.names if name not in AUTOGRAD):
            training = self._try(name, lambda name=name: self._evaluated(name, point, n))
            if training is not None:
                cases.append(Case(name, lambda t=training: t.evaluate(t.data.test)))
        timings = interleave(cases, self.args.rounds, self.args.budget, self.wait)
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
        show(self.console, f"Evaluation of {n} samples in batches of 1000", rows, columns)
        return rows

    def _evaluated(self, name: str, point: Point, n: int) -> Any:
        training = _cases.training_of(name, point, self.place, n)
        training.evaluate(training.data.test)
        return training

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
        columns = {
            "case": lambda row: f"{row['case']}" + (f", {row['steps_per_phase']} steps a phase"
                                                    if row["steps_per_phase"] else ""),
            "peak, MiB": lambda row: f"{row['peak_bytes'] / MIB:.1f}",
            "added, MiB": lambda row: f"{row['added_bytes'] / MIB:.1f}",
        }  # fmt: skip
        show(self.console, "Peak memory of a process", rows, columns)
        return rows

    def first_step(self) -> list[Row]:
        """The first step beside later ones: what compiling or capturing costs, and brings."""
        known = [n for n in self.names if n not in self.skipped and n not in AUTOGRAD]
        rows = []
        for name in known:
            for extra, cold in self._starts(name):
                measured = in_child(name, self.points[0], self.place, (extra,), cold)
                rows.append({"case": name, "overrides": [extra], "cold": cold, **measured})
        columns = {
            "case": lambda row: " ".join([row["case"], *row["overrides"], "cold" * row["cold"]]),
            "assembling, s": lambda row: f"{row['assemble_s']:.2f}",
            "first step, s": lambda row: f"{row['first_step_s']:.3f}",
            "later steps, ms": lambda row: f"{row['later_step_s'] * 1e3:.2f}",
        }
        show(self.console, "The first training step", rows, columns)
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
        return self._commands(cases, min(self.args.rounds, 5), "Start-up")

    def run(self) -> list[Row]:
        """The default command, whole."""
        with tempfile.TemporaryDirectory() as folder:
            whole = command([TRAIN, f"paths.outputs={folder}"], 0)
            case = Case("train.py", whole)
            return self._commands([case], min(self.args.rounds, 3), "The default command")

    def _commands(self, cases: Sequence[Case], rounds: int, title: str) -> list[Row]:
        timings = interleave(cases, rounds, warm=False)
        rows: list[Row] = [{"command": t.case.name, **t.spread()} for t in timings]
        columns = {
            "command": lambda row: row["command"],
            "s": lambda row: f"{row['median_s']:.2f}",
            "quartiles": lambda row: f"{row['q1_s']:.2f}–{row['q3_s']:.2f}",
        }
        show(self.console, title, rows, columns)
        return rows


def _step_row(timing: Timing, all_of_them: Sequence[Timing], point: Point) -> Row:
    labels = timing.case.labels
    by_name = {other.case.name: other for other in all_of_them}
    floor = by_name.get(f"floor, {labels['relaxation_steps']} steps")
    model = timing.case.name.partition(" ")[0]
    generic, script = (by_name.get(f"{model} {path}") for path in ("autograd", "script"))
    is_ep = labels["kind"] == "ep"
    return {
        "point": asdict(point),
        "case": timing.case.name,
        "kind": labels["kind"],
        "relaxation_steps": labels["relaxation_steps"],
        "steps_per_phase": labels.get("steps_per_phase"),
        **timing.spread(),
        "turns": len(timing.seconds),
        "calls_per_turn": timing.repeats,
        "vs_backprop": timing.over(by_name["backprop"]),
        "vs_floor": timing.over(floor) if is_ep and floor else None,
        "autograd_over_this": generic.over(timing) if is_ep and generic else None,
        "script_over_this": script.over(timing) if is_ep and script else None,
    }
