"""Disks, networks, streams and memory that fail under a run: one clear line, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, SCRIPT, Ran, environment, rows, status, train, untimed
from test_resume import RUN, learnt

from eqprop.record import RunFolder, is_alive

Mount = Callable[[Path, str], None]


def with_code(code: str, *arguments: str, cwd: Path, env: Any = None) -> Ran:
    """A run of the program after some code of the test's."""
    script = cwd.parent / f"{cwd.name}-script.py"
    script.write_text(f"{code}\nfrom eqprop.cli import run\nrun()\n")
    return train(*arguments, cwd=cwd, script=script, env=env)


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A tmpfs with these options at this folder, where the machine allows it."""
    mounted: list[Path] = []

    def make(path: Path, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount a tmpfs")
        mounted.append(path)

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def limited(size: int) -> str:
    return f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"


# disks


def test_a_disk_full_at_the_first_folder(tmp_path: Path) -> None:
    code = f"{limited(0)}from eqprop.cli import run\nrun()"
    done = subprocess.run(  # through pipes, which have no limit
        [sys.executable, "-c", code, *QUICK],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "cannot write the run's folder" in line
    assert "File too large" in line


def test_a_disk_full_at_a_checkpoint(tmp_path: Path) -> None:
    """What fits is kept; what does not is one line, and the run can be resumed."""
    command = (*RUN, "model.hidden=[1000]", "hydra.run.dir=a")
    ran = with_code(limited(100_000), *command, cwd=tmp_path)
    assert ran.code == 1
    assert "cannot save to" in ran.error
    assert "File too large; what was saved before is still there" in ran.error
    assert ran.out.count("warning") == 1
    assert status(tmp_path / "a")["state"] == "failed"
    assert not list((tmp_path / "a").rglob("*.tmp"))
    train("resume=a", cwd=tmp_path).succeeded()
    train(*command[:-1], "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(tmp_path / "alone")


def test_a_disk_full_at_the_metrics(tmp_path: Path) -> None:
    command = (*RUN, "hydra.run.dir=a")
    ran = with_code(
        # the file that a row is written to is full for a while
        "from eqprop.tracking import jsonl\n"
        "log = jsonl.JsonlTracker.log\n"
        "def logging(self, row):\n"
        "    if row['step'] == 20:\n"
        "        self._file.write('{\"step\": 2')\n"
        "        self._file.close()\n"
        "        self._file = open('/dev/full', 'w')\n"
        "    log(self, row)\n"
        "jsonl.JsonlTracker.log = logging\n",
        *command,
        cwd=tmp_path,
    )
    assert ran.code == 1
    assert "metrics.jsonl: No space left on device; free the disk" in ran.error
    assert status(tmp_path / "a")["reason"] in ran.error
    train("resume=a", cwd=tmp_path).succeeded()
    train(*RUN, "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(tmp_path / "alone")


def test_a_disk_full_at_the_log(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.log").symlink_to("/dev/full")
    ran = train(*RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    warnings = [line for line in ran.out.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "run.log: No space left on device; the log ends here, the run goes on" in warnings[0]
    assert "epoch 3/3" in ran.out


def test_a_disk_that_fills_up_and_is_freed(tmp_path: Path, mount: Mount) -> None:
    """Everything on one small disk: the run ends with a line, and resumes to the same bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, "size=400k")
    command = (*RUN, "model.hidden=[200]", "checkpoint.keep=3", "hydra.run.dir=a")
    ran = train(*command, cwd=disk)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "No space left on device" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not is_alive(disk / "a")
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
    train("resume=a", cwd=disk).succeeded()
    train(*command[:-1], "hydra.run.dir=alone", cwd=disk).succeeded()
    assert learnt(disk / "a") == learnt(disk / "alone")


