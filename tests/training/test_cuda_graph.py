"""The training step on a pretended GPU, and when it is captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tape import Refusing
from test_captured_step import SOLVERS
from test_noise import NOISES
from torch._subclasses.fake_tensor import FakeTensorMode
from toys import recorded, weights

import eqprop
from eqprop.cli.build import build_session
from eqprop.cli.device import captures
from eqprop.config.compose import compose
from eqprop.config.validation import validate_composed
from eqprop.data import Data, Split
from eqprop.estimator import CenteredEquilibriumPropagation
from eqprop.network import ACTIVATIONS, Network, energy
from eqprop.relaxation import Euler, Exact, Newton, Solver
from eqprop.run import hardware
from eqprop.run.errors import ConfigError
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.loop import Training
from eqprop.training.optimizer import build_optimizer
from eqprop.training.scheduler import build_schedule
from eqprop.training.session import Session
from eqprop.training.step import Batch, CapturedStep, CudaGraphs, PlainStep

PRETENDED = FakeTensorMode()
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


@pytest.fixture(autouse=True)
def _no_constant_of_a_real_gpu() -> Iterator[None]:
    energy._one.cache_clear()
    yield
    energy._one.cache_clear()


@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "relu", "hard_sigmoid", "softplus"])
@pytest.mark.parametrize(
    ("kind", "cost"),
    [("ConditionalGaussian", "CrossEntropy"), ("RestrictedHopfield", "SquaredError")],
)
def test_on_pretended_cuda_nothing_goes_between_host_and_device(
    phi: str, kind: str, cost: str
) -> None:
    """Tensors that only pretend to lie on a GPU, but refuse what would need their numbers."""
    solvers = [make() for make in SOLVERS.values()]
    if (kind, cost) == ("RestrictedHopfield", "SquaredError") and ACTIVATIONS[phi].pieces:
        solvers.append(Exact())
    with PRETENDED, torch.device("cuda"):
        for solver in solvers:
            step_on_cuda(kind, phi, cost, solver)


@pytest.mark.parametrize("init", ["previous", "per_example"])
def test_nor_do_clipping_and_kept_states(init: Any) -> None:
    with PRETENDED, torch.device("cuda"):
        solver = Euler(n_relax=3, init=init)
        step_on_cuda("RestrictedHopfield", "tanh", "SquaredError", solver, clip_norm=0.1)


@pytest.mark.parametrize("name", NOISES)
def test_nor_does_noise(name: str) -> None:
    with PRETENDED, torch.device("cuda"):
        solver, noise = Newton(n_relax=2), NOISES[name]()
        step_on_cuda("RestrictedHopfield", "tanh", "SquaredError", solver, noise=noise)


@pytest.mark.parametrize("option", ["cosine", "exponential", "step", "warmup_cosine"])
def test_nor_does_a_schedule(option: str) -> None:
    """By itself: the fused optimizers cannot pretend with a rate on the device."""
    cfg = compose([f"scheduler={option}", "scheduler.every=step"]).scheduler
    with PRETENDED, torch.device("cuda"):
        optimizer = torch.optim.Adam(network().parameters(), lr=0.1, capturable=True)
        schedule = build_schedule(cfg, optimizer, 1, 30, captured=True)
        with Refusing():
            for _ in range(30):
                schedule.end("step")
        assert optimizer.param_groups[0]["lr"].device.type == "cuda"


def step_on_cuda(kind: str, phi: str, cost: str, solver: Solver, **more: Any) -> None:
    model = network(kind, phi)
    samples = torch.arange(10)
    split = Split(torch.empty(20, 6), torch.zeros(20, dtype=torch.int64))
    session = Session(
        network=model,
        cost=getattr(eqprop, cost)(),
        solver=solver,
        estimator=CenteredEquilibriumPropagation(0.5),
        optimizer=torch.optim.Adam(model.parameters(), fused=True, capturable=True),
        data=Data(split, None, split, 3, 10, (6,)),
        generator=torch.Generator("cpu"),
        seed=1,
        epochs=1,
        **more,
    )
    guard = DivergenceGuard()
    guard.on_start(session)
    with Refusing():
        for session.step in (1, 2):
            session.begin_step(samples)
            correct = PlainStep()(session, [guard], Batch(split.x[:10], split.y[:10])).correct
            session.end_step(samples)
    assert correct.device.type == "cuda"


def network(kind: str = "ConditionalGaussian", phi: str = "tanh") -> Network:
    cost = eqprop.SquaredError()
    model: Network = getattr(eqprop, kind)([6, 5, 3], cost, 10, ["identity", phi, phi])
    return model


class TestTheOption:
    @pytest.mark.parametrize(
        ("overrides", "needs"),
        [
            (["device=cpu"], "only a GPU has it"),
            (["device=auto"], "only a GPU has it"),
            (["device=cuda", "dynamics.tol=1e-3"], r"dynamics\.tol=0\.001"),
            (["device=cuda", "dynamics=anderson"], "dynamics=anderson"),
            (["device=cuda", "optimizer=adagrad"], "optimizer=adagrad"),
        ],
        ids=str,
    )
    def test_true_where_it_cannot_be(
        self, overrides: list[str], needs: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hardware, "gpu_count", lambda: int("device=cuda" in overrides))
        cfg = compose([*overrides, "device.cuda_graph=true"])
        with pytest.raises(ConfigError, match=f"^device.cuda_graph=true: .*{needs}"):
            validate_composed(cfg)
        config = validate_composed(compose(overrides))
        assert not captures(config, torch.device("cuda")), "auto is silently plain"

    def test_where_it_can_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hardware, "gpu_count", lambda: 1)
        for wanted, expected in {"auto": True, "true": True, "false": False}.items():
            config = validate_composed(compose(["device=cuda", f"device.cuda_graph={wanted}"]))
            assert captures(config, torch.device("cuda")) is expected
            assert not captures(config, torch.device("cpu"))

    def test_another_value(self) -> None:
        line = r"device.cuda_graph='maybe': must be"
        with pytest.raises(ConfigError, match=line):
            validate_composed(compose(["device.cuda_graph=maybe"]))

    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    def test_the_optimizer_counts_on_the_device(self, optimizer: str) -> None:
        node = compose([f"optimizer={optimizer}"]).optimizer
        made = build_optimizer(node, network(), captured=True)
        assert made.defaults.get("capturable", True)

    def test_an_optimizer_that_cannot(self) -> None:
        node = compose(["optimizer=adagrad"]).optimizer
        with pytest.raises(ConfigError, match="takes no capturable=True"):
            build_optimizer(node, network(), captured=True)


ON_DEVICE = ("ASGD", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ON_DEVICE)
def test_on_a_gpu_a_replayed_step_is_clipped_and_scheduled(name: str) -> None:
    keys = ["dataset=digits", "model=hopfield", "model.hidden=[16]", "device=cuda"]
    keys += ["dynamics.init=per_example", "scheduler=cosine", "scheduler.every=step"]
    cfg = compose([*keys, "trainer.epochs=3"])
    cfg.optimizer = {"_target_": f"torch.optim.{name}", "lr": [0.01, 0.02], "clip_norm": 0.1}
    found, rates = [], []
    for step in (PlainStep(), CapturedStep(CudaGraphs(torch.device("cuda")))):
        run = Training(build_session(cfg, validate_composed(cfg)), take_step=step, log_every=9)
        rows = [row for row in recorded(run) if "energy/free" in row]
        rates.append([row["learning_rate/W.1.bias"] for row in rows])
        found.append(weights(run))
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == len(rates[0])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
