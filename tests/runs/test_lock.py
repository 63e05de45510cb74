"""Who owns a run's folder, and whether he lives."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest
from interrupted import with_code
from running import QUICK, python

from eqprop.run.errors import ConfigError
from eqprop.run.folder import RunFolder
from eqprop.run.lock import is_alive


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_a_folder_with_a_record_is_refused(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path / "run").finish("done")
    before = status(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"earlier run.*hydra\.run\.dir") as caught:
        RunFolder.claim(tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
    assert status(tmp_path / "run") == before


def test_a_folder_in_use_names_its_owner(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from eqprop.run.folder import RunFolder
        folder = RunFolder.claim(sys.argv[1])
        print("claimed", flush=True)
        sys.stdin.read()
        """
    with python(code, tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "claimed\n"
        with pytest.raises(ConfigError, match=rf"process {owner.pid} on .*hydra\.run\.dir"):
            RunFolder.claim(tmp_path)
        owner.kill()
    assert status(tmp_path)["state"] == "running"
    with pytest.raises(ConfigError, match="earlier run"):
        RunFolder.claim(tmp_path)


def test_of_processes_that_race_one_gets_the_folder(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from eqprop.run.errors import ConfigError
        from eqprop.run.folder import RunFolder
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            folder = RunFolder.claim(sys.argv[1])
            print("mine", flush=True)
        except ConfigError as error:
            print("refused", flush=True)
        sys.stdin.read()
        """
    racers = [python(code, tmp_path / "run") for _ in range(4)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = sorted(racer.stdout.readline().strip() for racer in racers)
    for racer in racers:
        racer.communicate()
    assert results == ["mine", "refused", "refused", "refused"]


@pytest.fixture(params=["ENOLCK", "ENOSYS", "ENOTSUP", "EINVAL", "EIO", "EBADF"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says of ``flock`` on one network file system or another."""

    def fail(*_: object) -> None:
        raise OSError(getattr(errno, request.param), "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)


@pytest.mark.usefixtures("no_locks")
def test_a_file_system_without_locks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        RunFolder.claim(tmp_path / "run").finish("done")
    (line,) = caplog.messages
    assert str(tmp_path / "run") in line
    assert "No locks available" in line
    with pytest.raises(ConfigError, match="earlier run"):
        RunFolder.claim(tmp_path / "run")


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_folder_in_use_names_its_owner(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path)
    path, found = tmp_path / "status.json", status(tmp_path)
    path.write_text(json.dumps({**found, "pid": os.getppid()}))
    with pytest.raises(ConfigError, match=f"in use by process {os.getppid()}"):
        RunFolder.claim(tmp_path, resume=True)
    # this process has the number of one that is gone, as in a container that was started again
    path.write_text(json.dumps(found))
    RunFolder.claim(tmp_path, resume=True).finish("done")


NO_LINKS = """
import errno, fcntl, os
def fail(*_, **__):
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
fcntl.flock = os.symlink = os.link = fail
"""


def test_a_sweep_on_a_file_system_without_locks_and_links(tmp_path: Path) -> None:
    """W&B and the sweep's record included."""
    sweep = ("-m", *QUICK[:3], "seed=1,2", "hydra.sweep.dir=s")
    ran = with_code(NO_LINKS, *sweep, cwd=tmp_path)
    assert ran.code == 0, ran.out + ran.err
    assert "no locks" in ran.out + ran.err
    assert [status(path.parent)["state"] for path in tmp_path.rglob("status.json")] == 2 * ["done"]
    assert "left out" not in "".join(p.read_text() for p in tmp_path.rglob("run.log"))
    again = with_code(NO_LINKS, *sweep, cwd=tmp_path)
    assert again.code == 0, again.out + again.err


def test_asking_does_not_disturb_a_run_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader holds the lock for a moment: the run waits for it."""
    import fcntl

    refused = [BlockingIOError(errno.EAGAIN, "held")] * 3
    flock = fcntl.flock

    def busy(*arguments: int) -> None:
        if refused:
            raise refused.pop()
        flock(*arguments)

    monkeypatch.setattr("fcntl.flock", busy)
    RunFolder.claim(tmp_path / "a").finish("done")


def test_asking_leaves_no_trace(tmp_path: Path) -> None:
    assert not is_alive(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_really_failed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system is not taken for another process, or for missing locks."""

    def fail(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("os.open", fail)
        with pytest.raises(ConfigError, match="Input/output error"):
            RunFolder.claim(tmp_path)
    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(ConfigError, match="Input/output error"):
        RunFolder.claim(tmp_path)


def test_the_owner_s_line_is_his_alone(tmp_path: Path) -> None:
    """Nothing of a longer line before it stays."""
    (tmp_path / ".lock").write_text("process 4194304 on " + "x" * 200)
    folder = RunFolder.claim(tmp_path)
    assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    folder.finish("done")


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({}, True),
        ({"pid": 4194305}, False),  # more than Linux counts to
        ({"host": "elsewhere"}, False),
        ({"state": "done"}, False),
        ({"pid": "1"}, False),
    ],
)
def test_where_there_are_no_locks_the_process_tells(
    changes: dict[str, object], alive: bool, tmp_path: Path
) -> None:
    RunFolder.claim(tmp_path)
    path = tmp_path / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert is_alive(tmp_path) is alive
