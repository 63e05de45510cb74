"""Configurations that grow without end, or hold numbers out of this world: one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from running import QUICK, ROOT, train

from eqprop.config import yamlguard
from eqprop.config.references import bounded
from eqprop.run.errors import ConfigError


def refused_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(text)
    ran = train("--config-dir", "conf", "model=mine", *QUICK[2:], cwd=tmp_path)
    assert ran.code == 2
    assert not (tmp_path / "outputs").exists()
    return ran.error


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        lines.append(f"a{i}: &a{i} [{', '.join(['*a' + str(i - 1)] * 10)}]")
    return "\n".join(lines) + "\n"


def test_an_alias_bomb(tmp_path: Path) -> None:
    error = refused_file(tmp_path, bomb())
    assert "mine.yaml grows beyond 100000 values by its aliases" in error


def test_a_file_of_ten_megabytes(tmp_path: Path) -> None:
    error = refused_file(tmp_path, "a: b\n" + "# x\n" * 2_600_000)
    assert "mine.yaml is larger than 1000000 bytes" in error


def test_a_file_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    """A terabyte of nothing: as much of it is read as it takes to refuse it."""
    (tmp_path / "mine.yaml").touch()
    os.truncate(tmp_path / "mine.yaml", 1 << 40)
    with pytest.raises(ConfigError, match="is larger than 1000000 bytes"):
        yamlguard.read(tmp_path / "mine.yaml")


def test_aliases_in_moderation_are_welcome(tmp_path: Path) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    text = (ROOT / "conf" / "model" / "gaussian.yaml").read_text()
    text = text.replace("hidden: [1000]", "hidden: &h [4]\nactivation: &a sigmoid")
    lines = [x for x in text.splitlines() if not x.startswith("activation: sigmoid")]
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("\n".join(lines))
    ran = train("--config-dir", "conf", "model=mine", "--cfg", "job", cwd=tmp_path)
    assert ran.code == 0


def doubling(n: int) -> str:
    """A list of texts, each of which is the one before it twice."""
    texts = ["x", *("'" + 2 * f"${{tracking.tags[{i}]}}" + "'" for i in range(n))]
    return f"tracking.tags=[{','.join(texts)}]"


@pytest.mark.parametrize("flags", [(), ("--cfg", "job", "--resolve"), ("-m", "seed=1,2")])
def test_references_that_double(flags: tuple[str, ...], tmp_path: Path) -> None:
    ran = train(*flags, *QUICK, doubling(40), cwd=tmp_path)
    assert ran.code == 2
    assert "tracking.tags[" in ran.error
    assert "grows beyond 1000000 characters by its references" in ran.error
    assert list(tmp_path.iterdir()) == []


def test_references_that_double_where_hydra_follows_them(tmp_path: Path) -> None:
    node = [
        f"+hydra.job.env_set.a{i + 1}='{2 * f'${{hydra.job.env_set.a{i}}}'}'" for i in range(40)
    ]
    ran = train(*QUICK, "+hydra.job.env_set.a0=x", *node, cwd=tmp_path)
    assert ran.code == 2
    assert "grows beyond 1000000 characters" in ran.error
    assert list(tmp_path.iterdir()) == []


BOMBS = {
    "texts": {"a0": "x", **{f"a{i + 1}": 2 * f"${{a{i}}}" for i in range(60)}},
    "empty texts": {"a0": "", **{f"a{i + 1}": 2 * f"${{a{i}}}" for i in range(60)}},
    "lists": {"a0": [], **{f"a{i + 1}": 2 * [f"${{a{i}}}"] for i in range(60)}},
    "resolvers": {"a0": "x", **{f"a{i + 1}": 2 * f"${{oc.select:a{i}}}" for i in range(60)}},
    "width": {"a": "x" * 900_000, "b": 50 * "${a}"},
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_references_that_grow_are_refused(bomb: dict[str, Any]) -> None:
    cfg = OmegaConf.create(bomb)
    with pytest.raises(OmegaConfBaseException, match="grows beyond"), bounded():
        OmegaConf.to_container(cfg, resolve=True)


def test_references_in_moderation_are_welcome() -> None:
    cfg = OmegaConf.create({"a": "x", **{f"b{i}": "${a} and ${oc.select:a}" for i in range(100)}})
    with bounded():
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    assert plain["b99"] == "x and x"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=1e400", "optimizer.lr=inf: must be a finite number > 0"),
        (f"seed={2**70}", "must be a whole number from 0 to 2^63 - 1"),
        ("seed=2**70", "seed='2**70': must be a whole number"),
        ("checkpoint.keep=-1", "checkpoint.keep=-1: must be a whole number >= 0"),
        ("checkpoint.share=0", "checkpoint.share=0: must be a number > 0 and <= 1"),
        ("checkpoint.every_steps=0", "checkpoint.every_steps=0: must be null or a whole number"),
    ],
)
def test_numbers_out_of_this_world(override: str, words: str, tmp_path: Path) -> None:
    ran = train(*QUICK, override, cwd=tmp_path)
    assert ran.code == 2
    assert words in ran.error
    assert list(tmp_path.iterdir()) == []
