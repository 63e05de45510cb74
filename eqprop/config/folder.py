"""Where the configuration's files lie."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of configuration files: beside the package in a checkout, else in it."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"
