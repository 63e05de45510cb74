"""A run's folder: its name, and that it stays where it belongs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from eqprop.config.compose import register_resolvers
from eqprop.config.slug import readable

NASTY = [
    "../../etc/passwd",
    "..",
    ".hidden",
    "",
    "/",
    "a\0b\x1b[31m\n",
    "[bold]x[/bold] <script>",
    "é" * 300,
    "x" * 300,
    "日本",
    "-rf",
    "a/../../b",
    "C:\\x",
    "%s{}$HOME",
    "😀" * 100,
    "a" * 59 + "..b",
]


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_slug_is_one_harmless_component(name: str, tmp_path: Path) -> None:
    slug = readable(name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", slug)
    assert ".." not in slug
    assert len(slug.encode()) <= 60
    assert (tmp_path / slug).resolve().parent == tmp_path.resolve()


def test_a_slug_keeps_what_is_readable() -> None:
    assert readable("My run, lr 1e-3 (café)") == "My-run-lr-1e-3-cafe"


def test_a_slug_stays_within_a_job_and_differs_between_jobs() -> None:
    register_resolvers()
    register_resolvers()
    cfg = OmegaConf.create(
        {"name": "a b", "num": 0, "run": "${eqprop.slug:run}", "job": "${eqprop.slug:${num}}"}
    )
    first = cfg.job
    assert re.fullmatch(r"a-b-[0-9a-f]{6}", first)
    assert cfg.job == first
    assert cfg.run != first
    other = OmegaConf.merge(cfg, {"num": 1})
    OmegaConf.copy_cache(from_config=cfg, to_config=other)  # as Hydra does for each job
    assert other.job != first
