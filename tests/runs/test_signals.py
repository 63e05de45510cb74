"""The signals that end a run, in whole runs, and what becomes of handlers from before."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from interrupted import RUN, alone, before_step, killed, learnt, with_code
from running import QUICK, rows, status, train, untimed

from eqprop.run import checkpoint, signals
from eqprop.run.signals import Stop, Stopped, listening


@pytest.mark.parametrize(
    ("name", "code"),
    [("TERM", 143), ("INT", 130), ("USR2", 75), ("USR1", 138), ("HUP", 129), ("XCPU", 152)],
)
def test_it_saves_at_the_next_step_and_says_how_to_go_on(
    name: str, code: int, tmp_path: Path
) -> None:
    ran = killed(20, *RUN, "hydra.run.dir=a", cwd=tmp_path, name=name)
    assert ran.code == code
    assert ran.error.startswith(f"error: interrupted by SIG{name}; go on with: python ")
    assert ran.error.endswith("resume=a")
    found = status(tmp_path / "a")
    assert (found["state"], found["exit_code"]) == ("interrupted", code)
    assert found["reason"] == f"interrupted by SIG{name}"
    # with all of the step in which the signal came, and nothing of the next one
    assert checkpoint.read(tmp_path / "a" / "checkpoints" / "last.pt").meta["step"] == 20
    done = train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone())
    assert "epoch 1/3" not in done.out
    # it went on in the middle of the epoch
    assert [r["step"] for r in rows(tmp_path / "a") if "time/train_s" not in r][9:11] == [20, 22]


def test_a_second_ctrl_c_ends_at_once_with_the_old_checkpoint(tmp_path: Path) -> None:
    twice = "os.kill(os.getpid(), signal.SIGINT)\n" * 2
    ran = with_code(before_step(20, twice), *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 130
    assert status(tmp_path / "a")["state"] == "interrupted"
    assert checkpoint.read(tmp_path / "a" / "checkpoints" / "last.pt").meta["step"] == 13
    train("resume=a", cwd=tmp_path).succeeded()
    assert untimed(rows(tmp_path / "a")) == untimed(rows(alone()))


STAGES = {  # what is called there, and a signal
    "starting": ("eqprop.run.environment.describe", "HUP"),
    "importing": ("eqprop.cli.build.prepare_device", "USR1"),
    "reading the data": ("eqprop.data.Digits.read", "XCPU"),
    "compiling": ("eqprop.cli.build.build_solver", "TERM"),
    "opening the trackers": ("eqprop.tracking.LocalFiles.start", "INT"),
    "training": ("eqprop.training.step.PlainStep.__call__", "HUP"),
    "evaluating": ("eqprop.training.loop.evaluate", "USR1"),
    "closing the trackers": ("eqprop.tracking.LocalFiles.finish", "XCPU"),
    "recording the end": ("os.replace", "TERM"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_whenever_it_comes_the_end_is_recorded(stage: str, tmp_path: Path) -> None:
    """Also of a signal that comes once more while the run is ending."""
    called, name = STAGES[stage]
    owner, _, method = called.rpartition(".")
    number = getattr(signal, f"SIG{name}")
    again = "again()" if name != "INT" else "pass"
    code = (
        "import os, pydoc, signal\n"
        "import eqprop.cli.build\n"
        f"owner, sent = pydoc.locate({owner!r}), []\n"
        "def send():\n"
        f"    sent.append(0)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        f"def sending(*args, real=owner.{method}, **more):\n"
        "    ends = 'status.json' in str(args) and '\"running\"' not in open(args[0]).read()\n"
        f"    if {called != 'os.replace'} and not sent or ends:\n"
        "        send()\n"
        "    return real(*args, **more)\n"
        f"owner.{method} = sending\n"
        "from eqprop.run.folder import RunFolder\n"
        "def failing(*args, real=RunFolder._fail):\n"
        f"    {again.replace('again', 'send')}\n"
        "    return real(*args)\n"
        "RunFolder._fail = failing\n"
    )
    epochs = "trainer.epochs=2"  # what has nothing left to learn ends as usual
    ran = with_code(code, *QUICK, epochs, "hydra.run.dir=a", cwd=tmp_path)
    found = status(tmp_path / "a")
    assert ran.code == 128 + number
    if stage == "recording the end":
        assert found["state"] == "done"
        return
    assert (found["state"], found["exit_code"]) == ("interrupted", 128 + number)
    assert f"interrupted by SIG{name}" in ran.error
    if stage in ("starting", "evaluating"):
        train("resume=a", cwd=tmp_path).succeeded()
        assert status(tmp_path / "a")["state"] == "done"


def test_nohup_and_a_sweep(tmp_path: Path) -> None:
    """A hang-up that is ignored stays ignored; else the jobs of a sweep save and end with it."""
    sweep = "int(open('s/.lock').read().split()[1])"
    jobs = before_step(3, f"os.kill({sweep}, signal.SIGHUP)\ntime.sleep(1)")
    ignore = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    words = ("-m", *QUICK, "seed=1", "hydra.sweep.dir=s")
    stopped = with_code(jobs, *words, cwd=tmp_path)
    assert stopped.code == 129
    (folder,) = (path.parent for path in tmp_path.glob("s/*/status.json"))
    assert status(folder)["state"] == "interrupted"
    alone = before_step(3, "os.kill(os.getpid(), signal.SIGHUP)")
    with_code(ignore + alone, *QUICK, "hydra.run.dir=a", cwd=tmp_path).succeeded()


# the handlers


@pytest.fixture
def heard() -> Any:
    """Handlers of somebody else's, and what they have heard; put back afterwards."""
    numbers: list[int] = []
    before = {n: signal.signal(n, lambda n, _: numbers.append(n)) for n in signals.EXIT_CODES}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", list(signals.EXIT_CODES))
