"""SIGTERM, SIGINT and SIGUSR2 in whole runs, and what becomes of handlers from before."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, rows, status, train, untimed
from test_resume import RUN, killed, learnt

from eqprop import signals
from eqprop.signals import Stop, Stopped, listening


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130), ("USR2", 75)])
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
    done = train("resume=a", cwd=tmp_path).succeeded()
    train(*RUN, "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(tmp_path / "alone")
    assert "epoch 1/3" not in done.out
    # it went on in the middle of the epoch
    assert [r["step"] for r in rows(tmp_path / "a") if "time/train_s" not in r][9:11] == [20, 22]


def test_a_second_ctrl_c_ends_at_once_with_the_old_checkpoint(tmp_path: Path) -> None:
    script = tmp_path / "twice.py"
    script.write_text(
        "import os, signal, sys\n"
        "from eqprop.training import Training\n"
        "update = Training.update\n"
        "def killing(self, *args):\n"
        "    if self.step == 20:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return update(self, *args)\n"
        "Training.update = killing\n"
        "from eqprop.cli import run\n"
        "run()\n"
    )
    ran = train(*RUN, "hydra.run.dir=a", cwd=tmp_path, script=script)
    assert ran.code == 130
    assert status(tmp_path / "a")["state"] == "interrupted"
    from eqprop import checkpoint

    assert checkpoint.read(tmp_path / "a" / "checkpoints" / "last.pt").meta["step"] == 13
    train("resume=a", cwd=tmp_path).succeeded()
    train(*RUN, "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    assert untimed(rows(tmp_path / "a")) == untimed(rows(tmp_path / "alone"))


def test_a_signal_before_the_first_step(tmp_path: Path) -> None:
    script = tmp_path / "early.py"
    script.write_text(
        "import os, signal\n"
        "from eqprop import assembly\n"
        "def build(*args):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    raise AssertionError('not reached')\n"
        "assembly.build_training = build\n"
        "from eqprop.cli import run\n"
        "run()\n"
    )
    ran = train(*QUICK, "hydra.run.dir=a", cwd=tmp_path, script=script)
    assert ran.code == 143
    assert status(tmp_path / "a")["state"] == "interrupted"
    train("resume=a", cwd=tmp_path).succeeded()
    assert status(tmp_path / "a")["state"] == "done"


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
