"""Folders as runs leave them, written in a moment and without training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CONFIG = """\
seed: {seed}
name: null
optimizer:
  _target_: torch.optim.Adam
  lr: {lr}
  betas: [0.9, 0.999]
estimator: {{_target_: eqprop.estimator.EquilibriumPropagation, beta: {beta}}}
dynamics: {{_target_: {solver}, n_relax: 20}}
model: {{_target_: eqprop.ConditionalGaussian, hidden: [1000], activation: sigmoid}}
dataset: {{_target_: eqprop.data.Digits, batch_size: 100}}
trainer: {{epochs: {epochs}}}
"""
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
SETTINGS = {"seed": 1, "lr": 0.001, "beta": 1.0, "solver": "eqprop.relaxation.Euler", "epochs": 5}


def accuracy(lr: float, beta: float, seed: int) -> float:
    """A bump over lr and β, moved a little by the seed."""
    height = 0.95 - 0.08 * (math.log10(lr) + 2.5) ** 2 - 0.05 * (beta - 0.7) ** 2
    return max(0.1, height + 0.004 * math.sin(37 * seed + 1e3 * lr))


def make_run(folder: Path, state: str = "done", **changes: Any) -> Path:
    """A run of some epochs with 4 rows in each; ``changes`` are settings or parts of its status."""
    settings: dict[str, Any] = {**SETTINGS, **{k: changes[k] for k in changes if k in SETTINGS}}
    lr, beta, seed = settings["lr"], settings["beta"], settings["seed"]
    best, epochs = accuracy(lr, beta, seed), settings["epochs"]
    done = epochs if state == "done" else max(1, epochs // 2)
    rows: list[dict[str, Any]] = []
    learnt = 0.0
    for epoch in range(1, done + 1):
        learnt = best * (1 - 0.6 * math.exp(-epoch))
        for i in range(1, 5):
            step = 4 * (epoch - 1) + i
            energy = 3.0 / step + 0.1
            rows.append({"step": step, "epoch": epoch, "energy/free": energy, "energy/nudged":
                         energy + 0.05, "energy/difference": 0.05, "cost/free": 2 / step,
                         "cost/nudged": 1 / step, "relaxation/free_steps": 20,
                         "relaxation/free_residual": 10 ** (-3 - step / 20),
                         "relaxation/nudged_residual": 10 ** (-2 - step / 20),
                         "gradient_norm/W.0.weight": 1 / step})  # fmt: skip
        rows[-1] |= {"accuracy/train": min(1.0, learnt + 0.02), "accuracy/validation": learnt,
                     "time/train_s": 1.5, "time/eval_s": 0.1}  # fmt: skip
    rows[-1]["accuracy/test"] = learnt - 0.01
    write_rows(folder / "metrics.jsonl", rows)
    day = "2026-01-31T12:00"
    status: dict[str, Any] = {"pid": 1, "host": "there", "start": f"{day}:00.000+00:00"}
    status |= {"state": state, "reason": None, "end": f"{day}:16.500+00:00", "objective": None}
    status |= {"exit_code": 0, "objective": best} if state == "done" else {"exit_code": 1}
    status |= {key: changes[key] for key in changes if key in status}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(CONFIG.format(**settings))
    words = [f"optimizer.lr={lr}", f"estimator.beta={beta}", f"seed={seed}", "dataset=digits"]
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def add_details(folder: Path) -> None:
    """What a run records of its relaxations and mistakes."""
    lines = [
        {"epoch": epoch, "step": 100 * epoch, "phase": phase,
         "energy": [5 / epoch + rise * 0.2 + 4 * math.exp(-i / 6) for i in range(30)],
         "residual": [10 ** (-i / 8) for i in range(30)]}
        for epoch in range(1, 6) for rise, phase in enumerate(("free", "nudged"))
    ]  # fmt: skip
    write_rows(folder / "curves.jsonl", lines)
    confusion = [[90 if i == j else (3 * i + 5 * j) % 7 // 3 for j in range(10)] for i in range(10)]
    mistakes = [
        {"index": 7 * i, "target": i % 10, "predicted": (i + 3) % 10, "probability": 0.999 - i / 99}
        for i in range(12)
    ]
    found: Mapping[str, Any] = {"confusion": confusion, "classes": [str(i) for i in range(10)],
                                "mistakes": mistakes}  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(found))
    for name in ("filters", "states"):
        (folder / "pictures" / name).mkdir(parents=True)
        Image.fromarray(PIXELS).save(folder / "pictures" / name / "1.png")


def make_sweep(top: Path) -> Path:
    """3 × 3 points of two repeats, and one of each way to end badly; 22 runs."""
    number = 0
    for lr in (0.0003, 0.003, 0.03):
        for beta in (0.1, 0.5, 1.0):
            for seed in (1, 2):
                run = make_run(
                    top / f"{number}-gaussian-digits-{number:06x}", lr=lr, beta=beta, seed=seed
                )
                number += 1
    add_details(run)
    diverged = "the energy is not finite after step 17; a smaller optimizer.lr or dynamics.dt helps"
    make_run(top / f"{number}-diverged", "failed", lr=1.0, reason=diverged)
    make_run(top / f"{number + 1}-killed", "running", lr=1.0, beta=0.5)
    make_run(top / f"{number + 2}-interrupted", "interrupted", lr=0.03, seed=3, reason="SIGTERM")
    make_run(top / f"{number + 3}-left-early", "done", lr=0.03, seed=4, objective=None)
    return top
