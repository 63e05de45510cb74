"""SVHN and CIFAR: small files in the published formats, their faults, downloads."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import KINDS, datasets, samples, stand_in, write_cifar, write_svhn

from eqprop.data import Dataset
from eqprop.run.errors import DataError

Make = Callable[[str, Path], Dataset]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes the small files and makes their data set."""

    def written(kind: str, root: Path) -> Dataset:
        stand_in(kind, root, monkeypatch)
        return KINDS[kind](root, 10)

    return written


def paths(kind: str, root: Path) -> list[Path]:
    inside = "" if kind == "SVHN" else getattr(datasets, kind).base_folder
    return sorted(path for path in (root / inside).iterdir() if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_channels_labels_and_their_order(kind: str, make: Make, tmp_path: Path) -> None:
    *train, test = samples(kind)
    raw = make(kind, tmp_path).read()
    for images, labels, parts in ((*raw[:2], train), (*raw[2:], [test])):
        assert (images == np.concatenate([x for x, _ in parts])).all()
        assert labels.tolist() == [int(label) for _, y in parts for label in y]


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_loaded_as_numbers_of_0_to_1(kind: str, make: Make, tmp_path: Path) -> None:
    data = make(kind, tmp_path).load("cpu", torch.float64)
    images, labels = samples(kind)[-1]
    assert data.sample_shape == (3, 32, 32)
    assert data.n_classes == KINDS[kind].n_classes
    assert data.train.x.is_contiguous()
    np.testing.assert_allclose(data.test.x.numpy(), images / 255, rtol=1e-12)
    assert data.test.y.tolist() == labels.tolist()
    pairs = [pair for part in samples(kind) for pair in zip(*part, strict=True)]
    known = {image.tobytes(): int(label) for image, label in pairs}
    train = (data.train.x * 255).round().numpy().astype(np.uint8)
    assert [known[image.tobytes()] for image in train] == data.train.y.tolist()


def error_of(dataset: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        dataset.load("cpu")
    text = str(caught.value)
    assert "\n" not in text
    return text


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("kind", KINDS)
def test_a_faulty_file_is_one_line_that_names_it(kind: str, make: Make, tmp_path: Path) -> None:
    """None of it is unpickled: an empty file, a part, another file, an error page, a payload."""
    dataset, owned = make(kind, tmp_path), tmp_path / "owned"
    found = paths(kind, tmp_path)
    for path in found:
        right = path.read_bytes()
        other = next(p for p in found if p != path).read_bytes()
        for wrong in (b"", right[:-7], other, b"<html>404</html>", pickle.dumps(Payload(owned))):
            path.write_bytes(wrong)
            text = error_of(dataset)
            assert f"{path.name} in {path.parent}" in text
            known = wrong == other and "by its checksum" in text
            assert known or "truncated or not the published" in text
            for words in ("dataset.download", "paths.data=DIR"):
                assert words in text
        path.write_bytes(right)
    assert not owned.exists()
    dataset.load("cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files_are_all_named(kind: str, make: Make, tmp_path: Path) -> None:
    dataset = make(kind, tmp_path)
    first, *_, last = paths(kind, tmp_path)
    for path in (first, last):
        path.unlink()
    text = error_of(dataset)
    for words in (first.name, last.name, str(first.parent), "dataset.download=true", "paths.data"):
        assert words in text


def test_a_folder_in_the_place_of_a_file(make: Make, tmp_path: Path) -> None:
    dataset = make("SVHN", tmp_path)
    path = tmp_path / "test_32x32.mat"
    path.unlink()
    path.mkdir()
    text = error_of(dataset)
    assert "test_32x32.mat" in text
    assert "cannot be read" in text


@pytest.mark.parametrize("kind", KINDS)
def test_download_fetches_what_is_missing(
    kind: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's own download is told where to, and its files are put into place."""
    source, root = tmp_path / "source", tmp_path / "new"
    make(kind, source)
    published = getattr(datasets, kind)

    def download(self: Any) -> None:
        if not self._check_integrity():
            write_svhn(Path(self.root)) if kind == "SVHN" else write_cifar(Path(self.root), kind)

    monkeypatch.setattr(published, "download", download)
    assert len(KINDS[kind](root, 10, download=True).load("cpu").test) == 6
    assert [p.name for p in paths(kind, root)] == [p.name for p in paths(kind, source)]
    assert not list(root.glob(".download-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_download_without_network(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, nowhere = getattr(datasets, kind), "http://127.0.0.1:9/x"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if kind == "SVHN":
        splits = {split: [nowhere, *rest] for split, (_, *rest) in published.split_list.items()}
        monkeypatch.setattr(published, "split_list", splits)
    else:
        monkeypatch.setattr(published, "url", nowhere)
    text = error_of(KINDS[kind](tmp_path, 10, download=True))
    assert "cannot download" in text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
