"""Where numba keeps the compiled loops: beside the code it may not be possible to write."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

import platformdirs

_TEMPORARY: list[tempfile.TemporaryDirectory[str]] = []  # removed as the process ends


def find_folder() -> str:
    """A folder that can be written: numba's, the user's, else a temporary one; empty: none can."""
    for folder in (_users, _temporary):
        with suppress(OSError, RuntimeError, KeyError):  # no home, or none that can be written
            path = folder()
            os.makedirs(path, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return path
    return ""


def keep_nothing() -> None:
    """Neither read nor write what numba keeps, from now on."""
    from numba.core.caching import NullCache

    from eqprop.relaxation.compiled import blocks, chain

    for value in [*vars(blocks).values(), *vars(chain).values()]:
        if hasattr(value, "enable_caching"):
            value._cache = NullCache()


def _users() -> str:
    given = os.environ.get("NUMBA_CACHE_DIR")
    return given or os.path.join(platformdirs.user_cache_dir("eqprop"), "loops")


def _temporary() -> str:
    _TEMPORARY.append(tempfile.TemporaryDirectory(prefix="eqprop-loops-"))
    return _TEMPORARY[-1].name
