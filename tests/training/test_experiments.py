"""The published set-ups on small data of the right shape, each beside its twin by backprop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from idx_files import make_mnist
from omegaconf import OmegaConf
from published_files import stand_in
from running import train

from eqprop.cli.build import build_session
from eqprop.config.compose import compose
from eqprop.config.folder import conf_dir
from eqprop.config.validation import validate_composed
from eqprop.data import one_hot
from eqprop.training.loop import Training
from eqprop.training.session import Session

KINDS = {
    "fashion_mnist": "FashionMNIST",
    "mnist": "MNIST",
    "cifar100": "CIFAR100",
    "cifar10": "CIFAR10",
    "svhn": "SVHN",
}
"""What the data set of an experiment is called, by a part of the experiment's name."""
FAST = "dynamics.n_relax=2", "dynamics.n_nudged=6"  # so many reach the first weights of all
NETWORKS = ("rain_dhn_1h", "rain_dchn_cifar10", "lab_cifar10_mse", "lab_cifar10_ce")
SHAPES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("gaussian_mnist", "hopfield_mnist"), (1, 28, 28)),
    **dict.fromkeys(("gaussian_mnist_fast", "hopfield_mnist_fast"), (1, 28, 28)),
    **dict.fromkeys(("pcn_lenet_mnist", "hopfield_lenet_mnist"), (1, 28, 28)),
    **dict.fromkeys(("rain_dhn_1h", "rain_dhn_2h", "rain_dhn_3h"), (1, 28, 28)),
    **dict.fromkeys(("scellier_2017_1h", "scellier_2017_2h", "scellier_2017_3h"), (1, 28, 28)),
    **dict.fromkeys(("ernoult_conv_mnist", "hep_mnist"), (1, 28, 28)),
    **dict.fromkeys(("kerjan_vgg5_mnist", "pcn_vgg5_mnist"), (1, 32, 32)),
    **dict.fromkeys(("kerjan_vgg5_cifar10", "pcn_vgg5_cifar10"), (3, 32, 32)),
    **dict.fromkeys(("rain_dchn_mnist", "rain_dchn_fashion_mnist"), (1, 32, 32)),
    **dict.fromkeys(("rain_dchn_svhn", "rain_dchn_cifar10", "rain_dchn_cifar100"), (3, 32, 32)),
    **dict.fromkeys(("rain_dchn_cifar10_tuned", "rain_dchn_cifar100_tuned"), (3, 32, 32)),
    **dict.fromkeys(("lab_cifar10_mse", "lab_cifar10_ce", "hres13_cifar10"), (3, 32, 32)),
}
"""One sample of each experiment."""
LENET = [name for name in SHAPES if "lenet" in name]
CODING = [name for name in SHAPES if name.startswith(("pcn", "kerjan"))]
TWIN = "estimator=backprop"
SMALL = (
    *("device=cpu", "device.threads=1", "tracking=none", "dataset.download=false"),
    *("dataset.batch_size=2", "trainer.epochs=1", "trainer.limit_batches=2"),
)
Make = Callable[..., Session]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(experiment, overrides …): its session, on files with a few pictures."""

    def session(experiment: str, *more: str) -> Session:
        if not any(tmp_path.iterdir()):
            kind = next((kind for part, kind in KINDS.items() if part in experiment), "MNIST")
            if "MNIST" in kind:
                make_mnist(tmp_path, kind)
            else:
                stand_in(kind, tmp_path, monkeypatch)
        cfg = compose([f"experiment={experiment}", f"paths.data={tmp_path}", *SMALL, *more])
        return build_session(cfg, validate_composed(cfg))

    return session


def test_each_experiment_is_here() -> None:
    assert sorted(SHAPES) == sorted(path.stem for path in (conf_dir() / "experiment").iterdir())


@pytest.mark.parametrize("more", [(), (TWIN,)], ids=["as it is", "twin"])
@pytest.mark.parametrize("experiment", SHAPES)
def test_it_trains_two_batches(experiment: str, more: tuple[str, ...], make: Make) -> None:
    session = make(experiment, *FAST, *more)
    assert session.data.sample_shape == SHAPES[experiment]
    before = [p.detach().clone() for p in session.network.parameters()]
    Training(session).fit()
    assert session.step == 2
    for (name, now), old in zip(session.network.named_parameters(), before, strict=True):
        assert now.isfinite().all(), name
        assert not now.equal(old), name


@pytest.mark.parametrize("experiment", [*LENET, *NETWORKS])
def test_its_twin_is_the_very_same_network(experiment: str, make: Make) -> None:
    ours, twin = (make(experiment, *more).network.state_dict() for more in ((), (TWIN,)))
    assert list(ours) == list(twin)
    for name, weights in ours.items():
        assert weights.equal(twin[name]), name


@pytest.mark.parametrize("experiment", CODING)
def test_predictive_coding_follows_its_twin(experiment: str, make: Make) -> None:
    """A nudge of 0.02 gives the direction of backprop's gradient in every parameter."""
    ours, twin = (gradients(make(experiment, *more)) for more in ((), (TWIN,)))
    for name, gradient in ours.items():
        assert torch.cosine_similarity(gradient, twin[name], 0) > 0.99, name


