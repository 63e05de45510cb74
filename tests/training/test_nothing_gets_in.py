"""Checkpoint files that were not meant for us: refused in one line, whatever is in them."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from eqprop.run import checkpoint
from eqprop.run.checkpoint import CheckpointError, read


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole checkpoint of a few tensors."""
    path = tmp_path_factory.mktemp("small") / "last.pt"
    meta = {"kind": "training", "epoch": 2, "batches": 0}
    checkpoint.write(path, meta, {"a": torch.arange(5.0), "b": [1, "x"]})
    return path.read_bytes()


def refused(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        read(path).tensors()
    line = str(error.value)
    assert str(path) in line
    assert "\n" not in line
    return line.replace(str(path), "")  # it has the test's own name in it


def sealed(meta: bytes, body: bytes) -> bytes:
    """A file whose checksum holds, whatever is in it."""
    rest = meta + b"\n" + body
    digest = hashlib.sha256(rest).hexdigest()
    return f"eqprop-checkpoint 1 {digest} {len(rest)}\n".encode() + rest


def test_truncated_anywhere(small: bytes, tmp_path: Path) -> None:
    for size in [*range(0, 120), *range(120, len(small), 37), len(small) - 1]:
        line = refused(tmp_path, small[:size])
        assert "truncated" in line or size == 0


def test_one_bit_flipped_anywhere(small: bytes, tmp_path: Path) -> None:
    for at in [*range(0, 120), *range(120, len(small), 23), len(small) - 1]:
        for bit in (0, 6):
            flipped = bytearray(small)
            flipped[at] ^= 1 << bit
            refused(tmp_path, bytes(flipped))


def test_something_after_the_end(small: bytes, tmp_path: Path) -> None:
    assert "damaged" in refused(tmp_path, small + b"\0")


def test_another_program_s(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(2)}, buffer)
    for data in (buffer.getvalue(), pickle.dumps({"a": 1}), b"\x89HDF\r\n", b"<html>", b"\n"):
        assert "not a checkpoint of eqprop" in refused(tmp_path, data)


def test_a_later_version_s(small: bytes, tmp_path: Path) -> None:
    later = small.replace(b"eqprop-checkpoint 1 ", b"eqprop-checkpoint 2 ", 1)
    assert "has format 2, this version of eqprop reads 1" in refused(tmp_path, later)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("variable", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("way", ["zip", "pickle"])
def test_a_pickle_with_a_payload(
    variable: str | None, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    target = tmp_path / "owned"
    buffer = io.BytesIO()
    state = {"model": {"a": torch.zeros(1)}, "more": Payload(target)}
    torch.save(state, buffer, _use_new_zipfile_serialization=way == "zip")
    assert "refused" in refused(tmp_path, sealed(b"{}", buffer.getvalue()))
    assert "refused" in refused(tmp_path, sealed(b"{}", pickle.dumps(Payload(target))))
    assert not target.exists()


def test_the_payload_works_where_nobody_refuses(tmp_path: Path) -> None:
    """So that the test above tests something."""
    buffer = io.BytesIO()
    torch.save(Payload(tmp_path / "owned"), buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=False).close()
    assert (tmp_path / "owned").exists()


def test_tensors_that_unpack_to_more_than_there_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, buffer)
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(buffer) as archive,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    assert "unpack to more" in refused(tmp_path, sealed(b"{}", bomb.getvalue()))


@pytest.mark.parametrize("meta", [b"[]", b"nothing", b"[" * 100_000])
def test_a_second_line_that_is_nothing(meta: bytes, tmp_path: Path) -> None:
    assert "second line" in refused(tmp_path, sealed(meta, b""))


def test_entries_that_claim_more_than_there_is(tmp_path: Path) -> None:
    """Two names for one place in the file: it would unpack to more than it holds."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(100_000)}, buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        large = max(archive.infolist(), key=lambda info: info.file_size)
        again = copy.copy(large)
        again.filename = "again"
        archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]
    assert "unpack to more" in refused(tmp_path, sealed(b"{}", buffer.getvalue()))


@pytest.mark.parametrize("state", [[1, 2], 3, None, torch.zeros(2)])
def test_tensors_that_are_no_training(state: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    assert "is not a training state" in refused(tmp_path, sealed(b"{}", buffer.getvalue()))


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", "no pickle")
    assert "malformed" in refused(tmp_path, sealed(b"{}", buffer.getvalue()))
