"""A run's optimizer is what its configuration says, or one line that names the key."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from configs import refusal
from omegaconf import OmegaConf
from tape import Tape
from toys import LR, network, recorded, same, splits, training, weights

import eqprop
from eqprop.estimator import Estimate
from eqprop.network import Dense, Gaussian, Network, Skip, chain
from eqprop.run.errors import ConfigError
from eqprop.training.callback import Callback
from eqprop.training.optimizer import build_optimizer, by_layer
from eqprop.training.session import Session
from eqprop.training.step import CapturedStep


def built(target: str, **keys: Any) -> torch.optim.Optimizer:
    return build_optimizer(OmegaConf.create({"_target_": target, **keys}), network())


def test_it_has_the_keys_and_moves_every_parameter() -> None:
    made = built("torch.optim.SGD", lr=0.25, momentum=0.5)
    (group,) = made.param_groups
    assert (group["lr"], group["momentum"], group["fused"]) == (0.25, 0.5, True)
    assert [p.shape for p in group["params"]] == [p.shape for p in network().parameters()]


def test_frozen_weights_stay() -> None:
    net = network()
    net.edges[0].requires_grad_(False)
    made = build_optimizer(OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.1}), net)
    moved = {id(p) for group in made.param_groups for p in group["params"]}
    assert moved == {id(p) for edge in net.edges[1:] for p in edge.parameters()}


@pytest.mark.parametrize(
    ("target", "keys", "words"),
    [
        ("torch.optim.Adadelta", {"rho": 2.0}, "optimizer.rho=2.0: "),
        ("torch.optim.SGD", {"lr": 0.1, "nesterov": True}, "optimizer.nesterov=true: "),
        ("torch.optim.Adam", {"betas": [0.5, 1.5]}, "optimizer: .*beta.* 1.5"),
        ("torch.optim.Adam", {"speed": 1}, "optimizer.speed=1: "),
    ],
)
def test_what_it_refuses_names_the_key(target: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}") as caught:
        built(target, **keys)
    assert "\n" not in str(caught.value)


# one rate a layer

OTHERS = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}  # they take no such parameters at all


def gradients(model: Network) -> None:
    for i, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(i)
        shape, dtype = parameter.shape, parameter.dtype
        parameter.grad = torch.randn(shape, generator=generator, dtype=dtype)


def optimizers() -> list[str]:
    found = [name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)]
    return [name for name in found if name not in OTHERS]


@pytest.mark.parametrize("name", optimizers())
def test_a_list_is_as_an_optimizer_for_each_layer(name: str) -> None:
    model, other = network(), network()
    node = OmegaConf.create({"_target_": f"torch.optim.{name}", "lr": [0.5, 0.01]})
    ours = [build_optimizer(node, model)]
    kind = getattr(torch.optim, name)
    theirs = [
        kind(list(edge.parameters()), lr=rate)
        for edge, rate in zip(other.W, (0.5, 0.01), strict=True)
    ]
    for _ in range(3):
        for net, makers in ((model, ours), (other, theirs)):
            gradients(net)
            for optimizer in makers:
                optimizer.step()
    for mine, yours in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, yours)


def test_a_skip_moves_with_the_layer_that_it_ends_in() -> None:
    skip = Skip(0, 2, lambda shape: Dense(shape, 5, bias=False))
    phi = ["identity", *["tanh"] * 3]
    model = chain(Gaussian, (6,), [4, 5], 3, phi, eqprop.SquaredError(), 2, [skip])
    groups = by_layer(model, [0.1, 0.2, 0.3])
    shapes = [sorted(tuple(p.shape) for p in group["params"]) for group in groups]
    assert shapes == [[(4,), (4, 6)], [(5,), (5, 4), (5, 6)], [(3,), (3, 5)]]
    assert [group["lr"] for group in groups] == [0.1, 0.2, 0.3]


def test_what_belongs_to_no_edge_moves_with_the_output() -> None:
    model = network()
    model.own = torch.nn.Parameter(torch.zeros(7))
    assert by_layer(model, [0.1, 0.2])[1]["params"][-1] is model.own


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([0.1], r"optimizer.lr=\[0.1\]: 1 given, but there are 2 weighted layers"),
        ([0.1] * 3, "3 given, but there are 2 weighted"),
        ([0.1, 0], r"optimizer.lr=\[0.1, 0\]: must be a number > 0 or a list"),
        ([], "must be a number > 0 or a list of at least 1"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(rates: list[float], words: str) -> None:
    assert re.search(words, refusal({"optimizer.lr": rates}))


# clipping


class ByTorch(Callback):
    """Takes the same steps with another network, by torch's own clipping."""

    def __init__(self, norm: float) -> None:
        self.norm, self.network = norm, network("hopfield")
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=LR)
        self.seen: list[float] = []

    def on_gradient(self, session: Session, estimate: Estimate) -> None:
        for p, gradient in zip(self.network.parameters(), estimate.gradients, strict=True):
            p.grad = gradient.clone()
        total = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.norm)
        self.seen.append(float(total))
        self.optimizer.step()


@pytest.mark.parametrize("norm", [0.1, 0.8, 1e6])
def test_the_gradient_is_clipped_as_torch_does_it(norm: float) -> None:
    callback = ByTorch(norm)
    run = training("hopfield", callback, clip_norm=norm)
    rows = [row for row in recorded(run) if "energy/free" in row]
    assert same(weights(run), [p.detach() for p in callback.network.parameters()])
    logged = [
        sum(v**2 for k, v in row.items() if k.startswith("gradient_norm/")) ** 0.5 for row in rows
    ]
    assert logged == pytest.approx(callback.seen), "what is logged is the gradient itself"
    assert min(logged) < 0.8 < max(logged), "some are clipped at 0.8, some are not"


def test_without_a_norm_nothing_is_clipped() -> None:
    runs = [training("hopfield", **parts) for parts in ({}, {"clip_norm": 1e6}, {"clip_norm": 0.1})]
    for run in runs:
        run.fit()
    plain, wide, narrow = map(weights, runs)
    assert same(plain, wide)
    assert not same(plain, narrow)


def test_a_captured_step_clips() -> None:
    tape, data = Tape(), splits(n_train=123)
    parts = {"data": data, "clip_norm": 0.05, "log_every": 7}
    plain, captured = training(**parts), training(take_step=CapturedStep(tape), **parts)
    plain.fit(), captured.fit()
    assert same(weights(plain), weights(captured))
    assert tape.replayed > 10


@pytest.mark.parametrize("norm", [0, -1, "much"])
def test_a_norm_that_is_none_is_one_line(norm: Any) -> None:
    assert "optimizer.clip_norm=" in refusal({"optimizer.clip_norm": norm})
