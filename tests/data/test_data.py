"""MNIST and its relatives: exact values, missing files, downloads."""

from __future__ import annotations

import gzip
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import IMAGES, NAMES, TEST, TRAIN, make_mnist

from eqprop.data import (
    KMNIST,
    MNIST,
    Dataset,
    FashionMNIST,
    files,
)
from eqprop.run.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_mnist(tmp_path / "data")


SHARED = Path(__file__).parents[3] / "shared" / "data"

full_mnist = pytest.mark.skipif(
    not (SHARED / "MNIST" / "raw" / IMAGES).exists(), reason=f"full MNIST is not in {SHARED}"
)


def test_mnist_values_are_the_files_values(root: Path) -> None:
    data = MNIST(root, 100, normalize=[0.1307, 0.3081]).load("cpu", torch.float64)
    assert (data.input_size, data.n_classes, data.sample_shape) == (784, 10, (1, 28, 28))
    assert data.validation is None
    assert data.test.y.dtype == torch.int64
    assert data.test.y.tolist() == TEST[1].tolist()
    expected = (TEST[0].reshape(10, 1, 28, 28) / 255 - 0.1307) / 0.3081
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


def error_of(dataset: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        dataset.load("cpu")
    text = str(caught.value)
    assert "\n" not in text
    return text


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
    monkeypatch.setattr(files, "torchvision", lambda name: downloads)
    new = tmp_path / "new"
    assert len(MNIST(new, 10, download=True).load("cpu").train) == 30
    assert sorted(p.name for p in (new / "MNIST" / "raw").iterdir()) == sorted(NAMES)
    assert [p.name for p in new.iterdir()] == ["MNIST"]


def test_failed_download_leaves_nothing_behind(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("Error downloading x:\nTried a, got:\n<urlopen error no route>")
    monkeypatch.setattr(files, "torchvision", lambda name: Downloads(root / "MNIST/raw", error))
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


def test_a_download_waits_for_no_silent_server(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, patience = socket.getdefaulttimeout(), []

    class Asking(Downloads):
        def __call__(self, root: str, train: bool, download: bool) -> None:
            patience.append(socket.getdefaulttimeout())
            super().__call__(root, train, download)

    asking = Asking(root / "MNIST" / "raw")
    monkeypatch.setattr(files, "torchvision", lambda name: asking)
    MNIST(tmp_path / "new", 10, download=True).load("cpu")
    assert patience == [files.DOWNLOAD_TIMEOUT]
    assert socket.getdefaulttimeout() == before
