"""What networks are given of pictures: their shape, or flat; augmented in training alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from _common import composed, session_of
from omegaconf import OmegaConf
from torch import Tensor
from toys import same, training, weights

from eqprop.data import CropFlip
from eqprop.network import Edge
from eqprop.run import checkpoint
from eqprop.run.checkpoint import CheckpointError
from eqprop.training.callback import Callback
from eqprop.training.load import refuse_foreign
from eqprop.training.loop import Training
from eqprop.training.session import Session
from eqprop.training.snapshot import capture, restore


class Conv(Edge):
    """A convolution of 3 × 3 without padding, by autograd."""

    def __init__(self, in_shape: Sequence[int], channels: int) -> None:
        colours, height, width = in_shape
        super().__init__(in_shape, (channels, height - 2, width - 2))
        self.weight = torch.nn.Parameter(0.3 * torch.randn(channels, colours, 3, 3))

    def forward(self, r: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(r, self.weight)


BASE = ("dataset=digits", "tracking=none", "dataset.limit=200", "device.dtype=float64")
CONV = "model.hidden=[{_target_: test_pictures.Conv, channels: 3}, 10]"
AUGMENT = ("dataset.augment.crop=1", "dataset.augment.flip=true", "dataset.pad=1")


def outcome(session: Session) -> list[Tensor]:
    session.epochs = 2
    run = Training(session)
    run.fit()
    return weights(run)


def test_a_convolution_is_given_the_pictures() -> None:
    session = session_of([*BASE, CONV, *AUGMENT])
    assert session.network.shapes == [(1, 10, 10), (3, 8, 8), (10,), (10,)]
    x, *_ = next(session.data.epoch(1, 1))
    assert x.shape == (100, 1, 10, 10)
    before = [p.clone() for p in session.network.parameters()]
    after = outcome(session)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


@pytest.mark.parametrize("model", ["gaussian", "hopfield"])
def test_dense_layers_are_given_them_flat(model: str) -> None:
    session = session_of([*BASE, f"model={model}", "model.hidden=[20]", *AUGMENT])
    assert session.network.shapes == [(100,), (20,), (10,)]
    x, *_ = next(session.data.epoch(1, 1))
    assert x.shape == (100, 100)
    assert session.data.sample_shape == (1, 10, 10)
    assert all(torch.isfinite(p).all() for p in outcome(session))


@pytest.mark.parametrize("off", ["dataset.augment=null", "dataset.augment.mode=zeros"])
def test_off_changes_no_bit(off: str) -> None:
    dense = (*BASE, "model.hidden=[20]")
    plain = outcome(session_of(dense))
    assert same(plain, outcome(session_of([*dense, off])))
    assert not same(plain, outcome(session_of([*dense, "dataset.augment.flip=true"])))


def test_evaluation_is_not_augmented() -> None:
    plain, changed = (session_of([*BASE, *more]) for more in ((), AUGMENT[:2]))
    rows: list[dict[str, float | int]] = [{}, {}]
    for session, row in zip((plain, changed), rows, strict=True):
        Training(session).evaluate(row, final=True)
        row.pop("time/eval_s")
    assert rows[0] == rows[1]


class Cut(Exception):  # noqa: N818 - no error
    """The training was cut off here."""


class Cutting(Callback):
    def on_step(self, session: Session, samples: int) -> None:
        if session.step == 5:
            raise Cut


def augmented(*callbacks: Callback) -> Training:
    """Three epochs of three batches: the toys' six numbers as pictures of 2 × 3."""
    run, crop = training("gaussian", *callbacks, epochs=3), CropFlip(crop=1, flip=True)
    augment = partial(crop, black=torch.zeros(1, 1, 1))
    run.session.data = replace(run.session.data, sample_shape=(1, 2, 3), augment=augment)
    return run


def test_resumed_in_the_middle_of_an_epoch_it_sees_the_same_pictures(tmp_path: Path) -> None:
    whole = augmented()
    whole.fit()
    cut = augmented(Cutting())
    with pytest.raises(Cut):
        cut.fit()
    checkpoint.write(tmp_path / "x.pt", *capture(cut.session))
    rest = augmented()
    restore(rest.session, checkpoint.read(tmp_path / "x.pt"))
    rest.fit()
    assert same(weights(rest), weights(whole))
    plain = training("gaussian", epochs=3)
    plain.fit()
    assert not same(weights(plain), weights(whole))


def test_a_checkpoint_makes_no_augmentation_of_another_kind(tmp_path: Path) -> None:
    overrides = [*BASE, "model.hidden=[20]", *AUGMENT]
    meta, tensors = capture(session_of(overrides))
    meta["config"] = OmegaConf.to_container(composed(overrides)[0], resolve=True)
    checkpoint.write(tmp_path / "right.pt", meta, tensors)
    refuse_foreign(checkpoint.read(tmp_path / "right.pt"))
    meta["config"]["dataset"]["augment"]["_target_"] = "subprocess.Popen"
    checkpoint.write(tmp_path / "wrong.pt", meta, tensors)
    with pytest.raises(CheckpointError, match=r"subprocess\.Popen.*\.Augmentation"):
        refuse_foreign(checkpoint.read(tmp_path / "wrong.pt"))
