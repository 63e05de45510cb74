"""A whole configuration as plain values, changes to it, and how they are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from eqprop.config.validation import validate
from eqprop.run.errors import ConfigError

PLAIN: dict[str, Any] = {
    "seed": 2019,
    "name": None,
    "resume": None,
    "rerun": None,
    "checkpoint": {"every": 1, "every_steps": None, "keep": 0, "share": 0.01},
    "model": {
        "_target_": "eqprop.ConditionalGaussian",
        "hidden": [1000],
        "activation": "sigmoid",
    },
    "cost": {"_target_": "eqprop.CrossEntropy"},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3},
    "device": {
        "type": "auto",
        "index": 0,
        "dtype": "float32",
        "threads": None,
        "deterministic": False,
        "compile": False,
    },
    "dataset": {
        "_target_": "eqprop.data.MNIST5k",
        "batch_size": 100,
        "validation": 0.1,
        "limit": None,
        "normalize": [0.1307, 0.3081],
        "download": False,
    },
    "dynamics": {"_target_": "eqprop.relaxation.Euler", "dt": 0.1, "n_relax": 20},
    "estimator": {"_target_": "eqprop.estimator.EquilibriumPropagation", "beta": 1.0},
    "trainer": {
        "epochs": 20,
        "log_every": 50,
        "eval_every": 1,
        "eval_batch_size": 1000,
        "progress": None,
    },
    "tracking": {
        "project": "eqprop",
        "entity": None,
        "group": None,
        "tags": [],
        "notes": None,
        "trackers": {"wandb": {"_target_": "eqprop.tracking.WandbTracker", "mode": "offline"}},
    },
    "paths": {"data": "data", "outputs": "outputs"},
}
GONE = type("_Removed", (), {})


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    cfg = copy.deepcopy(PLAIN)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = cfg
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return cfg


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(changed(changes))
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert caught.value.exit_code == 2
    return text
