"""Every option of every group trains for two batches, by the command that a person types."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import QUICK, ROOT, train

CONF = ROOT / "conf"
TWO_BATCHES = (
    "dataset.batch_size=100",
    "dataset.limit=200",
    "dataset.validation=0",
    "trainer.epochs=1",
    "trainer.log_every=1",
)
MNIST_FILES = ROOT.parent / "shared" / "data" / "MNIST" / "raw"
NEEDS = {
    "dataset=fashion_mnist": "a download of 30 MB",
    "dataset=kmnist": "a download of 20 MB",
    "device=cuda": "a GPU",
    "tracking=wandb_online": "an account and the network",
}


WITH = {"dynamics=exact": ("model.activation=relu",)}
"""What an option cannot do without."""

REFUSED = {("gaussian", "dynamics=exact")}
"""What does not go together."""

BOTH_ENERGIES = ("cost", "dynamics", "estimator")
"""The groups whose options meet the energy."""


def options(group: str) -> list[str]:
    """``group=option`` for every file of a group."""
    return [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))]


def cells() -> list[tuple[str, str]]:
    """Every option with the energies that it is tried with."""
    found = []
    for group in sorted(path.name for path in CONF.iterdir() if path.is_dir()):
        models = ("gaussian", "hopfield") if group in BOTH_ENERGIES else ("gaussian",)
        if group == "model":
            found += [(option.partition("=")[2], option) for option in options(group)]
        elif group not in ("experiment", "debug", "sweep"):  # they have tests of their own
            found += [(model, option) for option in options(group) for model in models]
    return found


@pytest.fixture
def mnist() -> str:
    if not MNIST_FILES.is_dir():
        pytest.skip(f"full MNIST is not at {MNIST_FILES}")
    return f"paths.data={MNIST_FILES.parents[1]}"


@pytest.mark.parametrize(("model", "option"), cells())
def test_every_option_trains(
    model: str, option: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if option in NEEDS:
        pytest.skip(f"{option} needs {NEEDS[option]}")
    group = option.partition("=")[0]
    overrides = [word for word in QUICK if not word.startswith(f"{group}=")]
    overrides += [option, *WITH.get(option, ()), *TWO_BATCHES]
    if group != "model":
        overrides.append(f"model={model}")
    if option == "dataset=mnist":
        overrides.append(request.getfixturevalue("mnist"))
    ran = train(*overrides, cwd=tmp_path)
    if (model, option) in REFUSED:
        assert (ran.code, option in ran.error) == (2, True)
        return
    assert [row["step"] for row in ran.succeeded().rows] == [1, 2, 2]
    assert ran.status["state"] == "done"


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_trains(experiment: str, mnist: str, tmp_path: Path) -> None:
    """At its full size: 784-1000-10, and the whole test set."""
    ran = train(experiment, mnist, "tracking=none", *TWO_BATCHES, cwd=tmp_path).succeeded()
    assert [row["step"] for row in ran.rows] == [1, 2, 2]
    assert ran.status["objective"] == ran.rows[-1]["accuracy/test"] > 0.1


def test_full_mnist_has_all_its_samples(mnist: str, tmp_path: Path) -> None:
    overrides = ("dataset=mnist", mnist, "dataset.batch_size=6000", "dataset.validation=0")
    (row,) = train(*QUICK[1:], *overrides, cwd=tmp_path).succeeded().rows
    assert row["step"] == 10
    assert row["throughput/examples_per_s"] * row["time/train_s"] == pytest.approx(60000)
    correct = row["accuracy/test"] * 10000
    assert correct == pytest.approx(round(correct), abs=1e-6)
