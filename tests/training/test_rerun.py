"""A recorded run started again, and the words of a recorded command."""

from __future__ import annotations

from pathlib import Path

import pytest
from interrupted import alone, learnt
from running import rows, train, untimed

from eqprop.cli.command import key_of, merge, quoted


def test_a_rerun_gives_the_same_numbers(tmp_path: Path) -> None:
    before = alone("model=hopfield")
    ran = train(f"rerun={before}", "hydra.run.dir=b", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "b")[0] == learnt(before)[0]
    assert untimed(rows(tmp_path / "b")) == untimed(rows(before))
    assert ran.code == 0


def test_a_rerun_may_change_anything(tmp_path: Path) -> None:
    before = alone("model=hopfield")
    train(f"rerun={before}", "seed=3", "trainer.epochs=1", cwd=tmp_path).succeeded()


def test_a_rerun_under_other_defaults_is_refused(tmp_path: Path) -> None:
    before = alone()
    recorded = before / ".hydra" / "config.yaml"
    saved = recorded.read_text()
    recorded.write_text(saved.replace("lr: 0.001", "lr: 0.002"))
    try:
        ran = train(f"rerun={before}", cwd=tmp_path)
    finally:
        recorded.write_text(saved)
    assert ran.code == 2
    assert "optimizer.lr (0.002 → 0.001)" in ran.error


@pytest.mark.parametrize(
    ("recorded", "new", "merged"),
    [
        ("a=1 b=2", "b=3", "a=1 b=3"),
        ("model=hopfield model.hidden=[3]", "model=gaussian", "model=gaussian"),
        ("+x=1 ~y", "++x=2", "~y ++x=2"),
        ("tracking.tags=[a] tracking.trackers.w.mode=online", "tracking=none",
         "tracking.tags=[a] tracking=none"),
    ],
)  # fmt: skip
def test_merge(recorded: str, new: str, merged: str) -> None:
    assert merge(recorded.split(), new.split()) == merged.split()


def test_key_of() -> None:
    words = ("a.b=c=d", "+a.b=1", "~a.b", "++a.b@x=1")
    assert {key_of(word) for word in words} == {"a.b"}


def test_quoted_is_read_back_by_hydra() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for text in ("plain/a-b.c", "a b", "it's", 'q"q', "back\\", 'x\\"y', "a,b", "[1]", "${no}"):
        (override,) = OverridesParser.create().parse_overrides([f"k={quoted(text)}"])
        value = str(override.value())
        assert value.replace("\\${", "${") == text
