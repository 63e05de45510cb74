"""What a network answers to raw samples: what an evaluation of its run finds; and nothing moves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _common import composed, session_of
from omegaconf import OmegaConf
from torch import Tensor

import eqprop
from eqprop.data import Dataset, Digits, Raw
from eqprop.network import Network
from eqprop.run import checkpoint
from eqprop.run.checkpoint import CheckpointError
from eqprop.training.session import Session, evaluate
from eqprop.training.snapshot import capture

DIGITS = ("dataset=digits", "tracking=none", "model.hidden=[12]", "trainer.eval_batch_size=100")


class Colours(Dataset):
    """Pictures of three colours, uint8 as files have them."""

    n_classes = 10

    def read(self) -> Raw:
        draw = np.random.RandomState(0).randint
        images, labels = draw(256, size=(60, 3, 8, 8)).astype(np.uint8), draw(10, size=60)
        return Raw(images[:20], labels[:20], images[20:], labels[20:])


class Dear(eqprop.EnergyBasedModel):
    """A Hopfield energy, given as a whole, with a price on activity."""

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        own = sum((0.5 * v.square() + 0.1 * s.abs()).sum(1) for v, s in zip(u, r, strict=True))
        return own - sum((W(a) * b).sum(1) for W, a, b in zip(self.W, r[:-1], r[1:], strict=True))


COLOURS = (
    "dataset._target_=test_predictor.Colours",
    "dataset.normalize=[[0.4,0.5,0.6],[0.2,0.25,0.3]]",
    "dataset.pad=2",
)
CONV = ("model.hidden=[{conv:4,kernel:3,pool:max}]", "model.activation=hard_sigmoid")
RUNS = {
    "a feed-forward pass": (),
    "a random start": ("model=hopfield", "dynamics=euler_50"),
    "another": ("model=hopfield", "dynamics=euler_50", "seed=7", "trainer.eval_batch_size=33"),
    "a tolerance": ("model=hopfield", "dynamics=newton", "dynamics.tol=1e-3"),
    "float64": ("model=rate_hopfield", "device.dtype=float64", "dataset.normalize=[0.3,0.4]"),
    "an energy of one's own": ("model._target_=test_predictor.Dear", "cost=mse", "dynamics=euler"),
    "read elsewhere": ("model=hopfield", "estimator=backprop"),
    "a readout": ("model=rate_hopfield", "model.readout=true"),
    "few bits": ("noise=quantised", "noise.bits=3", "noise.of=weights"),
    "few bits of states": ("model=hopfield", "noise=quantised", "noise.bits=3", "noise.of=state"),
    "feedback weights": ("model=hopfield", "model.feedback=fixed", "estimator=asymmetric"),
    "pictures": ("model=predictive_coding", *CONV, *COLOURS),
    "pictures that relax": ("model=hopfield", *CONV, *COLOURS, "dataset.augment=null"),
    "pictures, flat": COLOURS,
}


def left(words: Sequence[str], folder: Path) -> Session:
    """The session of a run whose only checkpoint is in ``folder``."""
    words = [*DIGITS, "device.compile=false", *words]
    session = session_of(words)
    with torch.no_grad():  # as different as a training makes them
        for parameter in session.network.parameters():
            parameter.mul_(2.0)
    meta, tensors = capture(session)
    meta["config"] = OmegaConf.to_container(composed(words)[0], resolve=True)
    (folder / "checkpoints").mkdir()
    checkpoint.write(folder / "checkpoints" / "last.pt", meta, tensors)
    return session


@pytest.mark.parametrize("name", RUNS)
def test_a_loaded_network_answers_as_its_run_is_evaluated(name: str, tmp_path: Path) -> None:
    """Bit by bit, from the pictures as the data set reads them."""
    session, outputs = left(RUNS[name], tmp_path), []
    found = evaluate(session, session.data.test, lambda u: outputs.append(u.clone()))
    accuracy = found.accuracy
    raw = (Colours if COLOURS[0] in RUNS[name] else Digits)("", 1).read()
    model = eqprop.load(tmp_path)
    found = model(torch.from_numpy(raw.test_images))
    assert torch.equal(found, torch.cat(outputs))
    assert found.dtype == next(session.network.parameters()).dtype
    assert len(found.unique(dim=0)) > 1
    classes = model.predict(raw.test_images)
    assert float((classes.numpy() == raw.test_labels).mean()) == pytest.approx(accuracy)


def test_what_samples_may_look_like(tmp_path: Path) -> None:
    """uint8 or numbers of 0 … 1, with channels, without, or flat; of any number."""
    left(("dataset.normalize=[0.3,0.4]", *CONV), tmp_path)
    model = eqprop.load(tmp_path)
    pixels = torch.randint(256, (5, 8, 8), dtype=torch.uint8)
    wanted = model(pixels)
    for x in (pixels[:, None], pixels.flatten(1), pixels / 255, pixels.double() / 255):
        torch.testing.assert_close(model(x), wanted)
    torch.testing.assert_close(model(pixels.numpy()), wanted)
    torch.testing.assert_close(model(pixels[:1]), wanted[:1])
    assert model(pixels[:0]).shape == (0, 10)
    assert model.predict(pixels[:0]).dtype == torch.int64


WRONG = {
    "one sample": (torch.rand(64), r"\(64,\).*x\[None\]"),
    "another size": (torch.rand(3, 1, 7, 7), r"\(1, 7, 7\).*\(1, 8, 8\)"),
    "a flat one of another size": (torch.rand(3, 63), r"\(63,\).*\(1, 8, 8\)"),
    "channels last": (torch.rand(3, 8, 8, 1), r"\(8, 8, 1\).*\(1, 8, 8\)"),
    "integers": (torch.zeros(3, 64, dtype=torch.int64), "int64"),
}


@pytest.mark.parametrize("what", WRONG)
def test_samples_that_do_not_fit_are_one_line(what: str, tmp_path: Path) -> None:
    left(CONV, tmp_path)
    x, words = WRONG[what]
    with pytest.raises(ValueError, match=words) as error:
        eqprop.load(tmp_path).predict(x)
    assert "\n" not in str(error.value)


def test_flat_pictures_are_padded_where_they_are_square(tmp_path: Path) -> None:
    left(COLOURS, tmp_path)
    model, x = eqprop.load(tmp_path), torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(model(x.flatten(1)), model(x))
    with pytest.raises(ValueError, match=r"\(3, 191\).*\(batch, channels, height, width\)"):
        model(torch.rand(3, 191))


def test_arrays_however_they_lie_in_memory(tmp_path: Path) -> None:
    left((), tmp_path)
    model, x = eqprop.load(tmp_path), np.random.default_rng(0).random((4, 64))
    wanted = model(x)
    fixed = x.copy()
    fixed.flags.writeable = False
    for other in (np.asfortranarray(x), x.astype(">f8"), fixed, x.tolist()):
        torch.testing.assert_close(model(other), wanted)
    torch.testing.assert_close(model(x[::-1]), wanted.flip(0))  # its strides are negative


def test_threads_that_predict_under_noise_see_the_same_weights(tmp_path: Path) -> None:
    session = left(("noise=quantised", "noise.bits=2"), tmp_path)
    model, x = eqprop.load(tmp_path), torch.rand(50, 64)
    wanted, before = model(x), copy.deepcopy(model.state_dict())
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: model(x), range(100)):
            assert torch.equal(found, wanted)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert len(session.network.edges[0].weight.unique()) > 4


def made_here(lr: float = 0.5) -> eqprop.EquilibriumPropagation:
    return eqprop.EquilibriumPropagation(lr)


def silent(lr: float = 0.5):  # type: ignore[no-untyped-def]
    return eqprop.EquilibriumPropagation(lr)


def elsewhere() -> Path:
    raise AssertionError("nothing of it is made")


def test_a_function_says_what_it_returns(tmp_path: Path) -> None:
    session = left((), tmp_path)
    x = torch.from_numpy(Digits("", 1).read().test_images[:5])
    change(tmp_path, "estimator", "beta", None)
    found = checkpoint.read(tmp_path / "checkpoints" / "last.pt")
    for name, wrong in (("made_here", None), ("silent", "->"), ("elsewhere", "no subclass")):
        found.meta["config"]["estimator"] = {"_target_": f"test_predictor.{name}"}
        (tmp_path / "checkpoints" / "last.pt").unlink()
        checkpoint.write(tmp_path / "checkpoints" / "last.pt", found.meta, found.tensors())
        if wrong is None:
            assert eqprop.load(tmp_path)(x).shape == (5, session.data.n_classes)
            continue
        with pytest.raises(CheckpointError, match=wrong):
            eqprop.load(tmp_path)(x)


def test_it_is_copied_and_pickled(tmp_path: Path) -> None:
    left(("model=hopfield", "dynamics=euler"), tmp_path)
    model, x = eqprop.load(tmp_path), torch.rand(3, 64)
    wanted = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), wanted)


def test_in_another_precision(tmp_path: Path) -> None:
    left(("dataset.normalize=[0.3,0.4]",), tmp_path)
    x, model = torch.rand(3, 64, dtype=torch.float64), eqprop.load(tmp_path)
    single, double = model(x), model.double()(x)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=1e-5)


def change(folder: Path, group: str, key: str, value: Any) -> None:
    path = folder / "checkpoints" / "last.pt"
    found = checkpoint.read(path)
    found.meta["config"][group][key] = value
    path.unlink()  # or it would be fallen back on
    checkpoint.write(path, found.meta, found.tensors())


@pytest.mark.parametrize("group", ["dynamics", "estimator", "dataset", "noise"])
@pytest.mark.parametrize("target", ["not_here.Part", "pathlib.Path"])
def test_a_part_that_is_not_here_stops_the_prediction_only(
    group: str, target: str, tmp_path: Path
) -> None:
    """Or that is none: nothing of it is made."""
    left(("noise=quantised",), tmp_path)
    change(tmp_path, group, "_target_", target)
    model = eqprop.load(tmp_path)
    assert isinstance(model, Network)
    with pytest.raises(CheckpointError, match=target.partition(".")[0]) as error:
        model(torch.rand(3, 64))
    assert "\n" not in str(error.value)


def test_a_key_that_is_wrong_stops_it_too(tmp_path: Path) -> None:
    left((), tmp_path)
    change(tmp_path, "estimator", "beta", 0.0)
    with pytest.raises(CheckpointError, match=r"estimator\.beta=0"):
        eqprop.load(tmp_path)(torch.rand(3, 64))
