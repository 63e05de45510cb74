"""Data that stay in host memory: the same batches, each sent while the one before is in use."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from eqprop.data import CropFlip, Data, Dataset, Raw, base, transfer
from eqprop.data.transfer import SHARE, Transfer, transfer_to


class Numbered(Dataset):
    """Picture i is full of the number i."""

    def read(self) -> Raw:
        x = np.broadcast_to(np.arange(48.0)[:, None, None, None], (48, 2, 3, 3))
        y = np.arange(48) % 4
        return Raw(x[:40], y[:40], x[40:], y[40:])


class Told(Transfer):
    """Stands for a GPU: what it sends is there at once, and it keeps a diary."""

    def __init__(self) -> None:
        self.diary: list[str] = []

    def pin(self, x: Tensor) -> Tensor:
        self.diary.append("pin")
        return x

    def send(self, x: Tensor, part: Tensor | slice) -> Tensor:
        self.diary.append("send")
        return x[part].clone()

    def receive(self, sent: Tensor) -> Tensor:
        self.diary.append("receive")
        return sent


KEYS = {"validation": 0.25, "augment": CropFlip(1, "zeros", True), "normalize": [20.0, 4.0]}


def hosted(monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> tuple[Data, Told]:
    told = Told()
    monkeypatch.setattr(base, "transfer_to", lambda device, size: told)
    return Numbered("", 8, **KEYS).load(device), told


def same(ours: Data, theirs: Data, batch_size: int = 7) -> None:
    pairs = [
        (ours.epoch(3, epoch, done), theirs.epoch(3, epoch, done))
        for epoch, done in ((1, 0), (1, 2), (2, 0))
    ]
    for name in ("train", "validation", "test"):
        splits = [getattr(data, name) for data in (ours, theirs)]
        pairs.append(tuple(split.batches(batch_size) for split in splits))
    for one, other in pairs:
        for (x, y, *_), (expected, classes, *_) in zip(one, other, strict=True):
            torch.testing.assert_close(x.cpu(), expected.cpu(), rtol=0, atol=0)
            assert torch.equal(y.cpu(), classes.cpu())


def test_the_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = Numbered("", 8, **KEYS).load("cpu")
    data, told = hosted(monkeypatch)
    assert told.diary == ["pin"] * 3
    same(data, resident)
    same(data.shaped((18,)), resident.shaped((18,)))
    same(data.first(2, 3), resident.first(2, 3))


def test_the_next_batch_is_on_its_way_while_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    data, told = hosted(monkeypatch)
    told.diary.clear()
    for _ in data.epoch(1, 1):
        told.diary.append("use")
    first, last = ["send"], ["receive", "use"]
    assert told.diary == [*first, *["receive", "send", "use"] * 3, *last]


@pytest.mark.parametrize(("size", "stays"), [(SHARE * 1000, False), (SHARE * 1000 + 1, True)])
def test_the_gpu_is_asked_how_much_is_free(
    size: int, stays: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(transfer, "Transfer", lambda device: "host")
    with caplog.at_level(logging.INFO):
        assert transfer_to(torch.device("cuda", 0), int(size)) == ("host" if stays else None)
    assert ("stay in host memory" in caplog.text) == stays


def test_without_a_gpu_nothing_is_sent() -> None:
    assert transfer_to(torch.device("cpu"), 10**18) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_gpu_is_sent_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = Numbered("", 8, **KEYS).load("cuda")
    monkeypatch.setattr(transfer, "SHARE", 0.0)
    data = Numbered("", 8, **KEYS).load("cuda")
    assert data.train.transfer is not None
    assert data.train.x.is_pinned()
    assert data.train.device.type == "cuda"
    same(data, resident)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x, *_ in data.epoch(3, 5):
            x.square_()
    finally:
        torch.cuda.set_sync_debug_mode("default")
