"""Kills runs at random moments, resumes them, and compares what they learn with runs left alone.

    python scripts/torture.py --kills 50 --minutes 20

A kill is a SIGKILL: at a random time, in the middle of a checkpoint's write, before a flush to the
disk, before or after a rename, or in the middle of a line of the metrics. Exits 0 if every run
ended with the same bytes of weights, optimizer and random states and the same metrics (clocks left
out).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

TRAIN = str(Path(__file__).resolve().parent / "train.py")
RUNS = {
    "gaussian": ["model=gaussian"],
    "hopfield": ["model=hopfield"],
    "gaussian, compiled": ["model=gaussian", "device.compile=true"],
    "hopfield from N(0, 1), compiled": [
        *("model=hopfield", "dynamics=euler_50", "device.compile=true")
    ],
}
KINDS = ("time", "write", "fsync", "before rename", "after rename", "append")
COMMON = (
    *("dataset=mnist5k", "tracking=none", "trainer.epochs=4", "trainer.log_every=3"),
    *("checkpoint.every_steps=10", "checkpoint.share=1", "checkpoint.keep=2", "device=cpu"),
)


# ------------------------------------------------------------------ the child, which kills itself


def sabotage(kind: str, count: int) -> None:
    """Patch this process so that it kills itself at the ``count``-th event of this kind."""
    from eqprop.run import files
    from eqprop.tracking.local import LocalFiles

    left = count
    replace, fsync, log = os.replace, os.fsync, LocalFiles.log

    def due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killing_replace(source: Any, target: Any) -> None:
        now = ".pt" in str(target) and due()
        if now and kind == "before rename":
            die()
        replace(source, target)
        if now:
            die()

    class KillingFile(io.FileIO):
        def write(self, data: Any) -> int:
            if data[:17] == b"eqprop-checkpoint" and due():
                super().write(data[: len(data) * 2 // 3])
                die()
            return super().write(data)

    def killing_log(self: Any, row: Any) -> None:
        if due():
            self._rows.write(json.dumps(row)[:40])
            self._rows.flush()
            die()
        log(self, row)

    patches: dict[str, tuple[Any, str, Any]] = {
        "before rename": (os, "replace", killing_replace),
        "after rename": (os, "replace", killing_replace),
        "fsync": (os, "fsync", lambda descriptor: die() if due() else fsync(descriptor)),
        "write": (files, "open", KillingFile),
        "append": (LocalFiles, "log", killing_log),
    }
    setattr(*patches[kind])


# ------------------------------------------------------------------ the parent


def command(arguments: list[str], kind: str = "time", count: int = 0) -> list[str]:
    if kind == "time":
        return [sys.executable, TRAIN, *arguments]
    return [sys.executable, __file__, "--child", kind, str(count), *arguments]


def run(arguments: list[str], cwd: Path) -> float:
    """Run to the end and return the seconds; a run that fails ends the torture."""
    start = time.monotonic()
    done = subprocess.run(command(arguments), cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


def kill_once(
    arguments: list[str], cwd: Path, kind: str, seconds: float, chance: random.Random
) -> bool:
    """Start a run and let it be killed; returns whether it was, before it was done.

    ``seconds`` is how long it takes when it is left alone.
    """
    words = command(arguments, kind, chance.randint(1, 12))
    child = subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if kind == "time":
        try:
            child.wait(chance.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            child.kill()
    output, _ = child.communicate()
    if child.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{kind}: exited {child.returncode}:\n{output.decode()}")
    return child.returncode == -signal.SIGKILL


def outcome(folder: Path) -> dict[str, Any]:
    """What must be the same: bytes of both checkpoints, metrics without clocks, the objective."""
    from eqprop.run import checkpoint

    clocks = ("time/", "throughput/")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    checkpoints = folder / "checkpoints"
    files = {name: checkpoint.read(checkpoints / name) for name in ("last.pt", "best.pt")}
    return {
        "metrics": [{k: v for k, v in r.items() if not k.startswith(clocks)} for r in rows],
        "objective": json.loads((folder / "status.json").read_text())["objective"],
        "files": sorted(p.name for p in checkpoints.iterdir()),
        **{name: found.body for name, found in files.items()},
    }


class Torture:
    """Runs in ``cwd`` that are killed until ``kills`` were, or the time is over."""

    def __init__(self, cwd: Path, kills: int, minutes: float, chance: random.Random) -> None:
        self.cwd, self.kills, self.chance = cwd, kills, chance
        self.end = time.monotonic() + 60 * minutes
        self.wanted: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.done: Counter[str] = Counter()

    def leave_alone(self) -> None:
        """Each run once without a kill: what the others must end with."""
        for i, (name, words) in enumerate(RUNS.items()):
            folder = self.cwd / f"alone-{i}"
            self.seconds[name] = run([*words, *COMMON, f"hydra.run.dir={folder.name}"], self.cwd)
            self.wanted[name] = outcome(folder)
            objective = self.wanted[name]["objective"]
            print(f"{name}, left alone: {self.seconds[name]:.1f} s, objective {objective}")

    def kill_and_resume(self, number: int) -> bool:
        """One run, killed a few times and then ended; whether it ended as if left alone."""
        name = list(RUNS)[number % len(RUNS)]
        folder, inside = self.cwd / f"killed-{number}", list[str]()

        def words() -> list[str]:
            if (folder / "status.json").exists():
                return [f"resume={folder.name}"]
            return [*RUNS[name], *COMMON, f"hydra.run.dir={folder.name}"]

        aim = min(self.chance.randint(1, 4), self.kills - self.done.total())
        while len(inside) < aim:
            kind = KINDS[(self.done.total() + len(inside)) % len(KINDS)]
            if not kill_once(words(), self.cwd, kind, self.seconds[name], self.chance):
                break
            inside.append(kind)
        self.done.update(inside)
        run(words(), self.cwd)
        differs = [key for key, v in outcome(folder).items() if v != self.wanted[name][key]]
        verdict = f"DIFFERS in {', '.join(differs)}" if differs else "the same bytes"
        print(f"{folder.name} ({name}): {len(inside)} kills ({', '.join(inside)}): {verdict}")
        sys.stdout.flush()
        return not differs

    def run(self) -> int:
        """Returns the exit status."""
        self.leave_alone()
        same: list[bool] = []
        while self.done.total() < self.kills and time.monotonic() < self.end:
            same.append(self.kill_and_resume(len(same)))
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.done.items())
        print(f"{self.done.total()} kills in {len(same)} runs: {kinds}")
        print(f"{sum(same)} of {len(same)} runs ended with the same bytes as a run left alone")
        return 0 if all(same) and self.done.total() >= self.kills else 1


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        kind, count = sys.argv[2], int(sys.argv[3])
        sys.argv = [TRAIN, *sys.argv[4:]]
        sabotage(kind, count)
        from eqprop.cli.main import run as train

        train()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how many kills (50)")
    parser.add_argument("--minutes", type=float, default=30, help="when to give up (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--folder", type=Path, help="where the runs go (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eqprop-torture-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return Torture(folder, args.kills, args.minutes, random.Random(args.seed)).run()


if __name__ == "__main__":
    sys.exit(main())
