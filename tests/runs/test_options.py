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
    "dataset=svhn": "a download of 250 MB",
    "dataset=cifar10": "a download of 170 MB",
    "dataset=cifar100": "a download of 170 MB",
    "device=cuda": "a GPU",
    "tracking=wandb_online": "an account and the network",
}


NETWORKS = {
    "network=lenet": ("predictive_coding", 28),
    "network=strided": ("predictive_coding", 28),
    "network=vgg5": ("predictive_coding", 32),
    "network=vgg10": ("predictive_coding", 32),
    "network=dchn": ("rate_hopfield", 32),
    "network=resnet13": ("rate_hopfield", 32),
}
"""The energy that a network of pictures is meant for, and their pixels."""

SMALL = (
    "dataset.batch_size=2",
    "trainer.limit_batches=2",
    "trainer.eval_batch_size=2",
    "dynamics.n_relax=2",
)
"""As little work as a wide network takes."""

WITH = {"dynamics=exact": ("model.activation=relu",)} | {
    option: (f"dataset.pad={(pixels - 8) // 2}", *SMALL) for option, (_, pixels) in NETWORKS.items()
}
"""What an option cannot do without; digits have 8 x 8 pixels."""

REFUSED = {("gaussian", "dynamics=exact")}
"""What does not go together."""

BOTH_ENERGIES = ("cost", "dynamics", "estimator", "noise")
"""The groups whose options meet the energy."""


def options(group: str) -> list[str]:
    """``group=option`` for every file of a group."""
    return [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))]


def cells() -> list[tuple[str, str]]:
    """Every option with the energies that it is tried with."""
    found = []
    for group in sorted(path.name for path in CONF.iterdir() if path.is_dir()):
        if group in ("experiment", "debug", "sweep"):  # they have tests of their own
            continue
        for option in options(group):
            if group == "model":
                found.append((option.partition("=")[2], option))
            elif group in BOTH_ENERGIES:
                found += [("gaussian", option), ("hopfield", option)]
            else:
                found.append((NETWORKS.get(option, ("gaussian", 8))[0], option))
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
    if group == "network":
        overrides.remove("model.hidden=[16]")
    overrides += [option, *TWO_BATCHES, *WITH.get(option, ())]
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


SMALL = ("gaussian", "hopfield_mnist")  # training/test_experiments.py trains all, on few samples


@pytest.mark.parametrize(
    "experiment", [e for e in options("experiment") if any(word in e for word in SMALL)]
)
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
