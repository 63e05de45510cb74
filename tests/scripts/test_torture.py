"""scripts/torture.py as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripting import run


@pytest.mark.slow
def test_torture(tmp_path: Path) -> None:
    """Six kills, one of each kind; a run that learns something else would be told, and end in 1."""
    out = run("torture.py", "--kills", 6, "--minutes", 9, "--folder", tmp_path)
    assert "1 time, 1 write, 1 fsync, 1 before rename, 1 after rename, 1 append" in out
    assert "DIFFERS" not in out
