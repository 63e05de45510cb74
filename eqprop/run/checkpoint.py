"""A checkpoint's file: whole, checked and harmless, or refused with one line.

First a line ``eqprop-checkpoint <format> <sha256> <bytes that follow>``, then a line of JSON (what
there is to know without torch: step, configuration, versions …), then what ``torch.save`` makes of
plain dicts, lists, numbers and tensors. The checksum covers both.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically
from eqprop.run.text import brief

MAGIC = b"eqprop-checkpoint"
FORMAT = 1
_HEADER = re.compile(rb"eqprop-checkpoint (\d{1,9}) ([0-9a-f]{64}) (\d{1,15})\n")
_LONGEST_HEADER = 128  # bytes


class CheckpointError(UserError):
    """A checkpoint that cannot be used: names the file and the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """A file whose checksum holds: its plain part, and its tensors still packed."""

    path: Path
    meta: dict[str, Any]
    body: bytes

    @property
    def place(self) -> tuple[int, int]:
        """How far the training had come: epoch, and batches in it."""
        return int(self.meta.get("epoch", 0)), int(self.meta.get("batches", 0))

    def tensors(self) -> dict[str, Any]:
        """Unpack the tensors, on the CPU.

        Raises:
            CheckpointError: if there is anything in it but plain values and tensors.
        """
        import torch

        packed = io.BytesIO(self.body)
        try:
            with zipfile.ZipFile(packed) as archive:
                size = sum(info.file_size for info in archive.infolist())
            if size > len(self.body):  # torch itself never compresses
                raise ValueError("its tensors unpack to more than there is")
            packed.seek(0)
            state = torch.load(packed, map_location="cpu", weights_only=True)
        except Exception as error:  # what a foreign file makes of the reader is its own affair
            raise CheckpointError(
                f"{self.path} is refused: it holds more than numbers and tensors, or is malformed "
                f"({brief(str(error))})"
            ) from error
        if not isinstance(state, dict):
            raise CheckpointError(f"{self.path} is refused: it is not a training state")
        return state


def write(path: Path, meta: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint atomically, after reading back that the disk has it as it was meant.

    Raises:
        OSError: if it cannot be written; whatever ``path`` held before is still there.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    rest = json.dumps(meta, allow_nan=False).encode() + b"\n" + buffer.getbuffer()
    digest = hashlib.sha256(rest).hexdigest()
    header = f"{MAGIC.decode()} {FORMAT} {digest} {len(rest)}\n".encode()

    def verify(written: Path) -> None:
        try:
            read(written)
        except CheckpointError as error:
            raise OSError(f"what was written is not what is read back ({error})") from error
        if path.name == "last.pt" and path.exists():  # there is always one to fall back on
            os.replace(path, path.with_name("last.previous.pt"))

    write_atomically(path, header + rest, before=verify)


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and check it against its own checksum.

    Raises:
        CheckpointError: if it is truncated, damaged, of another program or of a later version.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            digest, length = _header(path, file.readline(_LONGEST_HEADER))
            rest = file.read(length + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if len(rest) < length:
        raise CheckpointError(f"{path} is truncated: {len(rest)} of {length} bytes are there")
    if len(rest) > length or hashlib.sha256(rest).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged: its checksum does not hold")
    meta, _, body = rest.partition(b"\n")
    return Checkpoint(path, _meta(path, meta), body)


def _header(path: Path, line: bytes) -> tuple[str, int]:
    """The checksum and the length of what follows."""
    match = _HEADER.fullmatch(line)
    if match is None and line and MAGIC.startswith(line[: len(MAGIC)]):
        raise CheckpointError(f"{path} is truncated or damaged: its first line is not whole")
    if match is None:
        raise CheckpointError(f"{path} is not a checkpoint of eqprop: it begins {line[:12]!r}")
    if int(match[1]) != FORMAT:
        raise CheckpointError(
            f"{path} has format {int(match[1])}, this version of eqprop reads {FORMAT}; it needs "
            "the version of eqprop that wrote it"
        )
    return match[2].decode(), int(match[3])


def _meta(path: Path, line: bytes) -> dict[str, Any]:
    try:
        meta = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its second line cannot be read") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path} is damaged: its second line is no mapping")
    return meta
