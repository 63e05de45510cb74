"""What the machine has, asked without importing torch."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache


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


def processors() -> int:
    """Return how many processors this process may use: torch's own count ignores its affinity."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def calm_idle_threads() -> None:
    """Let OpenMP's idle threads sleep after microseconds instead of milliseconds.

    Spinning they take half of the core that two hardware threads share, from the compiled loops
    and from whatever else runs. To be called before torch is loaded; a setting of the user's stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "2000"
