"""Which GPUs the jobs of one machine divide among them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from eqprop.run.hardware import gpu_count
from eqprop.run.text import key_of

VISIBLE = "CUDA_VISIBLE_DEVICES"


def divided(device: str, jobs: int, words: Iterable[str]) -> tuple[str, ...]:
    """The GPUs of which each job is to see one, as ``CUDA_VISIBLE_DEVICES`` names them.

    None where there is nothing to divide, or where the person chose ``device.index``.

    Args:
        device: ``device.type``; auto, cpu or cuda.
        jobs: ``sweep.jobs``.
        words: the overrides that all jobs have, and the keys that vary.
    """
    if device == "cpu" or jobs == 1 or any(key_of(word) == "device.index" for word in words):
        return ()
    count = gpu_count()  # of those that are visible
    given = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    names = given[:count] if given else [str(number) for number in range(count)]
    return tuple(names) if len(names) > 1 else ()
