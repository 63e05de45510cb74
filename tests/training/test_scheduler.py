"""The learning rate over a run, against torch's own schedulers stepped by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tape import Tape
from torch.optim import SGD, lr_scheduler
from toys import adam, recorded, same, training, weights

from eqprop.config.compose import compose
from eqprop.config.validation import validate_composed
from eqprop.run import checkpoint
from eqprop.run.errors import ConfigError
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.loop import Training
from eqprop.training.optimizer import build_optimizer
from eqprop.training.scheduler import build_schedule
from eqprop.training.session import Row, Session
from eqprop.training.step import CapturedStep

EPOCHS, STEPS = 6, 3
RATE = 0.125  # exact in float32, as the rates of a captured step are


def scheduled(
    *overrides: str, epochs: int = EPOCHS, captured: bool = False, rates: Any = RATE, **parts: Any
) -> Training:
    """A training of epochs of three steps with a schedule from the configuration's files."""
    if captured:
        parts["take_step"] = CapturedStep(Tape())
    run = training("hopfield", *parts.pop("callbacks", ()), epochs=epochs, **parts)
    session, node = run.session, OmegaConf.create({"_target_": "torch.optim.Adam", "lr": rates})
    session.optimizer = build_optimizer(node, session.network)
    cfg = compose(overrides).scheduler
    length = session.epochs, session.steps_an_epoch
    session.schedule = build_schedule(cfg, session.optimizer, *length, captured)
    return run


def logged(rows: list[Row]) -> list[float]:
    return [row["learning_rate"] for row in rows if "learning_rate" in row]


def by_hand(make: Callable[[Any], Any], every: str, epochs: int = EPOCHS) -> list[float]:
    """The rate of each step, by a scheduler of torch's."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler, found = make(optimizer), []
    for _ in range(epochs):
        for _ in range(STEPS):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if every == "step":
                scheduler.step()
        if every == "epoch":
            scheduler.step()
    return found


def warmup(optimizer: Any) -> Any:
    """18 steps, of which 5 are a third."""
    rise = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, 13, 1e-3)
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], [5])


LIKE_TORCH: dict[str, tuple[list[str], str, Callable[[Any], Any]]] = {
    "constant": ([], "epoch", lambda o: lr_scheduler.ConstantLR(o, 1.0, 0)),
    "cosine": (
        ["scheduler=cosine", "scheduler.eta_min=1e-3"],
        "epoch",
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, 1e-3),
    ),
    "cosine by step": (
        ["scheduler=cosine", "scheduler.every=step"],
        "step",
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS),
    ),
    "cosine of its own length": (
        ["scheduler=cosine", "scheduler.T_max=4"],
        "epoch",
        lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    ),
    "exponential": (
        ["scheduler=exponential", "scheduler.gamma=0.75"],
        "epoch",
        lambda o: lr_scheduler.ExponentialLR(o, 0.75),
    ),
    "step": (
        ["scheduler=step", "scheduler.step_size=2", "scheduler.gamma=0.5"],
        "epoch",
        lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    ),
    "warmup_cosine": (
        ["scheduler=warmup_cosine", "scheduler.warmup=0.3", "scheduler.eta_min=1e-3"],
        "step",
        warmup,
    ),
    "any other": (
        [
            "scheduler._target_=torch.optim.lr_scheduler.PolynomialLR",
            "+scheduler.power=2",
            "+scheduler.total_iters=4",
        ],
        "epoch",
        lambda o: lr_scheduler.PolynomialLR(o, 4, 2),
    ),
    "one that needs the run's length": (
        [
            "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR",
            "+scheduler.max_lr=0.5",
            "+scheduler.cycle_momentum=false",
            "scheduler.every=step",
        ],
        "step",
        lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=EPOCHS * STEPS, cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("name", LIKE_TORCH)
@pytest.mark.parametrize("captured", [False, True])
def test_the_logged_rate_is_torch_s(name: str, captured: bool) -> None:
    overrides, every, make = LIKE_TORCH[name]
    validate_composed(compose(overrides))
    found = logged(recorded(scheduled(*overrides, captured=captured)))
    if captured:  # the rates are float32 there
        assert found == pytest.approx(by_hand(make, every), rel=1e-5, abs=1e-8)
    else:
        assert found == by_hand(make, every)


def test_the_rate_is_the_one_that_a_step_is_taken_with() -> None:
    """Steps of plain SGD are as long as the rate says."""
    moves: list[float] = []

    class Moves(Callback):
        def on_gradient(self, session: Session, estimate: Any) -> None:
            self.before = [p.detach().clone() for p in session.network.parameters()]
            self.gradients = [g.clone() for g in estimate.gradients]

        def on_step(self, session: Session, samples: int) -> None:
            pairs = zip(session.network.parameters(), self.before, strict=True)
            moved = torch.cat([(p.detach() - before).flatten() for p, before in pairs])
            gradient = torch.cat([g.flatten() for g in self.gradients])
            moves.append(float(moved.norm() / gradient.norm()))

    run = training("hopfield", Moves(), epochs=3)
    cfg = compose(["scheduler=cosine", "scheduler.every=step"]).scheduler
    run.session.schedule = build_schedule(cfg, run.session.optimizer, 3, STEPS)
    rates = logged(recorded(run))
    assert len(set(rates)) == 9
    assert moves == pytest.approx(rates, rel=1e-9)


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_a_captured_step_does_not_freeze_the_rate(every: str) -> None:
    """Against the plain step; the rate lies where a replay reads it, so one capture is enough."""
    options = ("scheduler=cosine", f"scheduler.every={every}")
    plain, captured = (
        scheduled(*options, epochs=9, captured=captured, log_every=10**6)
        for captured in (False, True)
    )
    for run in (plain, captured):
        run.fit()
    for ours, theirs in zip(weights(captured), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    tape = captured.take_step.backend  # type: ignore[attr-defined]
    assert (tape.captured, tape.replayed) == (1, 9 * 2 - tape.warmed)
    constant = scheduled(epochs=9, captured=True, log_every=10**6)
    constant.fit()
    assert not same(weights(constant), weights(captured))


class Saving(Callback):
    """Keeps what would be saved at each step, and at each end of an epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step(self, session: Session, samples: int) -> None:
        checkpoint.write(self.folder / f"{session.step}.pt", *snapshot.capture(session))

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        checkpoint.write(self.folder / f"{session.step}-end.pt", *snapshot.capture(session))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("name", ["cosine", "cosine by step", "warmup_cosine", "step"])
def test_it_goes_on_with_the_same_bytes(name: str, captured: bool, tmp_path: Path) -> None:
    overrides, _, _ = LIKE_TORCH[name]
    keys: dict[str, Any] = {"captured": captured, "log_every": 2}
    whole = scheduled(*overrides, callbacks=[Saving(tmp_path)], **keys)
    expected = logged(recorded(whole))
    for file in ("1", "3", "3-end", "8", "12-end", "17"):
        rest = scheduled(*overrides, **keys)
        snapshot.restore(rest.session, checkpoint.read(tmp_path / f"{file}.pt"))
        found = logged(recorded(rest))
        assert found == expected[len(expected) - len(found) :]
        assert same(weights(rest), weights(whole)), file
        kinds = {type(group["lr"]) for group in rest.session.optimizer.param_groups}
        assert kinds == {torch.Tensor if captured else float}


