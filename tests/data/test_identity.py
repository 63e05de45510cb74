"""Published files are known by their content, whatever they are called and wherever they lie."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

import pytest
from idx_files import NAMES, TEST, TRAIN, idx_bytes, make_mnist

from eqprop.data import KMNIST, MNIST, SVHN, FashionMNIST, identity
from eqprop.run.errors import DataError


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small MNIST whose files stand for the published ones, packed and not."""
    root = make_mnist(tmp_path / "data")
    files = [root / "MNIST" / "raw" / name for name in NAMES]
    sums = tuple(hashlib.md5(path.read_bytes()).hexdigest() for path in files)
    packed = {hashlib.md5(pack(path)).hexdigest(): ("KMNIST", path.name) for path in files}
    monkeypatch.setattr(identity, "UNPACKED", {"MNIST": sums})
    monkeypatch.setattr(identity, "_SIZES", (len(TRAIN[0]), len(TEST[0])))
    monkeypatch.setattr(identity, "packed", lambda: packed)
    return root


def pack(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), mtime=0)


def test_in_another_s_folder_or_swapped(published: Path) -> None:
    raw = published / "MNIST" / "raw"
    MNIST(published, batch_size=10).read()
    shutil.copytree(published / "MNIST", published / "FashionMNIST")
    with pytest.raises(DataError, match=r"is MNIST's train-images.*not FashionMNIST's") as caught:
        FashionMNIST(published, batch_size=10).read()
    assert str(published / "FashionMNIST") in str(caught.value)
    for part in ("images-idx3", "labels-idx1"):
        train, test = (raw / f"{name}-{part}-ubyte" for name in ("train", "t10k"))
        content = train.read_bytes()
        train.write_bytes(test.read_bytes())
        test.write_bytes(content)
    told = r"train-images-idx3-ubyte in .* is MNIST's t10k-images-idx3-ubyte"
    with pytest.raises(DataError, match=told):
        MNIST(published, batch_size=10).read()


def test_packed_files_too(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a data set whose unpacked files nobody knows."""
    monkeypatch.setattr(identity, "UNPACKED", {})
    for folder, kind in (("KMNIST", KMNIST), ("FashionMNIST", FashionMNIST)):
        raw = published / folder / "raw"
        raw.mkdir(parents=True)
        for name in NAMES:
            (raw / f"{name}.gz").write_bytes(pack(published / "MNIST" / "raw" / name))
        if kind is KMNIST:
            assert (kind(published, batch_size=10).read().train_images == TRAIN[0]).all()
            continue
        with pytest.raises(DataError, match=r"is KMNIST's train-images"):
            kind(published, batch_size=10).read()


def test_a_file_of_the_right_size_that_nobody_knows_costs_a_line(
    published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = published / "MNIST" / "raw" / NAMES[0]
    path.write_bytes(idx_bytes(255 - TRAIN[0]))
    with caplog.at_level("WARNING"):
        MNIST(published, batch_size=10).read()
    (line,) = caplog.messages
    assert str(path) in line


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize(("packed", "suffix"), [(True, ""), (False, ".gz"), (True, ".gz")])
def test_the_content_says_whether_it_is_packed(
    dotted: bool, packed: bool, suffix: str, tmp_path: Path
) -> None:
    """And mirrors put a dot where there is a dash."""
    raw = make_mnist(tmp_path) / "MNIST" / "raw"
    for name in NAMES:
        path = raw / name
        data = pack(path) if packed else path.read_bytes()
        path.unlink()
        path.with_name((name.replace("-idx", ".idx") if dotted else name) + suffix).write_bytes(
            data
        )
    read = MNIST(tmp_path, batch_size=10).read()
    assert (read.train_images == TRAIN[0]).all()
    assert (read.test_labels == TEST[1]).all()


def test_the_real_ones(shared_data: Path, tmp_path: Path) -> None:
    """The full MNIST is known, and is no FashionMNIST."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.parent.mkdir()
    raw.symlink_to(shared_data / "MNIST" / "raw")
    MNIST(shared_data, batch_size=10).read()
    with pytest.raises(DataError, match="is MNIST's train-images-idx3-ubyte"):
        FashionMNIST(tmp_path, batch_size=10).read()


def test_pictures_of_torchvision_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SVHN's two files, swapped."""
    datasets = pytest.importorskip("torchvision.datasets")
    sums = {name: hashlib.md5(name.encode()).hexdigest() for name in ("train", "test")}
    lists = {n: ["", f"{n}_32x32.mat", md5] for n, md5 in sums.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    (tmp_path / "train_32x32.mat").write_bytes(b"test")
    (tmp_path / "test_32x32.mat").write_bytes(b"train")
    with pytest.raises(DataError, match=r"train_32x32.mat in .* is SVHN's test_32x32.mat"):
        SVHN(tmp_path, batch_size=10).read()
