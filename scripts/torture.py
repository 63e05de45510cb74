"""Kills runs at random moments, resumes them, and compares what they learn with runs left alone.

    python scripts/torture.py --kills 50 --minutes 20

A kill is a SIGKILL: at a random time, in the middle of a checkpoint's write, before a flush to the
disk, before or after a rename, or in the middle of a line of the metrics. Exits 0 if every run
ended with the same bytes of weights, optimizer and random states and the same metrics (clocks left
out).
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).resolve().parents[1]
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
    left = count

    def due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if kind in ("before rename", "after rename"):
        replace = os.replace

        def killing_replace(source: Any, target: Any) -> None:
            now = ".pt" in str(target) and due()
            if now and kind == "before rename":
                die()
            replace(source, target)
            if now:
                die()

        os.replace = killing_replace  # type: ignore[assignment]
    elif kind == "fsync":
        fsync = os.fsync
        os.fsync = lambda descriptor: die() if due() else fsync(descriptor)  # type: ignore
    elif kind == "write":
        import eqprop.run.files

        eqprop.run.files.open = lambda *a, **k: _Torn(open(*a, **k), due, die)  # type: ignore  # noqa: SIM115
    elif kind == "append":
        from eqprop.tracking.jsonl import JsonlTracker

        log = JsonlTracker.log

        def killing_log(self: JsonlTracker, row: Any) -> None:
            if due():
                assert self._file is not None
                self._file.write(json.dumps(row)[:40])
                self._file.flush()
                die()
            log(self, row)

        JsonlTracker.log = killing_log  # type: ignore[method-assign]


class _Torn:
    def __init__(self, file: Any, due: Any, die: Any) -> None:
        self._file, self._due, self._die = file, due, die

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> None:
        if b"eqprop-checkpoint" in data[:17] and self._due():
            self._file.write(data[: len(data) * 2 // 3])
            self._file.flush()
            self._die()
        self._file.write(data)


# ------------------------------------------------------------------ the parent


def command(arguments: list[str], kind: str | None = None, count: int = 0) -> list[str]:
    if kind is None or kind == "time":
        return [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
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
    count = chance.randint(1, 12)
    child = subprocess.Popen(
        command(arguments, kind, count), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
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
        "leftovers": [p.name for p in checkpoints.iterdir() if ".tmp" in p.name],
        "files": sorted(p.name for p in checkpoints.iterdir()),
        **{name: found.body for name, found in files.items()},
    }


def torture(cwd: Path, kills: int, minutes: float, chance: random.Random) -> int:
    end = time.monotonic() + 60 * minutes
    wanted: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, words in RUNS.items():
        folder = cwd / f"alone-{len(wanted)}"
        seconds[name] = run([*words, *COMMON, f"hydra.run.dir={folder.name}"], cwd)
        wanted[name] = outcome(folder)
        print(f"{name}, left alone: {seconds[name]:.1f} s, objective {wanted[name]['objective']}")
    done: Counter[str] = Counter()
    number, wrong = 0, 0
    while done.total() < kills and time.monotonic() < end:
        name = list(RUNS)[number % len(RUNS)]
        folder = cwd / f"killed-{number}"
        number += 1
        inside: list[str] = []
        aim = min(chance.randint(1, 4), kills - done.total())
        start = [*RUNS[name], *COMMON, f"hydra.run.dir={folder.name}"]
        while len(inside) < aim:
            kind = KINDS[(done.total() + len(inside)) % len(KINDS)]
            resume = [f"resume={folder.name}"] if (folder / "status.json").exists() else start
            if not kill_once(resume, cwd, kind, seconds[name], chance):
                break
            inside.append(kind)
        done.update(inside)
        if (folder / "status.json").exists():
            run([f"resume={folder.name}"], cwd)
        else:
            run(start, cwd)
        differs = [key for key, value in outcome(folder).items() if value != wanted[name][key]]
        wrong += bool(differs)
        verdict = f"DIFFERS in {', '.join(differs)}" if differs else "the same bytes"
        print(f"{folder.name} ({name}): {len(inside)} kills ({', '.join(inside)}): {verdict}")
        sys.stdout.flush()
    kinds = ", ".join(f"{n} {kind}" for kind, n in done.items())
    print(f"{done.total()} kills in {number} runs: {kinds}")
    print(f"{number - wrong} of {number} runs ended with the same bytes as a run left alone")
    return 1 if wrong or done.total() < kills else 0


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        kind, count = sys.argv[2], int(sys.argv[3])
        sys.argv = [str(ROOT / "scripts" / "train.py"), *sys.argv[4:]]
        sabotage(kind, count)
        from eqprop.cli.main import run as train

        train()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how many kills (50)")
    parser.add_argument("--minutes", type=float, default=30, help="when to give up (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--folder", type=Path, help="where the runs go (a temporary folder)")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        return torture(arguments.folder, arguments.kills, arguments.minutes, chance)
    with tempfile.TemporaryDirectory(prefix="eqprop-torture-") as folder:
        return torture(Path(folder), arguments.kills, arguments.minutes, chance)


if __name__ == "__main__":
    sys.exit(main())
