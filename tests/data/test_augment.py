"""Augmentation: functions of seed, epoch and sample, against padding and slicing by torch."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import pad

from eqprop.data import Augmentation, CropFlip, Data, Dataset, Draws, Raw
from eqprop.data.draws import _hash
from eqprop.run.errors import ConfigError

BLACK = torch.tensor([-1.0, -2.0, -3.0]).view(3, 1, 1)


def pictures(n: int = 12) -> Tensor:
    return torch.rand(n, 3, 5, 7, generator=torch.Generator().manual_seed(0))


def draws(n: int = 12, seed: int = 3, epoch: int = 2) -> Draws:
    return Draws(seed, epoch, torch.arange(n))


def test_the_hash_is_splitmix64() -> None:
    """The first outputs for the seed 1234567, as its reference implementation prints them."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + (i + 1) * gamma) % 2**64 for i in range(4)]
    found = _hash(torch.from_numpy(np.array(states, np.uint64).view(np.int64)))
    assert [value % 2**64 for value in found.tolist()] == expected


@pytest.mark.parametrize("n", [2, 9])
def test_numbers_are_equally_likely(n: int) -> None:
    """Among samples, among epochs, among seeds, and among the draws for one sample."""
    many = draws(20_000)
    among_draws = Draws(0, 1, torch.tensor([7]))
    found = {
        "samples": many.integers(n),
        "second": many.integers(n),
        "epochs": torch.cat([Draws(1, e, torch.tensor([5])).integers(n) for e in range(4000)]),
        "seeds": torch.cat([Draws(s, 1, torch.tensor([5])).integers(n) for s in range(4000)]),
        "draws": torch.cat([among_draws.integers(n) for _ in range(4000)]),
    }
    for name, numbers in found.items():
        counts = torch.bincount(numbers, minlength=n)
        assert len(counts) == n
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3, name


def test_draws_of_a_sample_have_nothing_to_do_with_one_another() -> None:
    both = draws(20_000)
    table = torch.bincount(both.integers(5) * 5 + both.integers(5), minlength=25)
    neighbours = draws(20_000).integers(5)
    pairs = torch.bincount(neighbours[:-1:2] * 5 + neighbours[1::2], minlength=25)
    for counts in (table, pairs):
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("mode", ["edge", "zeros"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [1, 2, 6])
def test_it_is_padding_and_slicing(mode: str, flip: bool, crop: int) -> None:
    x, numbers = pictures(), draws()
    rows, columns, mirrored = (numbers.integers(k) for k in (2 * crop + 1, 2 * crop + 1, 2))
    if mode == "edge":
        padded = pad(x, [crop] * 4, mode="replicate")
    else:
        padded = pad(x - BLACK, [crop] * 4) + BLACK
    found = CropFlip(crop, mode, flip)(x, draws(), BLACK)  # type: ignore[arg-type]
    assert len({*rows.tolist(), *columns.tolist()}) > 1
    for i in range(len(x)):
        expected = padded[i, :, rows[i] : rows[i] + 5, columns[i] : columns[i] + 7]
        expected = expected.flip(2) if flip and mirrored[i] else expected
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-6)


def test_to_flip_twice_is_to_do_nothing() -> None:
    x, flip = pictures(), CropFlip(flip=True)
    once = flip(x, draws(), BLACK)
    mirrored = (once == x.flip(3)).flatten(1).all(1)
    assert torch.equal(once[~mirrored], x[~mirrored])
    assert 0 < mirrored.sum() < len(x)
    assert torch.equal(flip(once, draws(), BLACK), x)


def test_the_pictures_given_stay() -> None:
    x = pictures()
    CropFlip(2, "zeros", True)(x, draws(), BLACK)
    assert torch.equal(x, pictures())


@pytest.mark.parametrize("wrong", [{"crop": -1}, {"crop": 1, "mode": "reflect"}])
def test_values_out_of_range(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.augment"):
        CropFlip(**wrong)


class Photographs(Dataset):
    """40 pictures of noise in three colours for training, 8 for testing."""

    n_classes = 4
    shape: ClassVar[tuple[int, ...]] = (3, 8, 8)

    def read(self) -> Raw:
        noise = np.random.default_rng(0)
        x = noise.integers(0, 256, (48, *self.shape), dtype=np.uint8)
        y = np.arange(48) % 4
        return Raw(x[:40], y[:40], x[40:], y[40:])


AUGMENT = CropFlip(2, "zeros", True)
SCALED = ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])


