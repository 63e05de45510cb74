"""Trackers: what was logged is read back, and a tracker that fails costs one warning."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqprop.errors import RunError
from eqprop.tracking import JsonlTracker, RunInfo, Tracker, Trackers, WandbTracker
from eqprop.tracking import wandb as wandb_module
from eqprop.tracking.connection import answers, why_offline

PACKAGE = Path(__file__).parents[1]
ROWS = [
    {"step": 0, "epoch": 0, "cost/free": 2.5, "accuracy/train": 0.25},
    {"step": 1, "epoch": 0, "cost/free": 1.5, "accuracy/train": 0.5},
    {"step": 1, "epoch": 1, "accuracy/validation": 0.75, "time/train_s": 2.0},
]


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    folder = tmp_path / "outputs" / "2026-01-02" / "run"
    folder.mkdir(parents=True)
    return RunInfo(
        id="2026-01-02_03-04-05-gaussian_lr=0.001",
        name="gaussian, lr 0.001",
        project="eqprop",
        folder=folder,
        outputs=tmp_path / "outputs",
        group="sweep 1",
        tags=("baseline", "two"),
        notes="a note",
        config={"model": {"hidden": [100, 50]}, "optimizer": {"lr": 0.001}, "name": None},
    )


@pytest.fixture
def wandb() -> Iterator[Any]:
    """W&B's module; its service process ends with the test."""
    module = pytest.importorskip("wandb")
    yield module
    module.teardown()


