"""What the machine has, asked without importing torch."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def gpu_count() -> int:
    """Return how many NVIDIA GPUs the driver shows to this process; 0 without GPU or driver.

    The driver is asked because importing torch would cost a second or two. It counts as torch
    does: only what ``CUDA_VISIBLE_DEVICES`` leaves visible.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return 0 if failed else count.value


def processors(root: Path = Path("/")) -> int:
    """Return how many processors this process may use, by its affinity and a container's quota.

    Torch's own count knows neither. A quota of 1.5 processors counts as one: two threads would
    wait for each other. ``root`` is where ``proc`` and ``sys`` lie.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.floor(min([count, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the processors that each control group around this process, v1 or v2, may use."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            names = [controllers, "cpu"] if controllers else ["", "unified"]
            for mount in (root / "sys/fs/cgroup" / name for name in names):
                # in a container the path may be the host's, and its own group is the mount
                for group in {mount, *_upwards(mount, path)}:
                    yield from _quota(group)


def _upwards(mount: Path, path: str) -> list[Path]:
    inside = Path(path.lstrip("/"))
    return [mount / part for part in (inside, *inside.parents) if ".." not in part.parts]


def _quota(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ArithmeticError):  # no such file, or "max"
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ArithmeticError):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota_us, period_us = (int((group / name).read_text()) for name in names)
        if quota_us > 0:  # -1: none
            yield quota_us / period_us


def can_start(count: int) -> bool:
    """Whether so many threads can run side by side, this one included."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(count - 1)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        return False
    finally:
        end.set()
    return True


def calm_idle_threads() -> None:
    """Let OpenMP's idle threads sleep after microseconds, and OpenBLAS have no more than it may.

    Spinning they take half of the core that two hardware threads share, from the compiled loops
    and from whatever else runs. To be called before torch is loaded; a setting of the user's stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "2000"
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        # numpy's would take all processors, and interrupts the process where it gets no thread
        count = processors()
        os.environ["OPENBLAS_NUM_THREADS"] = str(count if can_start(count) else 1)
