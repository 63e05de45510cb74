"""The files of published data sets: where they are, and how to get them.

Every fault is one DataError that names the file, its folder and the way out.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eqprop.run.errors import DataError
from eqprop.run.text import one_line

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


def torchvision(name: str) -> Any:
    """torchvision's data set of that name: a class, imported only where it is needed."""
    from torchvision import datasets

    return getattr(datasets, name)


def located(
    root: Path, inside: str, names: Sequence[str], download: Callable[[str], object] | None
) -> list[Path]:
    """The paths of the files ``names`` in ``root/inside``, each as ``find`` knows it.

    ``download(folder)`` gets those that are missing: into ``folder/inside``. Raises DataError.
    """
    missing = [name for name in names if find(root / inside, name) is None]
    if missing and download is not None:
        _fetch(root, inside, missing, download)
    found = {name: find(root / inside, name) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise DataError(
            f"missing in {root / inside}: {', '.join(missing)}; fetch with dataset.download=true, "
            f"or set paths.data=DIR to the folder that holds {inside or 'them'}"
        )
    return [path for path in found.values() if path is not None]


def find(folder: Path, name: str) -> Path | None:
    """``folder/name`` or ``folder/name.gz``, the first that is there, or None.

    Some mirrors write ``train-images.idx3-ubyte``, with a dot.

    Raises DataError if the folder cannot be searched.
    """
    names = dict.fromkeys([name, name.replace("-idx", ".idx")])
    for path in (folder / f"{known}{suffix}" for known in names for suffix in ("", ".gz")):
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise unreadable(path, error) from error
        return path
    return None


def _fetch(
    root: Path, inside: str, names: Sequence[str], download: Callable[[str], object]
) -> None:
    """Download into a temporary folder first, so that a file has its name only when it is whole."""
    target = root / inside
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            download(folder)
            for name in names:
                os.replace(Path(folder, inside, name), target / name)
    except Exception as error:
        raise DataError(
            f"cannot download {', '.join(names)} to {target} ({one_line(error, 300)}); check the "
            f"connection and the folder, or set paths.data=DIR to one that holds {inside or 'them'}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def fault(path: Path, what: str) -> DataError:
    """The one-line error that ``path`` ``what``."""
    return DataError(
        f"{path.name} in {path.parent} {what}; remove it and fetch it again with "
        "dataset.download=true, or set paths.data=DIR to a folder with good files"
    )


def unreadable(path: Path, error: OSError) -> DataError:
    """The one-line error that the system does not let us read ``path``."""
    return DataError(
        f"{path.name} in {path.parent} cannot be read ({error.strerror or error}); check its "
        "permissions, or set paths.data=DIR to a folder with good files"
    )
