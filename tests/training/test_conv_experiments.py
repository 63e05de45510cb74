"""The conv experiments on small data of the right shape, each beside its twin by backprop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from idx_files import make_mnist
from published_files import stand_in
from running import train

from eqprop.cli.build import build_session
from eqprop.config.compose import compose
from eqprop.config.validation import validate_composed
from eqprop.data import one_hot
from eqprop.training.loop import Training
from eqprop.training.session import Session

SHAPES = {
    "pcn_lenet_mnist": (1, 28, 28),
    "hopfield_lenet_mnist": (1, 28, 28),
    "pcn_vgg5_mnist": (1, 32, 32),
    "pcn_vgg5_cifar10": (3, 32, 32),
}
LENET = [name for name in SHAPES if "lenet" in name]
CODING = [name for name in SHAPES if name.startswith("pcn")]
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
            if "cifar10" in experiment:
                stand_in("CIFAR10", tmp_path, monkeypatch)
            else:
                make_mnist(tmp_path)
        cfg = compose([f"experiment={experiment}", f"paths.data={tmp_path}", *SMALL, *more])
        return build_session(cfg, validate_composed(cfg))

    return session


@pytest.mark.parametrize("more", [(), (TWIN,)], ids=["as it is", "twin"])
@pytest.mark.parametrize("experiment", SHAPES)
def test_it_trains_two_batches(experiment: str, more: tuple[str, ...], make: Make) -> None:
    session = make(experiment, *more)
    assert session.data.sample_shape == SHAPES[experiment]
    before = [p.detach().clone() for p in session.network.parameters()]
    Training(session).fit()
    assert session.step == 2
    for (name, now), old in zip(session.network.named_parameters(), before, strict=True):
        assert now.isfinite().all(), name
        assert not now.equal(old), name


@pytest.mark.parametrize("experiment", SHAPES)
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
