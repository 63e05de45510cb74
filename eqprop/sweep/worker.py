"""What a worker of any launcher does: run one job in a process of the job's own, and wait for it.

So whatever the job does to itself, the worker is there to tell.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from eqprop.sweep import marks
from eqprop.sweep.handles import Adopted, Ended, is_running, not_started
from eqprop.sweep.job import Outcome
from eqprop.sweep.order import Order
from eqprop.sweep.outcome import STOPPED
from eqprop.sweep.process import JobProcess

PAUSE = 0.1  # seconds between two looks at the job


def take_up(order: Order) -> JobProcess | Adopted | Ended:
    """Start a job, or take over the process of it that still runs."""
    try:
        return Adopted(order) if is_running(order.job) else JobProcess(order)
    except BlockingIOError:
        return Adopted(order)
    except OSError as error:
        return not_started(order.job, error.strerror or error)


def work(order: Order, preempted: Sequence[int] = ()) -> Outcome:
    """Run a job to its end, within its limits, and return how it ended.

    Args:
        order: the job.
        preempted: no longer empty once the worker has to make room.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked in pools, wanted in jobs
    job = order.job
    if marks.is_asked_to_stop(job.folder):
        return Outcome(job, "interrupted", None, STOPPED, None, 0.0)
    handle = take_up(order)
    if isinstance(handle, Ended):
        return handle.poll()
    while (outcome := handle.poll()) is None:
        if preempted:
            handle.preempt()
        elif marks.is_asked_to_stop(job.folder):
            handle.stop()
        time.sleep(PAUSE)
    return outcome
