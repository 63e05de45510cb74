"""Padding and normalising, against torch and torchvision."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from eqprop.data import Dataset, Raw
from eqprop.run.errors import ConfigError

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


class Noise(Dataset):
    """Twelve pictures, eight of them for training."""

    shape: ClassVar[tuple[int, ...]] = (3, 4, 6)

    def read(self) -> Raw:
        x = np.random.default_rng(0).integers(0, 256, (12, *self.shape), dtype=np.uint8)
        y = np.arange(12) % 3
        return Raw(x[:8], y[:8], x[8:], y[8:])


def pixels() -> torch.Tensor:
    return torch.from_numpy(Noise("", 1).read().test_images).double() / 255


@pytest.mark.parametrize("pad", [0, 2])
def test_it_is_torchvision_s(pad: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    data = Noise("", 4, normalize=[MEAN, STD], pad=pad).load("cpu", torch.float64)
    expected = transforms.normalize(transforms.pad(pixels(), [pad] * 4), MEAN, STD)
    torch.testing.assert_close(data.test.x, expected)
    assert data.sample_shape == data.test.x.shape[1:] == (3, 4 + 2 * pad, 6 + 2 * pad)
    assert data.input_size == 3 * (4 + 2 * pad) * (6 + 2 * pad)


def test_one_number_is_the_same_for_every_channel() -> None:
    one = Noise("", 4, normalize=[0.5, 0.25]).load("cpu")
    three = Noise("", 4, normalize=[[0.5] * 3, [0.25] * 3]).load("cpu")
    assert torch.equal(one.train.x, three.train.x)


def test_a_picture_of_one_colour_has_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "shape", (28, 28))
    data = Noise("", 4, pad=2, normalize=[[0.1307], [0.3081]]).load("cpu")
    assert data.sample_shape == (1, 32, 32)
    border = data.train.x[:, 0, [0, 1, -2, -1]]
    torch.testing.assert_close(border, torch.full_like(border, -0.1307 / 0.3081))


def test_a_network_of_flat_layers_takes_them_flat() -> None:
    data = Noise("", 4, validation=0.25).load("cpu")
    flat = data.shaped((72,))
    assert flat.sample_shape == (3, 4, 6)
    for name in ("train", "validation", "test"):
        ours, theirs = getattr(flat, name), getattr(data, name)
        assert torch.equal(ours.x, theirs.x.flatten(1))
        assert torch.equal(ours.y, theirs.y)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pad": -1},
        {"normalize": [MEAN, [0.2, 0.2, 0.0]]},
        {"normalize": [MEAN, STD[:2]]},
        {"normalize": [[], []]},
        {"normalize": [MEAN, 1.0]},
        {"augment": {"crop": 4}},
    ],
)
def test_values_out_of_range(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(wrong))}"):
        Noise("", 4, **wrong)


def test_as_many_numbers_as_channels() -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.normalize=.*\(3, 4, 6\)"):
        Noise("", 4, normalize=[MEAN[:2], STD[:2]]).load("cpu")
