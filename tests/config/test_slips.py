"""Slips of the hand on the command line, each with the remedy in its line."""

from __future__ import annotations

import pytest

from eqprop.cli.command import prepared
from eqprop.cli.words import parsed, split
from eqprop.run.errors import ConfigError


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epochs", "5"], "trainer.epochs=5"),
        (["seed=1", "--lr=0.02"], "optimizer.lr=0.02"),
        (["--batch-size", "3"], "dataset.batch_size=3"),
        (["-epochs", "2"], "trainer.epochs=2"),
        (["--model", "hopfield"], "model=hopfield"),
        (["--optimizer.lr=1"], "optimizer.lr=1"),
        (["--multirnu", "seed=1,2"], "--multirun"),
        (["--cfg", "jub"], "jub job"),
        (["--package=model"], "--package --cfg"),
        (["--experimental-rerun=x"], "rerun=RUN"),
        (["--shell-completion"], "install= bash"),
        (["-sc", "install=tcsh"], "tcsh bash"),
        (["optimizer.lr=", "0.01"], "optimizer.lr=0.01"),
        (["optimizer.lr", "=0.01"], "optimizer.lr=0.01"),
        (["optimizer.lr", "=", "0.01"], "optimizer.lr=0.01"),
        (["seed=1", "model.hidden=[100,", "50]", "name=a"], "'model.hidden=[100, 50]'"),
        (["model.hidden=[{conv:", "3,", "kernel:", "5}]"], "{conv: 3, kernel: 5}]'"),
        (["name=my", "run"], "'name=my run'"),
        (["name=None"], "name=null"),
        (["debug=None"], "debug=null"),
        (["noise=None"], "none?"),
        (["device=gpu"], "cuda?"),
        (["device.type=gpu"], "cuda?"),
        (["tracking=wandb-offline"], "wandb_offline?"),
        (["+trainer.epochs=1"], "leave out the +: trainer.epochs=1"),
        (["model.price=1"], "model.price +model.price=1"),
    ],
)
def test_the_remedy_is_in_the_line(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(argv)
    line = str(caught.value)
    assert "\n" not in line
    for word in [words] if "'" in words or "+:" in words else words.split():
        assert word in line


def test_a_query_for_completion_that_no_shell_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    with pytest.raises(ConfigError, match="install=bash"):
        parsed(["-sc", "query=bash"])


def test_flags_stand_anywhere() -> None:
    argv = ["seed=1,2", "-m", "model=hopfield", "--config-name", "config", "name='a b'"]
    assert split(argv) == (
        ["-m", "--config-name", "config"],
        ["seed=1,2", "model=hopfield", "name='a b'"],
    )
    assert parsed(argv).multirun


def test_what_is_no_slip_passes() -> None:
    words = ["name='a b'", "model.hidden=[1,2]", "~noise", "+model.x={a: 1}", "name=a=b", "name="]
    assert split(words) == ([], words)