def test_a_run_that_is_extended_goes_on_as_one_of_that_length(tmp_path: Path) -> None:
    """From where the longer cosine is by then, not from zero, and not up again."""
    scheduled("scheduler=cosine", callbacks=[Saving(tmp_path)]).fit()
    longer = scheduled("scheduler=cosine", epochs=10)
    snapshot.restore(longer.session, checkpoint.read(tmp_path / "18-end.pt"))
    expected = by_hand(lambda o: lr_scheduler.CosineAnnealingLR(o, 10), "epoch", epochs=10)
    assert logged(recorded(longer)) == expected[18:]


def test_a_rate_changed_by_hand_stays_where_nothing_schedules_it(tmp_path: Path) -> None:
    run, other = scheduled(), scheduled()
    run.session.optimizer.param_groups[0]["lr"] = 0.5
    checkpoint.write(tmp_path / "x.pt", *snapshot.capture(run.session))
    snapshot.restore(other.session, checkpoint.read(tmp_path / "x.pt"))
    assert set(logged(recorded(other))) == {0.5}


def test_layers_with_rates_of_their_own_are_scheduled_each() -> None:
    rows = recorded(scheduled("scheduler=exponential", "scheduler.gamma=0.5", rates=[0.5, 0.25]))
    names = [f"learning_rate/W.{i}.{what}" for i in (0, 1) for what in ("weight", "bias")]
    expected = [[rate * 0.5**epoch for rate in (0.5, 0.5, 0.25, 0.25)] for epoch in range(EPOCHS)]
    found = [[row[name] for name in names] for row in rows if names[0] in row]
    assert found == [rates for rates in expected for _ in range(STEPS)]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scheduler=cosine", "scheduler.T_max=0"], "scheduler.T_max=0: must be a whole number"),
        (["scheduler=cosine", "scheduler.every=batch"], "scheduler.every='batch': .* epoch or st"),
        (["scheduler=cosine", "+scheduler.gama=1"], "scheduler.gama=1: unknown key"),
        (["scheduler=cosin"], "scheduler=cosin: no such option .*did you mean cosine"),
        (["+scheduler.last_epoch=3"], "scheduler.last_epoch=3: the runner sets it itself"),
        (
            ["scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            "scheduler._target_='torch.*Plateau': its step needs metrics, which no run gives it",
        ),
    ],
)
def test_what_is_wrong_is_one_line(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}") as caught:
        validate_composed(compose(overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scheduler=warmup_cosine", "scheduler.T_max=1"], "scheduler.T_max=1: .*at least 2"),
        (
            ["scheduler._target_=torch.optim.lr_scheduler.PolynomialLR", "+scheduler.pwer=2"],
            "scheduler.pwer=2: ",
        ),
    ],
)
def test_what_its_class_refuses_names_the_key(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}") as caught:
        scheduled(*overrides)
    assert "\n" not in str(caught.value)


def test_adam_has_no_schedule_of_its_own() -> None:
    """The test of the tests: without a schedule the rows say one rate."""
    assert set(logged(recorded(training(optimizer=adam)))) == {1e-3}
