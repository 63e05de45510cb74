"""What is not finite stops the run where it happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import before_step, with_code
from running import QUICK, rows, status, wandb_runs
from tape import Refusing
from torch import Tensor
from toys import BETA, DT, SIZES, STEPS, training

import eqprop
from eqprop.estimator import EquilibriumPropagation, Estimate, Estimator
from eqprop.network import ACTIVATIONS, Dense, Gaussian, Network, Nudge, State
from eqprop.relaxation import Euler
from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.loop import Training
from eqprop.training.session import Row, Session

HOPFIELD = ("model=hopfield", "dynamics=euler_50", "trainer.log_every=100")
NAN, INF = float("nan"), float("inf")


class Poisoned(EquilibriumPropagation):
    """Does something to the estimate of a step."""

    def __init__(self, step: int, poison: Callable[[Estimate], None]) -> None:
        super().__init__(BETA)
        self.left, self.poison = step, poison

    def estimate(self, *args: Any, **options: Any) -> Estimate:
        found = super().estimate(*args, **options)
        self.left -= 1
        if self.left == 0:
            self.poison(found)
        return found


class Slipping(Euler):
    """One number of the nudged state becomes another at the end of a step's relaxations."""

    def __init__(self, step: int, layer: int, value: float) -> None:
        super().__init__(dt=DT, n_relax=STEPS)
        self.left, self.layer, self.value = step, layer, value

    def relax(self, network: Network, state: State, nudge: Nudge | None, *args: Any) -> Any:
        found = super().relax(network, state, nudge, *args)
        self.left -= nudge is not None
        if self.left == 0:
            state.u[self.layer][1, 2] = self.value
            state.moved(self.layer)
        return found


class Breaking(Callback):
    """Breaks a weight in the update of a step: on the optimizer's account."""

    def __init__(self, step: int, name: str, value: float = NAN) -> None:
        self.at, self.name, self.value = step, name, value

    def on_step(self, session: Session, samples: int) -> None:
        if session.step == self.at:
            session.network.get_parameter(self.name).data.view(-1)[0] = self.value


def guarded(*callbacks: Callback, kind: str = "gaussian", **changes: Any) -> Training:
    return training(kind, *callbacks, DivergenceGuard(), **{"log_every": 1000, **changes})


def finite(run: Training) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in run.session.network.parameters())


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize(("layer", "value"), [(1, NAN), (2, NAN), (2, INF)])
def test_it_stops_at_that_step_before_the_weights_move(kind: str, layer: int, value: float) -> None:
    run = guarded(kind=kind, solver=Slipping(3, layer, value))
    message = rf"step 3 \(epoch 1\): the state of layer {layer} is not finite; lower dynamics.dt \("
    with pytest.raises(RunError, match=message):
        run.fit()
    assert finite(run)


@pytest.mark.parametrize("number", range(4))
def test_one_number_of_any_gradient(number: int) -> None:
    def poison(found: Estimate) -> None:
        found.gradients[number].view(-1)[-1] = NAN

    run = guarded(estimator=Poisoned(3, poison))
    name = [name for name, _ in run.session.network.named_parameters()][number]
    with pytest.raises(RunError, match=rf"step 3 \(epoch 1\): the gradient of {name} is not"):
        run.fit()
    assert finite(run)


