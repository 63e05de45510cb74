"""Processes for benchmark.py: one case alone (peak memory, first step), or any command.

Started with a JSON object as its argument, it measures that case and prints a JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqprop.run.errors import UserError

if TYPE_CHECKING:
    from _cases import Place, Point

LATER = 10  # steps after the first


def in_child(
    case: str, point: Point, place: Place, extra: tuple[str, ...] = (), cold: bool = False
) -> dict[str, Any]:
    """What ``measure`` gives for a case, measured in a fresh process; ``error`` where it failed.

    With ``cold`` it finds no loop that was compiled before.
    """
    request = {"case": case, "point": asdict(point), "place": asdict(place), "extra": extra}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "NUMBA_CACHE_DIR": folder} if cold else None
        done = _python([__file__, json.dumps(request)], env)
    if done.returncode:
        return {"error": f"exit status {done.returncode}: {_last_line(done)[:300]}"}
    return json.loads(done.stdout.splitlines()[-1])


def command(arguments: Sequence[str], expected: int) -> Callable[[], None]:
    """What runs Python with these arguments and raises UserError at another exit status."""

    def run() -> None:
        done = _python(arguments)
        if done.returncode != expected:
            status = f"exit status {done.returncode}: {_last_line(done)}"
            raise UserError(f"python {' '.join(arguments)}: {status}")

    return run


def _python(
    arguments: Sequence[str], env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["no message"])[-1]


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Seconds to build, of the first step and of later ones; bytes at the peak and before."""
    from _cases import EP, Place, Point, backprop_step
    from _timing import device_wait

    point = Point(**request["point"])
    place = Place(**{**request["place"], "extra": tuple(request["place"]["extra"])})
    wait = device_wait(place.device)
    # imports what torch puts off; loops too, unless the start is what is asked for
    given = ["device.compile=false"] if request["extra"] else []
    EP("gaussian euler", Point(1, 1, 1), place, extra=given).step()
    before = _restart_peak(place.device)
    start = time.perf_counter()
    if request["case"] == "backprop":
        step = backprop_step(point, place)
    else:
        step = EP(request["case"], point, place, extra=request["extra"]).step
    assembled = time.perf_counter() - start
    seconds = [_seconds(step, wait) for _ in range(1 + LATER)]
    peak = _peak(place.device)
    return {
        "assemble_s": assembled,
        "first_step_s": seconds[0],
        "later_step_s": statistics.median(seconds[1:]),
        "peak_bytes": peak,
        "added_bytes": peak - before,
    }


def _seconds(step: Callable[[], object], wait: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - start


def _restart_peak(device: str) -> int:
    """Bytes in use now, from where the peak is counted on."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    import psutil

    with contextlib.suppress(OSError):  # Linux only; elsewhere the imports' own peak stays
        Path("/proc/self/clear_refs").write_text("5")
    return int(psutil.Process().memory_info().rss)


def _peak(device: str) -> int:
    """Bytes at the peak of this process, or allocated on the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
