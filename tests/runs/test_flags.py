"""Every flag that --help and README name, run as a program; completion in a real bash."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, SCRIPT, environment, train


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("--help", "optimizer: adagrad, --hydra-help --shell-completion"),
        ("-h model=hopfield", "hopfield"),
        ("--hydra-help", "--multirun install=bash install=fish"),
        ("--cfg job model=hopfield", "_target_: eqprop.network.Hopfield"),
        ("-c job --package optimizer", "lr: 0.001"),
        ("--cfg hydra", "sweep: launcher:"),
        ("--cfg all --resolve", "hydra: outputs/multirun"),
        ("--info", "Plugins optimizer/adam epochs:"),
        ("-i defaults", "optimizer/adam"),
        ("--info defaults-tree", "experiment: null"),
        ("--info config", "epochs: 20"),
        ("--info plugins", "Sweeper"),
        ("--info searchpath", "/conf"),
        ("--shell-completion install=bash", "complete"),
        ("-sc uninstall=bash", "unset"),
        ("-sc install=zsh", "complete"),
        ("-sc install=fish", "complete"),
        ("--config-name=config --cfg job", "epochs: 20"),
        ("--config-dir=mine extra=here --cfg job", "here: 1"),
        ("--config-dir=~/mine extra=here --cfg job", "here: 1"),
    ],
)
def test_a_flag_does_what_it_says(command: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine/extra").mkdir(parents=True)
    (tmp_path / "mine/extra/here.yaml").write_text("here: 1\n")
    words_of = command.replace("extra=", "+extra=").split()
    ran = train(*words_of, cwd=tmp_path, env={"HOME": str(tmp_path)}).succeeded()
    for word in words.split():
        assert word in ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]  # none of them starts a run


def test_completion_in_bash(tmp_path: Path) -> None:
    """What a person types, and what the terminal then shows."""
    for name, target in (("scripts", ROOT / "scripts"), ("conf", ROOT / "conf")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "python").symlink_to(sys.executable)
    env = environment({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TERM": "dumb"})
    mine, theirs = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=tmp_path, env={**env, "PS1": "> "}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def typed(text: str, awaited: str) -> str:
        os.write(mine, text.encode())
        shown, end = "", time.monotonic() + 60
        while awaited not in shown and time.monotonic() < end:
            if select.select([mine], [], [], 0.5)[0]:
                shown += os.read(mine, 4096).decode(errors="replace")
        return shown

    try:
        typed('eval "$(python scripts/train.py -sc install=bash)"; echo rea""dy\n', "ready")
        assert "adagrad" in typed("python scripts/train.py -m optimizer=adag\t", "adagrad")
        assert "echs=" in typed(" seed=1 -r trainer.ep\t", "ochs=").replace("o", "e")
        assert "error" not in typed('\x15echo do""ne\n', "done")
    finally:
        bash.kill()
        bash.wait()
        os.close(mine)


@pytest.mark.parametrize("version", [(2, 7), (3, 9), (3, 14), (4, 0)])
def test_a_python_that_it_does_not_run_on(version: tuple[int, int], tmp_path: Path) -> None:
    code = (
        f"import sys, runpy; sys.version_info = {(*version, 0, 'final', 0)}; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    for word in ("3.10", "3.13", ".".join(map(str, version))):
        assert word in line