class Scaled(eqprop.ConditionalGaussian):
    """An energy with parameters of unusual shapes: a single number, and one of four dimensions."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kernel = torch.nn.Parameter(torch.ones(1, 2, 1, 3))
        self.gain = torch.nn.Parameter(torch.tensor(1.0))

    def energy(self, u: Any) -> Tensor:
        return super().energy(u) * self.gain + self.kernel.square().sum()


@pytest.mark.parametrize("name", ["gain", "kernel"])
def test_a_parameter_of_any_shape(name: str) -> None:
    phi = ["identity", "tanh", "tanh"]
    network = Scaled(SIZES, eqprop.CrossEntropy(), 10, phi).double()
    number = [name for name, _ in network.named_parameters()].index(name)

    def poison(found: Estimate) -> None:
        found.gradients[number].view(-1)[-1] = INF

    run = guarded(network=network, estimator=Poisoned(2, poison))
    with pytest.raises(RunError, match=rf"step 2 .*the gradient of {name} is not finite"):
        run.fit()
    assert finite(run)


def test_an_energy_without_biases() -> None:
    edges = [Dense((6,), 8, bias=False), Dense((8,), 3, bias=False)]
    for layer, edge in enumerate(edges):
        edge.source, edge.target = layer, layer + 1
    phi = [ACTIVATIONS[name] for name in ("identity", "tanh", "tanh")]
    network = Network([(n,) for n in SIZES], phi, edges, Gaussian()).double()
    run = guarded(network=network, solver=Slipping(2, 1, NAN))
    assert len(list(network.parameters())) == 2
    with pytest.raises(RunError, match=r"step 2 .*the state of layer 1 is not finite"):
        run.fit()
    assert finite(run)


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_weight_shows_in_the_next_step(value: float) -> None:
    run = guarded(Breaking(2, "W.0.weight", value))
    with pytest.raises(RunError, match=r"step 3 \(epoch 1\): W.0.weight is not finite"):
        run.fit()


def test_a_weight_broken_by_the_last_step_of_an_epoch() -> None:
    """Such an epoch is neither evaluated nor recorded."""
    recorded: list[Row] = []
    run = guarded(Breaking(3, "W.1.weight"), record=recorded.append)
    with pytest.raises(RunError, match=r"step 3 .*W\.1\.weight is not finite"):
        run.fit()
    assert not any("time/train_s" in row for row in recorded)


@pytest.mark.parametrize("log_every", [2, 1000])
def test_on_a_gpu_the_first_bad_step_is_noted_and_named(log_every: int) -> None:
    """Nothing is asked of the device until a row is recorded or the epoch ends."""
    seen: list[int] = []

    class Unasked(DivergenceGuard):
        def on_gradient(self, session: Session, estimate: Estimate) -> None:
            with Refusing():
                super().on_gradient(session, estimate)
            seen.append(session.step)

    run = training(
        "gaussian", Unasked(deferred=True), solver=Slipping(1, 1, NAN), log_every=log_every
    )
    with pytest.raises(RunError, match=r"step 1 \(epoch 1\)"):
        run.fit()
    assert seen == ([1, 2] if log_every == 2 else [1, 2, 3])


class Unnudged(Estimator):
    """The gradient of the cost at the feed-forward pass: an estimator without β."""

    def estimate(self, network: Any, state: Any, solver: Any, cost: Any, target: Any,
                 *, update: Any = None, measure: bool = False) -> Estimate:  # fmt: skip
        with torch.enable_grad():
            x = state.u[0]
            for edge, phi in zip(network.W, network.phi, strict=False):
                x = edge(phi(x))
            loss = cost.cost(x, target).mean() * INF
            gradients = torch.autograd.grad(loss, list(network.parameters()))
        metrics = {"cost/free": loss.item()} if measure else {}
        return Estimate(list(gradients), x.detach(), metrics=metrics)


@pytest.mark.parametrize("guards", [[], [DivergenceGuard()]], ids=["row", "guard"])
def test_an_estimator_without_a_strength_is_not_told_to_lower_it(guards: list[Callback]) -> None:
    run = training("gaussian", *guards, estimator=Unnudged())
    with pytest.raises(RunError, match=r"step 1\b.* is not finite; lower dynamics\.dt") as caught:
        run.fit()
    assert "optimizer.lr (0.5)" in str(caught.value)
    assert "beta" not in str(caught.value)


def test_a_whole_run_that_diverges(tmp_path: Path) -> None:
    """Exit 1, one line, tracked as failed; the checkpoint before is kept, and is finite."""
    words = (*QUICK[:2], *HOPFIELD, "trainer.epochs=3", "hydra.run.dir=outputs/a")
    ran = with_code(before_step(20, "session.solver.dt = 1e30"), *words, cwd=tmp_path)
    assert ran.code == 1
    assert ran.error.startswith(
        "error: step 20 (epoch 2): the state of layer 1 is not finite; lower"
    )
    for key in ("dynamics.dt (1e+30)", "optimizer.lr (0.001)", "estimator.beta (1)"):
        assert key in ran.error
    found = status(tmp_path / "outputs" / "a")
    assert (found["state"], found["exit_code"]) == ("failed", 1)
    assert "step 20" in found["reason"]
    last = checkpoint.read(tmp_path / "outputs" / "a" / "checkpoints" / "last.pt")
    assert last.meta["step"] == 13
    assert all(torch.isfinite(tensor).all() for tensor in last.tensors()["model"].values())
    assert rows(tmp_path / "outputs" / "a")[-1]["step"] == 13
    (tracked,) = wandb_runs(tmp_path)
    assert tracked["state"] != "finished"


def test_a_row_that_is_not_finite_is_not_recorded() -> None:
    """Where states and gradients are finite and something measured is not."""
    recorded: list[Row] = []

    def poison(found: Estimate) -> None:
        found.metrics["energy/free"] = INF

    run = guarded(estimator=Poisoned(2, poison), log_every=1, record=recorded.append)
    with pytest.raises(RunError, match=r"step 2\b.*energy/free is not finite; lower dynamics.dt"):
        run.fit()
    assert [row["step"] for row in recorded] == [1]
