"""The evidence that a page of results is made from: what counts of each run, without its folder."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from eqprop.report.runs import is_parameter
from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically
from eqprop.run.reading import Run, read_object
from eqprop.run.text import key_of, number, one_line, told

Kind = Literal["run", "timing", "reported"]
SPLITS = ("test", "validation")
_RECORDING = ("trainer.log_every", "trainer.curves_every", "trainer.eval_batch_size", "device")


@dataclass(frozen=True)
class Evidence:
    """One run, as far as a page of results needs it.

    ``accuracy`` is of each split after epoch 1, 2, …, None where it was not measured; ``best`` is
    the test accuracy of the epoch that was best ``by`` validation or, with nothing held back, by
    the test set itself. ``seconds`` are the median epoch's without evaluation, of ``samples``.
    """

    command: tuple[str, ...]  # the overrides that affect the result, without the seed
    kind: Kind = "run"  # a timing counts for its seconds only; reported: its folder is gone
    seed: int | None = None
    epochs: int | None = None  # how many were asked for
    accuracy: dict[str, list[float | None]] = field(default_factory=dict)
    best: float | None = None
    by: str | None = None
    seconds: float | None = None
    samples: int | None = None
    machine: str = "not known"
    busy: bool = False  # other work ran beside it: its seconds are no figures
    commit: str | None = None

    @property
    def reached(self) -> int:
        """How many epochs it has finished."""
        return max((len(values) for values in self.accuracy.values()), default=0)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two records of one run have in common."""
        return self.command, self.kind, str(self.seed), self.machine

    def last(self, split: str) -> float | None:
        """Its accuracy after the last epoch that it has finished, if it was measured there."""
        values = self.accuracy.get(split, [])
        return values[-1] if len(values) == self.reached and values else None


def evidence_of(run: Run, kind: Kind = "run", busy: bool = False) -> Evidence:
    """What counts of a run."""
    accuracy = {split: found for split in SPLITS if (found := _by_epoch(run, split))}
    by = "validation" if "validation" in accuracy else "test"
    known = [(a, -i) for i, a in enumerate(accuracy.get(by, [])) if a is not None]
    place = -max(known)[1] if known else 0  # the first of equals
    tested = accuracy.get("test", [])
    times = [(row.get("time/train_s"), row) for row in run.metrics.get("time/train_s", [])]
    timed = [(seconds, row) for value, row in times if (seconds := number(value)) is not None]
    timed = timed[1:] or timed  # in the first epoch things are compiled
    seed, epochs = (number(run.config.get(key)) for key in ("seed", "trainer.epochs"))
    environment = read_object(run.folder / "environment.json", [])
    git = environment.get("git")
    return Evidence(
        command=command_of(run.overrides),
        kind=kind,
        seed=None if seed is None else int(seed),
        epochs=None if epochs is None else int(epochs),
        accuracy=accuracy,
        best=tested[place] if place < len(tested) else None,
        by=by,
        seconds=float(f"{statistics.median(s for s, _ in timed):.4g}") if timed else None,
        samples=_samples(timed[0][1]) if timed else None,
        machine=machine_of(run, environment),
        busy=busy,
        commit=told(git.get("commit"))[:12] if isinstance(git, dict) else None,
    )


def command_of(overrides: Iterable[str]) -> tuple[str, ...]:
    """The words that affect the result, ``experiment=`` first, ``estimator=`` second."""
    words = [word.lstrip("+") for word in overrides]
    kept = [word for word in words if is_parameter(key := key_of(word)) and key not in _RECORDING]
    kept = [word for word in kept if not key_of(word).startswith("device.") or "dtype" in word]
    first = ("experiment", "estimator")
    return tuple(sorted(kept, key=lambda word: [key_of(word) != key for key in first]))


def machine_of(run: Run, environment: dict[str, Any]) -> str:
    """The GPU, or the processor and how much of it; no name of a host."""
    hardware = environment.get("hardware")
    if not isinstance(hardware, dict):
        return "not known"
    gpus = [told(gpu.get("name")) for gpu in hardware.get("gpus") or () if isinstance(gpu, dict)]
    if gpus and run.config.get("device.type") != "cpu":
        index = run.config.get("device.index")
        return gpus[index] if isinstance(index, int) and index < len(gpus) else gpus[0]
    cores, threads = hardware.get("cores_logical"), run.config.get("device.threads")
    return f"{told(hardware.get('cpu'))}, {threads or cores} of {cores} cores"


def load(path: Path) -> list[Evidence]:
    """The record in a file, empty if there is none; UserError if it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["runs"]
        names = {part.name for part in fields(Evidence)}
        wrong = sorted({key for entry in found for key in entry} - names)
        if wrong:
            raise ValueError(f"unknown key {wrong[0]}")
        return [Evidence(**{**entry, "command": tuple(entry["command"])}) for entry in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{one_line(path)} is no record of results: {one_line(error)}") from error


def save(path: Path, record: Sequence[Evidence]) -> None:
    """Write a record, a line for each run; UserError if that fails."""
    defaults = asdict(Evidence(()))
    lines = []
    for entry in sorted(record, key=lambda e: (e.command, e.kind, e.machine, str(e.seed))):
        told = {k: v for k, v in asdict(entry).items() if k == "command" or v != defaults[k]}
        lines.append(json.dumps(told, ensure_ascii=False))
    text = '{"runs": [\n' + ",\n".join(lines) + "\n]}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {one_line(path)}: {error.strerror or error}") from error


def merged(record: Iterable[Evidence], new: Iterable[Evidence]) -> list[Evidence]:
    """A record with runs added: of two of one run the one with more epochs stays, else the new.

    What was only reported of a command and seed goes when as long a run of them is there.
    """
    found: dict[Any, Evidence] = {}
    for entry in (*record, *new):
        earlier = found.get(entry.identity)
        if earlier is None or entry.reached >= earlier.reached:
            found[entry.identity] = entry
    read: dict[Any, int] = {}
    for entry in found.values():
        if entry.kind == "run":
            of = entry.command, entry.seed
            read[of] = max(entry.reached, read.get(of, 0))
    return [
        entry
        for entry in found.values()
        if entry.kind != "reported" or entry.reached > read.get((entry.command, entry.seed), 0)
    ]


def _by_epoch(run: Run, split: str) -> list[float | None]:
    places, values = run.points(f"accuracy/{split}", "epoch")
    known = {int(p): v for p, v in zip(places, values, strict=True) if p >= 1 and v is not None}
    last = max(known, default=0)
    return [None if i not in known else round(known[i], 6) for i in range(1, last + 1)]


def _samples(row: dict[str, Any]) -> int | None:
    speed, seconds = number(row.get("throughput/examples_per_s")), number(row.get("time/train_s"))
    return None if speed is None or seconds is None else round(speed * seconds)
