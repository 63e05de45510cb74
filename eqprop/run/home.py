"""Where libraries keep their caches, also for a user whose home cannot be written or is not there.

A container's user often has no entry in passwd, and no HOME or ``/`` as one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

# variable → where its folder is without it, below the home; None: in one of the others
_FOLDERS = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "MPLCONFIGDIR": ".config/matplotlib",
    "NUMBA_CACHE_DIR": None,
    "TORCH_HOME": None,
    "WANDB_CACHE_DIR": None,
    "WANDB_DATA_DIR": None,
}
_temporary: list[str] = []  # the folder, then what it stands in for


def prepare_home() -> None:
    """Point what libraries could not write at a temporary folder, removed as this process ends.

    To be called before they are loaded. Processes that this one starts share the folder. Where not
    even a temporary folder can be made, everything stays as it is.
    """
    with suppress(OSError):
        if os.environ.get("TMPDIR", "") not in ("", tempfile.gettempdir()):
            os.environ["TMPDIR"] = tempfile.gettempdir()  # others take the variable's word
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            home = _instead_of("no home")
        if not os.environ.get("HOME"):
            os.environ["HOME"] = home  # not everybody looks into passwd
        for name, below in _FOLDERS.items():
            folder = os.environ.get(name) or (below and os.path.join(home, below))
            if folder and not _is_writable(folder):
                there = _instead_of(f"cannot write {folder}")
                os.environ[name] = os.path.join(there, below or name.lower())


def lost_caches() -> str | None:
    """One line on what this process cannot keep, None if it keeps everything."""
    if not _temporary:
        return None
    folder, why = _temporary[:2]
    return (
        f"{why}: compiled loops and parsed data are kept in {folder} until this ends; set "
        "XDG_CACHE_HOME to a folder that lasts"
    )


def _is_writable(folder: str) -> bool:
    """Whether the folder can be written, or made. Nothing is made to find out."""
    path = Path(folder)
    if not path.is_absolute():
        return False
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not one that was forked from it
        shutil.rmtree(folder, ignore_errors=True)


def _instead_of(what: str) -> str:
    """The temporary folder, made when it is first needed."""
    if not _temporary:
        folder, owner = tempfile.mkdtemp(prefix="eqprop-"), os.getpid()
        _temporary.append(folder)
        # torch would make one beside it, named after the user, and leave it there
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(folder, "inductor"))
        atexit.register(_remove, folder, owner)
    _temporary.append(what)
    return _temporary[0]
