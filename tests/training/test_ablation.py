"""Frozen layers do not move by a bit, whatever the optimizer; what is above them learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from running import QUICK, train
from toys import network, recorded, training, weights

import eqprop
from eqprop.cli.build import build_session
from eqprop.config.compose import compose
from eqprop.config.validation import validate_composed
from eqprop.estimator import Backprop, CenteredEquilibriumPropagation
from eqprop.network import Dense, Gaussian, Skip, chain
from eqprop.training.ablation import FrozenLower
from eqprop.training.loop import Training

OPTIMIZERS = {
    "momentum": ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.1"],
    "nesterov": ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true"],
    "adamw": ["optimizer=adamw", "optimizer.weight_decay=0.1"],
    "adam": ["optimizer=adam", "optimizer.weight_decay=0.1", "optimizer.clip_norm=0.01"],
    "adagrad": ["optimizer=adagrad"],
    "a rate a layer": ["optimizer.lr=[0.1,0.2,0.3]"],
}
PLAIN = ("dataset=digits", "model.hidden=[12,8]", "trainer.epochs=1", "ablation=frozen_lower")


@pytest.mark.parametrize("estimator", ["ep", "ep_centered", "backprop"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_the_output_s_weights_learn(optimizer: str, estimator: str) -> None:
    cfg = compose([*PLAIN, *OPTIMIZERS[optimizer], f"estimator={estimator}"])
    session = build_session(cfg, validate_composed(cfg))
    named = list(session.network.named_parameters())
    before = {name: p.detach().clone() for name, p in named}
    rows: list[Any] = []
    Training(session, record=rows.append, log_every=5).fit()
    assert {name: torch.equal(p, before[name]) for name, p in named} == {
        **{f"W.{i}.{part}": True for i in (0, 1) for part in ("weight", "bias")},
        **{f"W.2.{part}": False for part in ("weight", "bias")},
    }
    assert {f"gradient_norm/{name}" for name, _ in named} <= rows[0].keys()
    assert rows[0]["gradient_norm/W.0.weight"] > 0
    if optimizer == "a rate a layer":
        assert rows[0]["learning_rate"] == 0.3


@pytest.mark.parametrize("estimator", [CenteredEquilibriumPropagation(0.5), Backprop()])
def test_the_output_learns_as_if_the_others_were_given(estimator: Any) -> None:
    """Against an optimizer of which the other layers' gradients are taken away; clipped too."""
    model = network()
    frozen = FrozenLower().trained(model)
    assert [tuple(p.shape) for p in frozen] == [(3, 8), (3,)]
    parts = {"network": model, "estimator": estimator, "clip_norm": 0.05}
    run = training(optimizer=lambda _: torch.optim.SGD(frozen, lr=0.5), **parts)
    recorded(run)

    class Alone(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            *others, weight, bias = self.param_groups[0]["params"]
            torch.nn.utils.clip_grad_norm_([weight, bias], 0.05)
            for p in others:
                p.grad = torch.zeros_like(p)
            super().step(closure)

    other = training(optimizer=lambda ps: Alone(ps, lr=0.5), estimator=estimator)
    recorded(other)
    for ours, theirs in zip(weights(run), weights(other), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_skip_into_the_output_learns() -> None:
    skip = Skip(1, 3, lambda shape: Dense(shape, 3, bias=False))
    phi = ["identity", *["tanh"] * 3]
    model = chain(Gaussian, (6,), [4, 5], 3, phi, eqprop.SquaredError(), 2, [skip])
    shapes = sorted(tuple(p.shape) for p in FrozenLower().trained(model))
    assert shapes == [(3,), (3, 4), (3, 5)]


def test_the_command_records_it(tmp_path: Path) -> None:
    ran = train(*QUICK, "ablation=frozen_lower", "noise=weights", cwd=tmp_path).succeeded()
    text = (ran.folder / ".hydra" / "config.yaml").read_text()
    assert "eqprop.training.ablation.FrozenLower" in text
    assert "eqprop.training.noise.WeightNoise" in text
    assert "-gaussian-digits-noise_weights-frozen_lower-" in ran.folder.name
