"""What a run leaves of the process and the folder that it was started in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from running import QUICK, SCRIPT, environment, rows, status, train, untimed

from eqprop.run.folder import RunFolder
from eqprop.run.reading import read_run

TWICE = """
import json, logging, os, signal, sys, threading
from eqprop.cli.main import run

def state():
    return {
        "environment": dict(os.environ), "path": list(sys.path), "arguments": list(sys.argv),
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
        "handlers": [id(handler) for handler in logging.getLogger().handlers],
        "signals": [str(signal.getsignal(n)) for n in signal.valid_signals()],
        "cwd": os.getcwd(),
    }

logging.getLogger().addHandler(logging.NullHandler())
words, codes, before = sys.argv[1:], [], state()
def once(name, *more):
    sys.argv[1:] = [*words, f"hydra.run.dir={name}", *more]
    try:
        run()
    except SystemExit as end:
        codes.append(end.code)
    sys.argv[1:] = words
for name in ("one", "two"):
    once(name)
once("three", "optimizer.lr=-1")

class InAThread(threading.Thread):
    def run(self):
        once("four")
import eqprop.training.loop as loop
fit = loop.Training.fit
def meanwhile(self):
    loop.Training.fit = fit
    thread = InAThread(); thread.start(); thread.join()
    return fit(self)
loop.Training.fit = meanwhile
once("five")
print(json.dumps({"codes": codes, "changed": [k for k, v in state().items() if v != before[k]]}))
"""


def test_one_run_after_the_other_in_one_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TWICE, *QUICK],
        cwd=tmp_path, env=environment({}), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"codes": [0, 0, 2, 2, 0], "changed": []}, done.stderr
    wrong, beside = done.stderr.splitlines()
    assert "optimizer.lr=-1" in wrong
    assert "another run" in beside
    same = [untimed(rows(tmp_path / name)) for name in ("one", "two", "five")]
    assert same[0] == same[1] == same[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["five", "one", "two"]
    logs = [(tmp_path / name / "run.log").read_text() for name in ("one", "two")]
    assert [log.count("epoch 1/1") for log in logs] == [1, 1]


def test_modules_beside_the_command_do_not_shadow_others(tmp_path: Path) -> None:
    for name in ("statistics", "optuna", "random", "yaml", "hydra", "torch", "sklearn"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')\n")
    (tmp_path / "mine.py").write_text("from eqprop import RestrictedHopfield as Mine\n")
    words = ("-m", *QUICK, "model._target_=mine.Mine", "cost=mse", "trainer.limit_batches=2")
    env = {"PYTHONPATH": f"{SCRIPT.parents[1]}:"}  # an empty entry is the folder of the command
    ran = train(*words, "hydra.sweep.dir=here", cwd=tmp_path, env=env, cold=True)
    assert (ran.code, ran.err) == (0, ""), ran.out + ran.err
    assert (tmp_path / "here/study.log").exists()


def test_with_chdir_relative_paths_mean_the_command_s_folder(tmp_path: Path) -> None:
    words = (*QUICK, "hydra.job.chdir=true", "hydra.run.dir=runs/one")
    train(*words, cwd=tmp_path).succeeded()
    folder = tmp_path / "runs/one"
    assert (folder / "status.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    more = ("trainer.epochs=2", "tracking=tensorboard", "paths.outputs=events")
    train("resume=runs/one", "hydra.job.chdir=true", *more, cwd=tmp_path).succeeded()
    assert len([row for row in rows(folder) if "time/train_s" in row]) == 2
    missing = train(
        *words[:-1], "dataset=mnist", "dataset.download=false", "paths.data=some", cwd=tmp_path
    )
    assert f"missing in {tmp_path / 'some'}" in missing.error


def test_a_run_s_seconds_leave_out_the_pauses(tmp_path: Path) -> None:
    path, record = tmp_path / "run", tmp_path / "run/status.json"

    def session(end: bool = True) -> None:
        folder = RunFolder.claim(path, [], resume=record.exists())
        (path / "metrics.jsonl").touch()
        time.sleep(0.3)
        (path / "metrics.jsonl").touch()
        if end:
            folder.finish("interrupted")
        else:
            folder._release()  # as the kernel does when it is killed

    def earlier(hours: int) -> None:
        """Make what is recorded so much older."""
        past = timedelta(hours=hours)
        found = json.loads(record.read_text())
        for key in ("start", "end"):
            found[key] = found[key] and str(datetime.fromisoformat(found[key]) - past)
        found["resumed"] = [str(datetime.fromisoformat(t) - past) for t in found.get("resumed", [])]
        record.write_text(json.dumps(found))
        old = time.time() - past.total_seconds()
        os.utime(path / "metrics.jsonl", (old, old))

    session()
    earlier(5)
    session(end=False)
    earlier(3)
    session()
    seconds = read_run(path).seconds
    assert seconds is not None
    assert 0.8 < seconds < 30


def test_the_same_command_works_once_its_cause_of_failure_is_mended(tmp_path: Path) -> None:
    words = (*QUICK, "model._target_=mine.Mine", "cost=mse", "hydra.run.dir=here")
    (tmp_path / "mine.py").write_text(
        "import eqprop\nclass Mine(eqprop.RestrictedHopfield):\n"
        "    def __init__(self, *args, **keys):\n        raise RuntimeError('not today')\n"
    )
    failed = train(*words, cwd=tmp_path)
    assert (failed.code, status(tmp_path / "here")["state"]) == (1, "failed")
    (tmp_path / "mine.py").write_text("from eqprop import RestrictedHopfield as Mine\n")
    train(*words, cwd=tmp_path).succeeded()
    found = status(tmp_path / "here")
    assert (found["state"], "resumed" in found) == ("done", False)
    assert not (tmp_path / "here/traceback.txt").exists()
    assert train(*words, cwd=tmp_path).code == 2  # now it holds results