class Recorder(Tracker):
    """Keeps the calls; fails in the method ``bad``."""

    def __init__(self, bad: str = "", error: BaseException | None = None) -> None:
        self.bad, self.error = bad, error or OSError("disk\nfull")
        self.calls: list[tuple] = []

    def _note(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name == self.bad:
            raise self.error

    def start(self, run: RunInfo) -> None:
        self._note("start", run)

    def log(self, row: Mapping[str, float | int]) -> None:
        self._note("log", dict(row))

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        self._note("finish", dict(summary), state)

    def abandon(self) -> None:
        self._note("abandon")

    def location(self) -> str | None:
        return f"look at {self.bad or 'me'}"


def drive(tracker: Tracker, run: RunInfo, state: Any = "done") -> None:
    tracker.start(run)
    for row in ROWS:
        tracker.log(row)
    tracker.finish({"best/accuracy/validation": 0.75}, state)


# the fan-out


def test_every_tracker_gets_every_call(run: RunInfo) -> None:
    first, second = Recorder(), Recorder()
    drive(Trackers([first, second]), run)
    assert first.calls == second.calls
    assert [call[0] for call in first.calls] == ["start", "log", "log", "log", "finish"]
    assert first.calls[-1] == ("finish", {"best/accuracy/validation": 0.75}, "done")


@pytest.mark.parametrize("bad", ["start", "log", "finish"])
def test_a_failing_tracker_costs_one_warning(
    run: RunInfo, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, failing = Recorder(), Recorder(bad)
    trackers = Trackers([failing, good])
    drive(trackers, run)
    assert len(good.calls) == 5
    assert [call[0] for call in failing.calls].count(bad) == 1
    assert failing.calls[-1] == ("abandon",)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    assert "disk full" in record.getMessage()
    assert trackers.locations() == ["look at me"]


def test_failing_to_let_go_changes_nothing(run: RunInfo) -> None:
    failing = Recorder("abandon")
    trackers = Trackers([failing])
    trackers.abandon()
    assert trackers.active == []
    assert trackers.location() is None


def test_ctrl_c_is_not_a_failing_tracker(run: RunInfo) -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(Trackers([Recorder("log", KeyboardInterrupt())]), run)


# the metrics file


def test_jsonl_is_what_was_logged(run: RunInfo) -> None:
    tracker = JsonlTracker()
    drive(tracker, run)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert tracker.location() == str(run.folder / "metrics.jsonl")


def test_jsonl_is_flushed_row_by_row(run: RunInfo) -> None:
    tracker = JsonlTracker()
    tracker.start(run)
    for n, row in enumerate(ROWS, 1):
        tracker.log(row)
        assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == n
    tracker.finish({}, "done")


def test_jsonl_is_strict_json(run: RunInfo) -> None:
    tracker = JsonlTracker()
    tracker.start(run)
    tracker.log({"step": np.int64(3), "a": float("nan"), "b": -float("inf"), "c": np.float32(0.5)})
    tracker.finish({}, "done")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = (run.folder / "metrics.jsonl").read_text()
    found = json.loads(line, parse_constant=refuse)
    assert found == {"step": 3, "a": None, "b": None, "c": 0.5}


def test_jsonl_that_cannot_be_written_ends_the_run(run: RunInfo) -> None:
    (run.folder / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl"):
        drive(Trackers([JsonlTracker()]), run)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_jsonl_on_a_full_disk_ends_the_run(run: RunInfo) -> None:
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    tracker = JsonlTracker()
    with pytest.raises(RunError, match="No space left"):
        drive(Trackers([tracker]), run)
    with contextlib.suppress(RunError):
        tracker.abandon()


# W&B, offline


def recorded(outputs: Path, run_id: str) -> Path:
    (file,) = (outputs / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")
    return file


def inspect(file: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def summary_of(file: Path) -> dict[str, Any]:
    return json.loads(inspect(file, "--summary"))


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(file).splitlines()]


def test_wandb_records_the_whole_run(run: RunInfo, wandb: Any) -> None:
    tracker = WandbTracker()
    tracker.start(run)
    for row in ROWS:
        tracker.log(row)
    # the last row's value is still pending when the summary overrides it
    tracker.finish({"best/accuracy/validation": 0.9, "accuracy/validation": 0.8}, "done")
    file = recorded(run.outputs, run.id)
    found = summary_of(file)
    assert found["config"] == run.config
    assert found["tags"] == ["baseline", "two"]
    assert (found["name"], found["notes"]) == (run.name, "a note")
    assert (found["project"], found["run_id"]) == ("eqprop", run.id)
    assert (found["state"], found["exit_code"]) == ("finished", 0)
    assert found["summary"]["best/accuracy/validation"] == 0.9
    assert found["summary"]["accuracy/validation"] == 0.8
    everything = records(file)
    (header,) = (r["run"] for r in everything if r["type"] == "run")
    assert header["run_group"] == "sweep 1"
    history = [r["history"]["item"] for r in everything if r["type"] == "history"]
    own = [{k: v for k, v in row.items() if not k.startswith("_")} for row in history]
    assert own == [ROWS[0], {**ROWS[1], **ROWS[2]}]
    assert [row["_step"] for row in history] == [0, 1]


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_wandb_shows_a_failed_run_as_failed(run: RunInfo, state: str, wandb: Any) -> None:
    drive(WandbTracker(), run, state)
    assert summary_of(recorded(run.outputs, run.id))["state"] == "failed"


def test_wandb_loses_no_row_whose_step_goes_back(run: RunInfo, wandb: Any) -> None:
    tracker = WandbTracker()
    tracker.start(run)
    tracker.log({"step": 5, "epoch": 0, "a": 1.0})
    tracker.log({"step": 3, "epoch": 0, "b": 2.0})
    tracker.finish({}, "done")
    found = summary_of(recorded(run.outputs, run.id))["summary"]
    assert (found["a"], found["b"]) == (1.0, 2.0)


def test_wandb_runs_of_one_process_lie_side_by_side(
    run: RunInfo, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.outputs.parent)
    ids = ["first", "second", "-odd/../näme: 3?"]
    for run_id in ids:
        tracker = WandbTracker()
        drive(tracker, RunInfo(run_id, "n", "eqprop", run.folder, run.outputs, tags=("x" * 99,)))
        assert tracker.location() == "wandb leet outputs/wandb"
    for run_id in ["first", "second", "odd-..-n-me-3"]:
        assert summary_of(recorded(run.outputs, run_id))["state"] == "finished"


def test_wandb_gives_up_a_run_that_was_left_open(run: RunInfo, wandb: Any) -> None:
    WandbTracker().start(RunInfo("left", "n", "eqprop", run.folder, run.outputs))
    drive(WandbTracker(), run)
    assert summary_of(recorded(run.outputs, "left"))["state"] == "failed"
    assert summary_of(recorded(run.outputs, run.id))["state"] == "finished"


def test_wandb_offline_ignores_variables(
    run: RunInfo, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {
        "WANDB_MODE": "disabled",
        "WANDB_DISABLED": "true",
        "WANDB_RUN_ID": "other",
        "WANDB_NAME": "other",
        "WANDB_DIR": "/nowhere",
        "WANDB_SERVICE": "3-1-unix-/nowhere",
        "WANDB_API_KEY": "too short",
        "WANDB_RESUME": "must",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    drive(WandbTracker(), run)
    assert summary_of(recorded(run.outputs, run.id))["name"] == run.name
    assert {name: os.environ[name] for name in hostile} == hostile


def test_wandb_writes_no_secret(
    run: RunInfo, wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cret-value-of-a-key"
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    (repository / "code.py").write_text("old\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "first"],
        ["remote", "add", "origin", f"https://{secret}@example.com/x.git"],
    ):
        subprocess.run([*git, *command], cwd=repository, check=True)
    (repository / "code.py").write_text(f"{secret}\n")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setattr(sys, "argv", ["train.py", f"+key={secret}"])
    drive(WandbTracker(), run)
    assert sys.argv[1] == f"+key={secret}"
    files = [path for path in run.outputs.rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    (header,) = (r["run"] for r in records(recorded(run.outputs, run.id)) if r["type"] == "run")
    assert header["git"]["remote_url"] == "https://***@example.com/x.git"
    assert len(header["git"]["commit"]) == 40


SCRIPT = """
import logging, sys
from pathlib import Path
from eqprop.tracking import JsonlTracker, RunInfo, Trackers, WandbTracker
logging.basicConfig(format="%(message)s")
outputs = Path(sys.argv[1])
def record(name, meddle=lambda: None):
    trackers = Trackers([JsonlTracker(), WandbTracker(*sys.argv[2:3])])
    folder = outputs / name
    folder.mkdir(parents=True)
    trackers.start(RunInfo(name, name, "eqprop", folder, outputs))
    for step in range(3):
        trackers.log({"step": step, "epoch": 0, "a": step})
        if step == 0:
            meddle()
    trackers.finish({}, "done")
"""
KILL = """
import time, psutil
def kill():
    for child in psutil.Process().children():
        child.kill()
        child.wait()
    time.sleep(0.3)
record("first", kill)
kill()
record("second")
"""


def script(
    code: str, *arguments: object, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(PACKAGE), **variables},
    )


def test_a_killed_service_costs_one_warning_and_not_the_next_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = script(SCRIPT + KILL, tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "WandbTracker failed" in done.stderr
    assert len((tmp_path / "out" / "first" / "metrics.jsonl").read_text().splitlines()) == 3
    assert summary_of(recorded(tmp_path / "out", "second"))["state"] == "finished"


def test_without_home_and_locale_it_is_quiet(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    work = tmp_path / "work"
    work.mkdir()
    code = f"import os\ndel os.environ['HOME']\n{SCRIPT}\nrecord('run')\n"
    done = script(code, tmp_path / "out", cwd=work, LANG="C", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert list(work.iterdir()) == []
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"


def test_an_output_folder_that_wandb_cannot_write(
    run: RunInfo, caplog: pytest.LogCaptureFixture
) -> None:
    (run.outputs / "wandb").write_text("a file")
    drive(Trackers([JsonlTracker(), WandbTracker()]), run)
    assert len(caplog.records) == 1
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == len(ROWS)


# W&B, online


@contextlib.contextmanager
def server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


def refuse(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(401)
    request.send_header("Content-Length", "0")
    request.end_headers()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.mark.usefixtures("no_proxy")
def test_any_answer_counts_as_a_server() -> None:
    with server(refuse) as url:
        assert answers(url, 5.0)


@pytest.mark.usefixtures("no_proxy")
def test_silence_is_no_server_and_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not answers(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3)
        assert time.monotonic() - start < 60  # it would wait for ever
        port = silent.getsockname()[1]
    assert not answers(f"http://127.0.0.1:{port}", 5.0)
    assert not answers("no address", 5.0)


@pytest.mark.usefixtures("no_proxy")
def test_why_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(refuse) as url:
        assert why_offline(url, has_login=True) is None
        assert "wandb login" in str(why_offline(url, has_login=False))
        monkeypatch.setenv("WANDB_MODE", "offline")
        assert "WANDB_MODE" in str(why_offline(url, has_login=True))


def test_online_without_a_login_is_offline_with_one_warning(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = f"{SCRIPT}\nrecord('run')\n"
    done = script(code, tmp_path / "out", "online", cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "no W&B login" in line
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"


def test_online_refused_by_the_server_is_offline_with_one_warning(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    key = "k" * 40
    with server(refuse) as url:
        done = script(
            f"{SCRIPT}\nrecord('run')\n",
            tmp_path / "out",
            "online",
            cwd=tmp_path,
            HOME=str(tmp_path),
            WANDB_BASE_URL=url,
            WANDB_API_KEY=key,
            no_proxy="127.0.0.1",
        )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "recorded offline" in line
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def test_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="offline or online"):
        WandbTracker("on")  # type: ignore[arg-type]


def test_wandb_is_imported_only_when_a_run_starts() -> None:
    code = "import sys, eqprop.tracking; sys.exit('wandb' in sys.modules)"
    assert script(code, cwd=PACKAGE).returncode == 0
    assert wandb_module.__name__ == "eqprop.tracking.wandb"