def gradients(session: Session) -> dict[str, torch.Tensor]:
    """Of the first batch, flat, by the parameter's name."""
    network, data = session.network, session.data
    x, y = next(data.train.batches(data.batch_size))
    state, target = session.state(len(x)), one_hot(y, data.n_classes, x.dtype)
    state.clamp(0, x)
    parts = network, state, session.solver, session.cost, target
    found = session.estimator.estimate(*parts).gradients
    names = (name for name, _ in network.named_parameters())
    return {name: gradient.flatten() for name, gradient in zip(names, found, strict=True)}


@pytest.mark.parametrize("experiment", LENET)
def test_the_command_trains_it(experiment: str, tmp_path: Path) -> None:
    """And has nothing to complain about."""
    data = f"paths.data={make_mnist(tmp_path / 'data')}"
    words = (f"experiment={experiment}", data, *SMALL, "trainer.log_every=1")
    ran = train(*words, cwd=tmp_path).succeeded()
    assert [row["step"] for row in ran.rows] == [1, 2, 2]
    assert ran.status["state"] == "done"


TAKEN_OVER: dict[str, dict[str, Any]] = {
    "rain_dhn_3h": {"model.gain": 0.7, "dataset.normalize": None, "scheduler.gamma": 0.99},
    "scellier_2017_3h": {"estimator.per": "batch", "dynamics.dt": 0.5, "trainer.epochs": 500},
    "rain_dchn_mnist": {"dataset.pad": 2, "dataset.augment.mode": "edge", "estimator.beta": 0.25},
    "rain_dchn_svhn": {"model.gain": 0.7, "dataset.augment.crop": 4, "dataset.augment.flip": False},
    "rain_dchn_cifar100_tuned": {
        "dataset._target_": "eqprop.data.CIFAR100",
        "dataset.augment.flip": True,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 3.5e-4,
    },
    "lab_cifar10_ce": {
        "cost._target_": "eqprop.CrossEntropy",
        "model.activation": "half_hard_sigmoid",
        "dynamics.n_relax": 250,
        "scheduler.T_max": 100,
    },
    "kerjan_vgg5_cifar10": {"dataset.pad": 0, "dataset.augment.crop": 4, "estimator.beta": -0.02},
    "pcn_vgg5_cifar10": {"dataset.batch_size": 16, "optimizer.lr": 0.04, "estimator.beta": 0.02},
}
"""Of experiments that name another one: what they change, and what they leave."""


@pytest.mark.parametrize("experiment", TAKEN_OVER)
def test_an_experiment_takes_over_what_it_does_not_change(experiment: str) -> None:
    cfg = compose([f"experiment={experiment}"])
    found = {key: OmegaConf.select(cfg, key) for key in TAKEN_OVER[experiment]}
    assert found == TAKEN_OVER[experiment]


def test_the_command_line_wins_over_both_files() -> None:
    cfg = compose(["experiment=rain_dchn_svhn", "dataset=cifar10", "model.gain=2"])
    assert (cfg.dataset._target_, cfg.model.gain) == ("eqprop.data.CIFAR10", 2)
