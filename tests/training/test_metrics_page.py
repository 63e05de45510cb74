"""docs/metrics.md names what runs record, and nothing else.

Oracle: the rows of real runs, of every estimator, with and without a validation split, noise and
diagnostics; a name on the page is one that some run has recorded.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from toys import recorded, splits, training

from eqprop.config.folder import conf_dir
from eqprop.training.gradient_diagnostics import GradientDiagnostics
from eqprop.training.noise import StateNoise

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
NAME = re.compile(r"[a-z_]+(/[a-z_]+|/<[a-z]+>)+")
HOLES = {"<split>": "(train|validation|test)", "<l>": r"[0-9]+", "<parameter>": r"W\.[\w.]+"}
ESTIMATORS = sorted(path.stem for path in (conf_dir() / "estimator").glob("*.yaml"))


def on_the_page() -> set[str]:
    """The names that it gives, with their placeholders; but those of the summary."""
    text = PAGE.read_text().partition("## The summary")[0]
    found = {name for name in re.findall(r"`([^`\n]+)`", text) if NAME.fullmatch(name)}
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return found | {n for row in rows for n in re.findall(r"`([a-z_]+)`", row)} - set(ESTIMATORS)


def pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name)
    for hole, what in HOLES.items():
        text = text.replace(re.escape(hole), what)
    return re.compile(text)


def names_of(run: Any) -> set[str]:
    return {name for row in recorded(run) for name in row}


@cache
def of_estimator(option: str) -> set[str]:
    """What a Hopfield run with the estimator records, on layers that relax."""
    node: Any = OmegaConf.load(conf_dir() / "estimator" / f"{option}.yaml")
    node.pop("defaults", None)
    more: dict[str, Any] = {}
    if option == "continual":
        more["optimizer"] = lambda parameters: torch.optim.SGD(parameters, lr=1e-3)
    return names_of(training("hopfield", estimator=instantiate(node), **more))


@cache
def recorded_names() -> set[str]:
    """By every estimator, and under what adds names to a run."""
    found = {name for option in ESTIMATORS for name in of_estimator(option)}

    def by_layer(parameters: Any) -> torch.optim.Optimizer:
        groups = [{"params": [p], "lr": 0.1} for p in parameters]
        return torch.optim.SGD(groups)

    return (
        found
        | names_of(training("gaussian", GradientDiagnostics(1)))
        | names_of(training("gaussian", noise=StateNoise(0.01)))
        | names_of(training("gaussian", data=splits(n_validation=0)))
        | names_of(training("hopfield", optimizer=by_layer))
    )


def test_every_recorded_name_is_on_the_page() -> None:
    known = [pattern(name) for name in on_the_page()]
    missing = [n for n in sorted(recorded_names()) if not any(p.fullmatch(n) for p in known)]
    assert missing == []


def test_the_page_names_nothing_that_no_run_records() -> None:
    names = on_the_page()
    assert {"accuracy/<split>", "learning_rate", "step", "holomorphic/imaginary"} <= names
    for name in names:
        for split in ("train", "validation", "test") if "<split>" in name else ("",):
            wanted = pattern(name.replace("<split>", split))
            assert any(map(wanted.fullmatch, recorded_names())), f"{name} {split}"


@pytest.mark.parametrize("option", ESTIMATORS)
def test_it_says_of_each_estimator_what_it_records(option: str) -> None:
    """The row of the estimator: `free` alone, no relaxation, or names of its own."""
    table = PAGE.read_text().partition("## What each estimator records")[2]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    (row,) = [line for line in rows if f"`{option}`" in line.split("|")[1]]
    found = of_estimator(option)
    assert ("energy/nudged" in found) == ("`free` alone" not in row)
    assert any(n.startswith("relaxation/") for n in found) == ("no `relaxation/…`" not in row)
    for own in ("holomorphic", "implicit"):
        assert any(n.startswith(f"{own}/") for n in found) == (option == own) == (f"`{own}/" in row)