def loaded(batch_size: int = 10, augment: Augmentation | None = AUGMENT) -> Data:
    keys = {"normalize": SCALED, "augment": augment, "validation": 0.25}
    return Photographs("", batch_size, **keys).load("cpu")


def seen(data: Data, seed: int = 1, epoch: int = 1, done: int = 0) -> dict[int, Tensor]:
    """What becomes of each training sample in an epoch, by its place."""
    batches = list(data.epoch(seed, epoch, done))
    order = torch.cat([samples for *_, samples in batches])
    x = torch.cat([x for x, *_ in batches])
    return dict(zip(order.tolist(), x, strict=True))


def same(ours: dict[int, Tensor], theirs: dict[int, Tensor]) -> list[bool]:
    return [torch.equal(ours[i], theirs[i]) for i in ours.keys() & theirs.keys()]


def test_a_picture_is_a_function_of_seed_epoch_and_sample() -> None:
    whole = seen(loaded(10))
    assert len(whole) == 30
    for batch_size in (1, 7, 30, 1000):
        assert all(same(seen(loaded(batch_size)), whole))
    assert sum(same(seen(loaded(), epoch=2), whole)) < 5  # of 50 variants a sample may meet one
    assert sum(same(seen(loaded(), seed=2), whole)) < 5


def test_what_is_left_of_an_epoch_has_the_same_pictures() -> None:
    whole, rest = seen(loaded()), seen(loaded(), done=2)
    assert len(rest) == 10
    assert all(same(rest, whole))
    assert list(loaded().epoch(1, 1, 3)) == []


def test_no_generator_is_drawn_from() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    seen(loaded())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_flat_network_is_given_the_same_pictures() -> None:
    flat = seen(loaded().shaped((192,)))
    assert all(same({i: x.view(3, 8, 8) for i, x in flat.items()}, seen(loaded())))


def test_black_is_what_a_pixel_of_0_becomes() -> None:
    """A picture of zeros stays one, wherever its window lies."""
    zeros = loaded(augment=CropFlip(2, "zeros"))
    black = Photographs("", 10, normalize=SCALED, pad=1).load("cpu").train.x[:, :, :1, :1]
    x = black[:1].expand(4, 3, 8, 8)
    assert zeros.augment is not None
    assert torch.equal(zeros.augment(x, draws(4)), x)


def test_evaluation_sees_the_pictures_as_they_are() -> None:
    plain, changed = loaded(augment=None), loaded()
    for name in ("train", "validation", "test"):
        ours, theirs = (getattr(data, name).batches(10) for data in (plain, changed))
        assert all(torch.equal(x, y) for (x, _), (y, _) in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("augment", [None, CropFlip()])
def test_off_it_is_not_there(augment: CropFlip | None) -> None:
    """Nothing is computed: the batches are the rows of the data."""
    data = loaded(augment=augment)
    assert data.augment is None
    for place, x in seen(data).items():
        assert torch.equal(x, data.train.x[place])


def test_samples_that_are_no_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Photographs, "shape", (6,))
    for keys in ({"augment": AUGMENT}, {"pad": 2}, {"normalize": SCALED}):
        with pytest.raises(ConfigError, match=rf"^dataset\.{next(iter(keys))}.*\(6,\)"):
            Photographs("", 10, **keys).load("cpu")


class Darker(Augmentation):
    """One of one's own: a random share of the light is taken away."""

    def __call__(self, x: Tensor, draws: Draws, black: Tensor) -> Tensor:
        share = (draws.integers(100) / 100).view(-1, 1, 1, 1)
        return x + share * (black - x)


def test_one_of_one_s_own() -> None:
    whole = seen(loaded(augment=Darker()))
    assert all(same(seen(loaded(4, Darker())), whole))
    black, x = BLACK.new_tensor([-2.0, -2.0, -2.0]).view(3, 1, 1), loaded().train.x
    share = Draws(1, 1, torch.arange(30)).integers(100) / 100
    for i, found in whole.items():
        torch.testing.assert_close(found, x[i] + share[i] * (black - x[i]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_gpu_sees_the_same_pictures_and_nothing_waits_for_it() -> None:
    keys = {"normalize": SCALED, "augment": AUGMENT, "validation": 0.25}
    there = Photographs("", 10, **keys).load("cuda", torch.float64)
    here = Photographs("", 10, **keys).load("cpu", torch.float64)
    list(there.epoch(1, 1))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(there.epoch(1, 2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (x, y, _), (expected, classes, _) in zip(found, here.epoch(1, 2), strict=True):
        torch.testing.assert_close(x.cpu(), expected)
        assert torch.equal(y.cpu(), classes)
