"""Somebody else's parts, in a module of their own and one YAML each, by the same command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import QUICK, Ran, train, untimed

MODULE = '''
import json
from pathlib import Path

import numpy as np
import torch

from eqprop import CEnergy, EnergyBasedModel
from eqprop.data.base import Dataset, Raw
from eqprop.estimator import Estimate, Estimator
from eqprop.relaxation import Solver
from eqprop.tracking import Tracker


class Energy(EnergyBasedModel):
    """The Gaussian energy, by autograd, times `scale`."""

    def __init__(self, dimensions, c_energy, batch_size, phi, scale=1.0):
        super().__init__(dimensions, c_energy, batch_size, phi)
        self.scale = scale

    def energy(self, u):
        layers = zip(self.W, self.phi[:-1], u[:-1], u[1:], strict=True)
        return self.scale * sum(
            (post - W(phi(pre))).square().sum(1) for W, phi, pre, post in layers
        )


class Cost(CEnergy):
    """The squared error times `weight`."""

    def __init__(self, beta, weight=1.0):
        super().__init__(beta)
        self.weight = weight

    def cost(self, u_last, target):
        return self.weight * 0.5 * (u_last - target).square().sum(1)


class Descent(Solver):
    """Explicit Euler, spelled out."""

    def __init__(self, n_relax, rate, init="auto"):
        super().__init__(n_relax, init=init)
        self.rate = rate

    def step(self, network, state, nudge):
        for layer, gradient in zip(state.u, network.gradient(state, nudge), strict=True):
            if gradient is not None:
                layer.sub_(self.rate * gradient)


class Backprop(Estimator):
    """The gradient of the cost at the feed-forward pass: a control."""

    def __init__(self, beta=1.0):
        self.beta = beta

    def estimate(self, network, state, solver, cost, target, *, update=None, measure=False):
        with torch.enable_grad():
            x = state.u[0]
            for W, phi in zip(network.W, network.phi[:-1], strict=True):
                x = W(phi(x))
            loss = cost.cost(x, target).mean()
            gradients = torch.autograd.grad(loss, list(network.parameters()))
        return Estimate(list(gradients), x.detach(), metrics={"energy/free": 0.0})


class Stripes(Dataset):
    """`n` images of one of three stripes."""

    def __init__(self, root, batch_size, n=90, **options):
        super().__init__(root, batch_size, **options)
        self.n = n

    def read(self):
        labels = np.arange(self.n) % 3
        images = np.zeros((self.n, 3, 4), dtype=np.uint8)
        images[np.arange(self.n), labels] = 255
        return Raw(images, labels, images[:30], labels[:30])


class Notes(Tracker):
    """Writes what it is told into one file."""

    def __init__(self, file):
        self.file = file

    def start(self, run):
        self.told = {"name": run.name, "seed": run.config["seed"], "rows": 0}
        self.path = Path(run.folder) / self.file

    def log(self, row):
        self.told["rows"] += 1

    def finish(self, summary, state):
        self.path.write_text(json.dumps({**self.told, "state": state, **summary}))

    def location(self):
        return f"notes in {self.path.name}"
'''

OPTIONS = {
    "model/mine": "_target_: lab.parts.Energy\nhidden: [16]\nactivation: tanh\nscale: 1.0\n",
    "cost/mine": "_target_: lab.parts.Cost\nweight: 1.0\n",
    "dynamics/mine": "_target_: lab.parts.Descent\nn_relax: 20\nrate: 0.1\ninit: auto\n",
    "estimator/mine": "_target_: lab.parts.Backprop\n",
    "dataset/mine": "_target_: lab.parts.Stripes\nbatch_size: 20\nvalidation: 0.2\nn: 90\n",
    "tracking/mine": "trackers:\n  notes:\n    _target_: lab.parts.Notes\n    file: notes.json\n",
}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with a package `lab` and its options in `lab/conf`."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("")
    (tmp_path / "lab" / "parts.py").write_text(MODULE)
    for option, text in OPTIONS.items():
        path = tmp_path / "lab" / "conf" / f"{option}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


def mine(*overrides: str, cwd: Path) -> Ran:
    return train("--config-dir=lab/conf", *overrides, cwd=cwd)


def test_one_of_each_together(lab: Path) -> None:
    groups = ("model", "cost", "dynamics", "dataset", "tracking")
    overrides = [f"{group}=mine" for group in groups]
    ran = mine(*overrides, "trainer.epochs=9", "optimizer.lr=0.01", "name=stripes", cwd=lab)
    assert ran.succeeded().epochs[-1]["accuracy/test"] == 1  # stripes are easy
    notes = json.loads((ran.folder / "notes.json").read_text())
    assert (notes["state"], notes["seed"], notes["rows"]) == ("done", 2019, len(ran.rows))
    assert "notes in notes.json" in ran.out


def test_an_energy_by_autograd_is_the_closed_form(lab: Path) -> None:
    """Both free phases are relaxed, from zero."""
    init = (
        "dynamics=euler",
        "dynamics.init=zeros",
        "model.activation=tanh",
        "device.dtype=float64",
    )
    closed = mine(*QUICK, *init, "name=closed", cwd=lab).succeeded()
    (lab / "other").mkdir()
    overrides = (*QUICK, *init, "model=mine", f"paths.outputs={lab}/other/outputs")
    mine(*overrides, cwd=lab).succeeded()
    theirs = Ran(0, "", "", lab / "other").rows
    for ours, other in zip(untimed(closed.rows), untimed(theirs), strict=True):
        assert other == pytest.approx(ours, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("option", "same"),
    [("cost=mine", "cost=mse"), ("dynamics=mine", "dynamics=euler")],
)
def test_a_part_that_spells_ours_out(option: str, same: str, lab: Path) -> None:
    found = []
    for name, overrides in (("a", option), ("b", same)):
        outputs = f"paths.outputs={name}/outputs"
        precise = ("device.dtype=float64", "trainer.log_every=5", outputs)
        mine(*QUICK, *overrides.split(), *precise, cwd=lab).succeeded()
        found.append(untimed(Ran(0, "", "", lab / name).rows))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_an_estimator_that_is_not_ep(lab: Path) -> None:
    ran = mine(*QUICK, "estimator=mine", "trainer.epochs=8", "optimizer.lr=0.01", cwd=lab)
    assert ran.succeeded().status["objective"] > 0.8


def test_options_by_the_search_path(lab: Path) -> None:
    path = f"hydra.searchpath=[file://{lab}/lab/conf]"
    overrides = (path, "model=mine", "model.scale=2.0", "dynamics=euler")
    ran = train(*QUICK, *overrides, cwd=lab).succeeded()
    assert "scale: 2.0" in (ran.folder / ".hydra/config.yaml").read_text()


def test_a_class_by_its_path_alone(lab: Path) -> None:
    overrides = ("model._target_=lab.parts.Energy", "+model.scale=0.5", "dynamics=euler")
    assert train(*QUICK, *overrides, cwd=lab).succeeded().status["state"] == "done"


def test_an_energy_needs_no_other_choice(lab: Path) -> None:
    """A class with `energy(u)` and its option are enough, whatever the defaults are."""
    ran = mine(*QUICK, "model=mine", cwd=lab).succeeded()
    assert ran.status["state"] == "done"
    told = {line.split()[0]: line for line in ran.out.partition("epoch 1/1")[0].splitlines()}
    assert "Energy," in told["energy"].split()
    assert told["solver"].endswith("init normal")  # nothing is known of it at zeros


def test_keys_that_a_class_hands_on_to_ours(lab: Path) -> None:
    """Through `**options`: they are ours, with their types."""
    ran = mine(*QUICK[1:], "dataset=mine", "+dataset.limit=40", cwd=lab)
    assert ran.succeeded().status["state"] == "done"
    for wrong in ("+dataset.m=2", "+dataset.limit=0"):
        ran = mine("dataset=mine", wrong, cwd=lab)
        assert (ran.code, wrong.lstrip("+") in ran.error) == (2, True)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("model=mine +model.sclae=2", "model.sclae=2 did you mean model.scale?"),
        ("cost=mine +cost.wieght=2", "cost.wieght did you mean cost.weight?"),
        ("dynamics=mine +dynamics.rat=2", "dynamics.rat did you mean dynamics.rate?"),
        ("estimator=mine +estimator.bta=2", "estimator.bta did you mean estimator.beta?"),
        ("tracking=mine +tracking.trackers.notes.fil=x", "notes.fil did you mean notes.file?"),
        ("dynamics=mine ~dynamics.rate", "missing dynamics.rate"),
        ("model=mine +model.phi=2", "model.phi the runner"),
        ("model._target_=lab.parts.Enrgy", "lab.parts has no Enrgy"),
        ("model._target_=labs.Energy", "labs"),
        ("model._target_=eqprop.ConditionalGausian", "did you mean eqprop.ConditionalGaussian?"),
        ("model=mien", "model=mien did you mean mine?"),
    ],
)
def test_a_mistake_in_it_is_one_line(overrides: str, words: str, lab: Path) -> None:
    ran = mine(*overrides.split(), cwd=lab)
    assert ran.code == 2
    for word in words.split():
        assert word in ran.error
    assert not (lab / "outputs").exists()


def test_a_bug_in_it_is_one_line_and_a_traceback_in_the_folder(lab: Path) -> None:
    parts = lab / "lab" / "parts.py"
    parts.write_text(parts.read_text().replace("self.scale * sum(", "self.scaling * sum("))
    overrides = (*QUICK, "model=mine", "dynamics=euler")
    ran = mine(*overrides, cwd=lab)
    assert ran.code == 1
    assert all(word in ran.error for word in ("AttributeError", "scaling", "HYDRA_FULL_ERROR=1"))
    assert (ran.status["state"], ran.status["exit_code"]) == ("failed", 1)
    assert "parts.py" in (ran.folder / "traceback.txt").read_text()
    flag, env = "--config-dir=lab/conf", {"HYDRA_FULL_ERROR": "1"}
    again = train(flag, *overrides, cwd=lab, env=env)
    assert (again.code, "Traceback" in again.err) == (1, True)
    assert "parts.py" in again.err