def test_a_disk_full_under_the_tracker(tmp_path: Path, mount: Mount) -> None:
    wandb = tmp_path / "outputs" / "wandb"
    wandb.mkdir(parents=True)
    mount(wandb, "size=4k")
    (wandb / "fill").write_bytes(b"x" * 4096)
    ran = train(*QUICK[:3], "trainer.log_every=1", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert len([line for line in ran.out.splitlines() if "warning" in line]) <= 1
    assert ran.status["state"] == "done"
    assert len(ran.rows) == 14


def test_a_read_only_output_folder(tmp_path: Path, mount: Mount) -> None:
    disk = tmp_path / "outputs"
    disk.mkdir()
    mount(disk, "ro,size=1m")
    ran = train(*QUICK, cwd=tmp_path)
    assert ran.code == 2
    assert "Read-only file system; set hydra.run.dir or paths.outputs" in ran.error


def test_a_read_only_data_folder_works(tmp_path: Path, mount: Mount, shared_data: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    mount(data, "size=100m")
    shutil.copytree(shared_data / "MNIST", data / "MNIST")
    subprocess.run(["mount", "-o", "remount,ro", str(data)], check=True)
    train(*QUICK[1:], "dataset=mnist", "dataset.limit=200", cwd=tmp_path).succeeded()


def test_a_folder_removed_during_the_run(tmp_path: Path) -> None:
    ran = with_code(
        "import shutil\n"
        "from eqprop.training import Training\n"
        "update = Training.update\n"
        "def removing(self, *args):\n"
        "    if self.step == 20:\n"
        "        shutil.rmtree('a')\n"
        "    return update(self, *args)\n"
        "Training.update = removing\n",
        *(*RUN, "trainer.epochs=30", "hydra.run.dir=a"),
        cwd=tmp_path,
    )
    assert ran.code == 1
    assert "the run's folder is gone" in ran.error
    assert "epoch 3/30" not in ran.out  # found out at the next save
    assert not (tmp_path / "a").exists()


# owners


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    train(*RUN, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    folder = RunFolder.claim(tmp_path / "a", resume=True)
    try:
        assert is_alive(tmp_path / "a")
        before = status(tmp_path / "a")
        for command in (["resume=a"], ["resume=auto", *RUN[:2], *RUN[3:], "hydra.run.dir=a"]):
            ran = train(*command, "trainer.epochs=9", cwd=tmp_path)
            assert ran.code == 2
            owner = f"is in use by process {os.getpid()} on {socket.gethostname()}"
            assert owner in ran.error
        assert status(tmp_path / "a") == before
    finally:
        folder.finish("interrupted")
    assert not is_alive(tmp_path / "a")


def test_a_dead_run_is_told_from_a_living_one(tmp_path: Path) -> None:
    script = tmp_path / "dead.py"
    script.write_text(
        "import os, signal, sys\n"
        "from eqprop.training import Training\n"
        "def dying(self):\n"
        "    from eqprop.record import is_alive\n"
        "    assert is_alive('a')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Training.fit = dying\n"
        "from eqprop.cli import run\n"
        "run()\n"
    )
    assert train(*QUICK, "hydra.run.dir=a", cwd=tmp_path, script=script).code == -signal.SIGKILL
    assert status(tmp_path / "a")["state"] == "running"
    assert not is_alive(tmp_path / "a")
    assert not is_alive(tmp_path)


def test_asking_does_not_disturb_a_run_that_starts(tmp_path: Path) -> None:
    """A reader holds the lock for a moment: the run waits for it."""
    import fcntl
    import threading

    (tmp_path / "a").mkdir()
    with open(tmp_path / "a" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.03, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        RunFolder.claim(tmp_path / "a").finish("done")


# time


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    jump = (
        "import time\n"
        "from eqprop.training import Training\n"
        "update, real = Training.update, time.time\n"
        "def jumping(self, *args):\n"
        "    time.time = lambda: real() - 1e7 * (self.step % 3)\n"
        "    return update(self, *args)\n"
        "Training.update = jumping\n"
    )
    ran = with_code(jump, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    train(*RUN, "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    assert untimed(rows(tmp_path / "a")) == untimed(rows(tmp_path / "alone"))
    assert all(0 < r["time/train_s"] < 60 for r in rows(tmp_path / "a") if "time/train_s" in r)


# the network


def test_wandb_online_with_a_key_and_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        env = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
        start = time.monotonic()
        ran = train(*QUICK[:3], "tracking=wandb_online", cwd=tmp_path, env=env)
        seconds = time.monotonic() - start
    assert ran.code == 0
    assert seconds < 60
    warnings = [line for line in ran.out.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "this run is recorded offline" in warnings[0]
    assert "does not answer within 5 s" in warnings[0]
    assert ran.status["state"] == "done"
    assert list((tmp_path / "outputs" / "wandb").glob("offline-run-*"))


def test_wandb_s_service_killed_in_the_middle(tmp_path: Path) -> None:
    killing = (
        "import os, psutil\n"
        "from eqprop.training import Training\n"
        "update = Training.update\n"
        "def kill(self, *args):\n"
        "    if self.step == 8:\n"
        "        for child in psutil.Process().children(recursive=True):\n"
        "            child.kill()\n"
        "    return update(self, *args)\n"
        "Training.update = kill\n"
    )
    ran = with_code(killing, *QUICK[:3], "trainer.log_every=1", cwd=tmp_path)
    assert ran.code == 0
    assert "Traceback" not in ran.out + ran.err
    assert len([line for line in ran.out.splitlines() if "warning" in line]) == 1
    assert (ran.status["state"], len(ran.rows)) == ("done", 14)


# streams and surroundings


def shell(command: str, cwd: Path, **env: str | None) -> subprocess.CompletedProcess[str]:
    line = command.replace("TRAIN", f"{sys.executable} -W error {SCRIPT} {' '.join(RUN)}")
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "command",
    [
        "TRAIN hydra.run.dir=a <&- >&- 2>&-",
        "TRAIN hydra.run.dir=a <&- >&-",
        "TRAIN hydra.run.dir=a > /dev/full",
        "TRAIN hydra.run.dir=a | head -n 1 > head; exit ${PIPESTATUS[0]}",
        "TRAIN hydra.run.dir=a | true; exit ${PIPESTATUS[0]}",
    ],
)
def test_streams_that_are_closed(command: str, tmp_path: Path) -> None:
    done = shell(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert status(tmp_path / "a")["state"] == "done"
    log = (tmp_path / "a" / "run.log").read_text()
    assert "epoch 3/3" in log
    json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])


def test_without_a_home_and_in_the_plainest_locale(tmp_path: Path) -> None:
    env = {"HOME": None, "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = train(*RUN, "name='é'", cwd=tmp_path, env=env, cold=True)
    assert (ran.code, ran.err) == (0, "")
    assert ran.status["state"] == "done"


def test_out_of_memory(tmp_path: Path) -> None:
    ran = train(*QUICK, "model.hidden=[1000000000,1000000000]", cwd=tmp_path)
    assert ran.code == 1
    assert ran.error.startswith("error: out of memory (")
    assert "lower dataset.batch_size" in ran.error
    assert ran.status["state"] == "failed"
    assert not (ran.folder / "checkpoints" / "last.pt").exists()


def test_out_of_address_space_in_the_middle(tmp_path: Path) -> None:
    eating = (
        "from eqprop.training import Training\n"
        "update = Training.update\n"
        "def eat(self, *args):\n"
        "    if self.step == 20:\n"
        "        bytearray(1 << 62)\n"
        "    return update(self, *args)\n"
        "Training.update = eat\n"
    )
    ran = with_code(eating, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 1
    assert "out of memory" in ran.error
    train("resume=a", cwd=tmp_path).succeeded()


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    train(*RUN, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    left = tmp_path / "a" / "checkpoints" / ".last.pt.1-abc.tmp"
    left.write_bytes(b"half")
    train("resume=a", "trainer.epochs=4", cwd=tmp_path).succeeded()
    assert not left.exists()
