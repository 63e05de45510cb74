"""docs/tutorial.md from its first block to its last, as a reader runs it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import ROOT, environment
from scripting import is_png, needs_matplotlib

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def install_commands(folder: Path) -> None:
    """Put what an installation would put on the PATH into ``folder``: of this checkout."""
    folder.mkdir()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, module, function in re.findall(
        r'^(eqprop-\S+) = "(.+):(.+)"$', project, re.MULTILINE
    ):
        code = f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n"
        (folder / name).write_text(code)
        (folder / name).chmod(0o755)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that Python's blocks leave, after all blocks have run in one empty folder."""
    cwd, commands = tmp_path_factory.mktemp("tutorial"), tmp_path_factory.mktemp("bin") / "bin"
    install_commands(commands)
    path = os.pathsep.join([str(commands), os.environ.get("PATH", os.defpath)])
    names: dict[str, Any] = {"__name__": "__main__", "there": cwd}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.syspath_prepend(str(cwd))
        patch.setenv("MPLBACKEND", "agg")
        for number, (language, code) in enumerate(BLOCKS):
            if language == "python":
                exec(compile(code, f"tutorial.md, block {number}", "exec"), names)
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                env=environment({"PATH": path}),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, code + done.stdout + done.stderr
            names[f"said {code.split()[0]}"] = done.stdout
        yield names
    sys.modules.pop("duffing", None)


@needs_matplotlib
def test_the_physics_is_right(told: dict[str, Any]) -> None:
    assert told["energies"] == sorted(told["energies"], reverse=True), "it falls"
    assert told["apart"] < 1e-12, "the force on paper is the one by autograd"
    gradient = told["estimate"].gradients[0][3, 20].item()
    assert told["by_hand"] == pytest.approx(gradient, rel=1e-2)
    for name, order in (("one-sided", 1), ("centered", 2)):
        errors = told["errors"][name]
        assert math.log2(errors[-2] / errors[-1]) == pytest.approx(order, abs=0.25)


@needs_matplotlib
def test_it_learns(told: dict[str, Any]) -> None:
    accuracy = told["accuracy"]
    assert told["before"] < 0.3
    assert accuracy(told["model"]) > 0.75
    assert accuracy(told["same"]) == pytest.approx(accuracy(told["model"]), abs=0.03)
    weak, strong = (told["swept"]["centered"][i] for i in (1, -1))
    assert min(weak) > max(strong), "as the text says of the centered estimator"
    assert min(map(min, told["swept"]["one-sided"])) > 0.7


@needs_matplotlib
def test_the_energy_is_the_same_in_both_forms(told: dict[str, Any]) -> None:
    """So are the forces, and the closed forms what autograd says."""
    local, whole = told["same"], told["model"]
    u = [torch.randn(5, n, dtype=torch.float64) for n in (64, 32, 10)]
    torch.testing.assert_close(local.energy(u), whole.energy(u))
    states = [network.new_state(5) for network in (local, whole)]
    for state in states:
        state.clamp(0, u[0])
        state.u[1:] = u[1:]
    pairs = zip(*(n.gradient(s) for n, s in zip((local, whole), states, strict=True)), strict=True)
    for ours, theirs in list(pairs)[1:]:
        torch.testing.assert_close(ours, theirs)


@needs_matplotlib
def test_what_it_leaves(told: dict[str, Any]) -> None:
    there = told["there"]
    assert is_png(there / "figure.png")
    assert (there / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert (there / "runs" / "sweep" / "report" / "index.html").is_file()
    assert len(list((there / "runs" / "sweep").rglob("status.json"))) == 2
    (last,) = {float((told["found"].numpy() == told["labels"]).mean())}
    assert last == told["last"]["accuracy/test"] > 0.75
    status = json.loads((there / "runs" / "first" / "status.json").read_text())
    assert status["state"] == "done"
