"""Splits of a data set: disjoint, whole, in an order that seed and epoch decide."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from eqprop.data import (
    Dataset,
    Raw,
    Split,
    epoch_order,
    one_hot,
)
from eqprop.run.errors import ConfigError


class Numbered(Dataset):
    """Sample i holds the number i; n classes in turn."""

    n: ClassVar[int] = 40
    n_classes = 4

    def read(self) -> Raw:
        x = np.arange(self.n, dtype=np.float64)[:, None]
        y = np.arange(self.n) % 4
        return Raw(x, y, x[:8] + 1000, y[:8])


def numbers(split: Split | None) -> list[int]:
    assert split is not None
    return split.x[:, 0].int().tolist()


def test_parts_are_disjoint_and_together_everything() -> None:
    data = Numbered("", 10, validation=0.25).load("cpu")
    train, validation = numbers(data.train), numbers(data.validation)
    assert len(train) == 30
    assert len(validation) == 10
    assert sorted(train + validation) == list(range(40))
    assert train != sorted(train)


def test_a_limit_keeps_a_subset_and_the_whole_test_set() -> None:
    whole = numbers(Numbered("", 10).load("cpu").train)
    data = Numbered("", 10, limit=12, validation=0.5).load("cpu")
    assert numbers(data.train) + numbers(data.validation) == whole[:12]
    assert len(data.test) == 8


@pytest.mark.parametrize(
    ("n", "fraction", "expected"),
    [(100, 0.29, 29), (10, 0.09, 0), (10, 0.1, 1), (3, 0.99, 2), (1, 0.5, 0), (7, 0.0, 0)],
)
def test_validation_is_the_floor_of_the_fraction(
    n: int, fraction: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Numbered, "n", 100)
    data = Numbered("", 10, limit=n, validation=fraction).load("cpu")
    assert (len(data.validation) if data.validation else 0) == expected
    assert len(data.train) == n - expected


def test_a_limit_beyond_the_data_keeps_all() -> None:
    assert len(Numbered("", 10, limit=10**9).load("cpu").train) == 40


def test_one_single_sample() -> None:
    data = Numbered("", 10, limit=1, validation=0.9).load("cpu")
    assert data.validation is None
    batches = list(data.train.batches(data.batch_size, epoch_order(1, 0, 0)))
    assert [len(x) for x, _ in batches] == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype(dtype: torch.dtype) -> None:
    data = Numbered("", 10, normalize=[20.0, 4.0]).load("cpu", dtype)
    assert data.test.x.dtype == dtype
    assert data.test.x[0, 0] == (1000 - 20) / 4


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
@pytest.mark.parametrize("ordered", [False, True])
def test_batches_use_every_sample_once(batch_size: int, ordered: bool) -> None:
    split = Numbered("", 10).load("cpu").train
    order = epoch_order(40, 1, 2) if ordered else None
    batches = list(split.batches(batch_size, order))
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = slice(None) if order is None else order
    assert torch.equal(x, split.x[expected])
    assert torch.equal(y, split.y[expected])
    assert {len(x) for x, _ in batches[:-1]} <= {batch_size}
    assert len(batches) == -(-40 // batch_size)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_batches_do_not_wait_for_the_device() -> None:
    split = Numbered("", 10).load("cuda").train
    order = epoch_order(40, 0, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _, y in split.batches(7, order):
            one_hot(y, 4, torch.float32)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_epoch_order_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    order = epoch_order(1000, 7, 3)
    assert torch.equal(order, epoch_order(1000, 7, 3))
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(torch.get_rng_state(), state)


def test_neighbouring_seeds_and_epochs_do_not_coincide() -> None:
    big = 2**63 - 1
    keys = [(seed, epoch) for seed in (0, 1, 2, 3, big - 1, big) for epoch in range(6)]
    keys += [(5, 3), (5 + (3 << 32), 0), (3, 5), (5 << 32, 3)]
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed, epoch in set(keys)}
    assert len(orders) == len(set(keys))


def test_one_hot_agrees_with_torch() -> None:
    y = torch.tensor([2, 0, 1, 2])
    expected = torch.nn.functional.one_hot(y, 4).double()
    assert torch.equal(one_hot(y, 4, torch.float64), expected)


class Own(Dataset):
    """A user's data set: ``read`` only."""

    raw: ClassVar[tuple]

    def read(self) -> Raw:
        return Raw(*self.raw)


X, Y = np.zeros((6, 2, 2), np.float32), np.array([0, 1, 2, 0, 1, 2])


def test_classes_are_counted_where_they_are_not_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    big_endian = X.astype(">f4")
    monkeypatch.setattr(Own, "raw", (big_endian, Y, big_endian, Y), raising=False)
    data = Own("", 2).load("cpu")
    assert (data.n_classes, data.input_size, data.sample_shape) == (3, 4, (1, 2, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"validation": 1.0},
        {"validation": float("nan")},
        {"limit": 0},
        {"normalize": [0.1, 0.0]},
        {"normalize": [0.1]},
    ],
)
def test_values_out_of_range(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{next(iter(wrong))}"):
        Numbered("", **{"batch_size": 10, **wrong})
