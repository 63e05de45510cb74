"""A sweep in which half of the jobs go wrong, each in its own way, and the report on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import QUICK, Ran, rows, status, train
from scripting import report

LAB = """
import os, signal, sys
import eqprop

class Fragile(eqprop.SquaredError):
    def __init__(self, beta=1.0, lr=0.0):
        super().__init__(beta)
        self.lr, self.calls = lr, 0

    def gradient(self, u_last, target, out):
        self.calls += 1
        if self.calls == 5 and self.lr == 0.006:
            sys.exit(0)
        if self.calls == 5 and self.lr == 0.007:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradient(u_last, target, out)
"""
GOOD = ("0.001", "0.002", "0.003", "0.004", "0.005", "0.008")
FAILED = {
    "0.006": "sys.exit(0) before the end of the run",
    "0.007": "killed by SIGKILL",
    "-1": "optimizer.lr=-1: must be a number > 0",
    **{
        f"1e+{n}": f"is not finite; lower dynamics.dt (1) or optimizer.lr (1e+{n})"
        for n in (20, 25, 30)
    },
}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    cwd = tmp_path_factory.mktemp("lab")
    (cwd / "lab.py").write_text(LAB)
    mixed = [word for pair in zip(FAILED, GOOD, strict=True) for word in pair]
    words = (f"optimizer.lr={','.join(mixed)}", "cost._target_=lab.Fragile", "sweep.jobs=2")
    one = ("+cost.lr=${optimizer.lr}", "hydra.sweep.dir=outputs")
    path = {"PYTHONPATH": f"{cwd}:{Path(__file__).resolve().parents[2]}"}
    return train("-m", *QUICK, *words, *one, cwd=cwd, env=path, timeout=400)


def test_all_others_finish_and_the_exit_status_is_1(sweep: Ran) -> None:
    assert sweep.code == 1
    done = [folder for folder in sweep.folders if status(folder)["state"] == "done"]
    assert len(done) == len(GOOD)
    assert all(rows(folder) for folder in done)
    assert "6 done, 6 failed" in sweep.out.splitlines()[-1]


def test_the_end_lists_each_failure_with_its_reason_and_folder(sweep: Ran) -> None:
    """One line each, once; on standard error only what was known before."""
    (warning,) = sweep.err.splitlines()
    assert FAILED["-1"] in warning
    assert "Traceback" not in sweep.out
    end = [line for line in sweep.out.splitlines() if ") failed: " in line]
    assert len(end) == len(FAILED)
    for line, (lr, reason) in zip(end, FAILED.items(), strict=True):
        assert f"(optimizer.lr={lr})" in line
        assert reason in line
        assert (sweep.cwd / line.rpartition("; ")[2]).is_dir()


def test_the_report_says_which_and_why(sweep: Ran) -> None:
    pytest.importorskip("matplotlib", reason="figures need it: pip install 'eqprop[report]'")
    report(sweep.cwd / "outputs")
    page = (sweep.cwd / "outputs" / "report" / "index.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    keys = [column["key"] for column in data["columns"]]
    runs = [dict(zip(keys, cells, strict=True)) for cells in data["runs"]]
    why = {f"optimizer.lr={run['optimizer.lr']}": run["reason"] for run in runs if run["reason"]}
    assert len(why) == len(FAILED)
    for lr, reason in FAILED.items():
        assert reason in why[f"optimizer.lr={lr}"]
    assert (sweep.cwd / "outputs" / "report" / "failures.png").is_file()
