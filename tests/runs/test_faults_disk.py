"""Disks that fill, cannot be written or go away under a run: one line, and nothing lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from interrupted import RUN, alone, before_step, learnt, with_code
from running import QUICK, environment, status, train

from eqprop.run.errors import RunError
from eqprop.run.lock import is_alive
from eqprop.tracking import LocalFiles, RunInfo

Mount = Callable[[Path, str], None]


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


def test_a_disk_full_at_the_first_folder(tmp_path: Path) -> None:
    code = f"{limited(0)}from eqprop.cli.main import run\nrun()"
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
        "from eqprop.tracking import local\n"
        "log = local.LocalFiles.log\n"
        "def logging(self, row):\n"
        "    if row['step'] == 20:\n"
        "        self._rows.write('{\"step\": 2')\n"
        "        self._rows.close()\n"
        "        self._rows = open('/dev/full', 'w')\n"
        "    log(self, row)\n"
        "local.LocalFiles.log = logging\n",
        *command,
        cwd=tmp_path,
    )
    assert ran.code == 1
    assert "metrics.jsonl: No space left on device; free the disk" in ran.error
    assert status(tmp_path / "a")["reason"] in ran.error
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone())


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
        before_step(20, "import shutil\nshutil.rmtree('a')"),
        *(*RUN, "trainer.epochs=30", "hydra.run.dir=a"),
        cwd=tmp_path,
    )
    assert ran.code == 1
    assert "the run's folder is gone" in ran.error
    assert "epoch 3/30" not in ran.out  # found out at the next save
    assert not (tmp_path / "a").exists()


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    train(*RUN, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    left = tmp_path / "a" / "checkpoints" / ".last.pt.1-abc.tmp"
    left.write_bytes(b"half")
    train("resume=a", "trainer.epochs=4", cwd=tmp_path).succeeded()
    assert not left.exists()


def test_a_disk_full_at_the_traceback(tmp_path: Path) -> None:
    """An error that nobody foresaw is still one line."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "traceback.txt").symlink_to("/dev/full")
    raising = before_step(5, "raise RuntimeError('on purpose')")
    ran = with_code(raising, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 1
    assert ran.error.startswith("error: RuntimeError: on purpose (HYDRA_FULL_ERROR=1")
    assert status(tmp_path / "a")["state"] == "failed"


@pytest.mark.parametrize("size", [4, 12, 20, 28, 36, 44, 60, 80])
def test_a_disk_of_any_size(size: int, tmp_path: Path, mount: Mount) -> None:
    """Wherever it fills: one line, an exit status that says so, no traceback, no half of a file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, f"size={size}k")
    ran = train(*RUN, "checkpoint.keep=2", "hydra.run.dir=a", cwd=disk)
    assert ran.code in (1, 2)
    assert "No space left on device" in ran.error
    assert "HYDRA_FULL_ERROR" not in ran.error
    assert not list(disk.rglob("*.tmp"))
    if (disk / "a" / "status.json").exists():
        assert status(disk / "a")["state"] in ("failed", "running")
        assert not is_alive(disk / "a")


def test_a_row_that_cannot_be_written_ends_the_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    tracker = LocalFiles()
    tracker.start(RunInfo("id", "name", "project", tmp_path, tmp_path))
    with pytest.raises(RunError, match=r"metrics.jsonl: No space left on device; free the disk"):
        tracker.log({"step": 1, "epoch": 1})
    with pytest.raises(RunError, match="No space left"):  # it tries to write what is left
        tracker.finish({}, "failed")