def test_handlers_from_before_are_called_on_and_put_back(heard: Any, number: int) -> None:
    theirs = {n: signal.getsignal(n) for n in signals.EXIT_CODES}
    went_on = False
    with pytest.raises(Stopped), listening() as stop, stop.deferred():  # noqa: PT012
        os.kill(os.getpid(), number)
        went_on = stop.requested == number and heard == []  # they wait until the run is saved
        stop.raise_if_requested()
    assert went_on
    assert heard == [number]
    assert {n: signal.getsignal(n) for n in signals.EXIT_CODES} == theirs


def test_without_a_handler_from_before() -> None:
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    with pytest.raises(Stopped) as error, listening():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert error.value.exit_code == 75
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_nothing_requested() -> None:
    Stop().raise_if_requested()


def test_in_another_thread_nobody_listens() -> None:
    import threading

    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def work() -> None:
        with listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_after_a_second_ctrl_c_a_third_needs_nobody_s_help() -> None:
    """Python is not asked any more: the kernel ends the process."""
    before = signal.getsignal(signal.SIGINT)
    with listening() as stop, stop.deferred(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == signal.SIGINT
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_after_another_signal_ends_at_once() -> None:
    with listening() as stop, stop.deferred(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # said twice, it means the same
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_second_ctrl_c_in_a_checkpoint_s_write(moment: str, tmp_path: Path) -> None:
    """Before the rename or between the two of them: what is there is whole, and is gone on with."""
    code = (
        "import os, signal\n"
        "from eqprop.run.signals import Stop\n"
        "init, stops, done = Stop.__init__, [], []\n"
        "def noting(self):\n"
        "    init(self)\n"
        "    stops.append(self)\n"
        "Stop.__init__ = noting\n"
        f"real = os.{moment}\n"
        "def interrupting(first, *rest):\n"
        "    at = str(rest[0]) if rest else os.readlink(f'/proc/self/fd/{first}')\n"
        "    if 'last.pt' in at and not done and any(stop.requested for stop in stops):\n"
        "        done.append(at)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(first, *rest)\n"
        f"os.{moment} = interrupting\n"
    )
    code += before_step(20, "os.kill(os.getpid(), signal.SIGINT)")
    ran = with_code(code, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 130
    files = tmp_path / "a" / "checkpoints"
    assert not list(files.glob("*.tmp"))
    kept = [path for path in files.glob("last*.pt") if checkpoint.read(path).meta["step"] == 13]
    assert kept
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone())
