"""Credentials: refused where they would be recorded, masked in what is only shown.

A recorded configuration is read again, so nothing in it is ever masked.
"""

from __future__ import annotations

import os
import re

MASK = "***"
_VARIABLES = ("WANDB_API_KEY",)
"""Whose values are credentials wherever they occur."""

_SHORTEST = 20  # characters: W&B's keys have 40 or more; a placeholder could be any word
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s/?#'\"]+)@", re.IGNORECASE)
_READ = re.compile(r"\$\{oc\.env:\s*(\w*(?:KEY|TOKEN|PASSWORD|SECRET))\s*[,}]", re.IGNORECASE)


def redact(text: str) -> str:
    """``text`` without the credentials in its URLs and without W&B's key: for logs and trackers."""
    text = _URL.sub(_without_user, text)
    for value in _credentials().values():
        text = text.replace(value, MASK)
    return text


def credential_in(text: str) -> str | None:
    """Name the credential that ``text`` holds or would read from the environment; None if none.

    A variable could hold one if its name ends in KEY, TOKEN, PASSWORD or SECRET.
    """
    for name, value in _credentials().items():
        if value in text:
            return f"the value of {name}"
    if (match := _READ.search(text)) is not None:
        return f"the variable {match[1]}"
    return "a URL with a password" if _URL.sub(_without_user, text) != text else None


def _credentials() -> dict[str, str]:
    found = {name: os.environ.get(name, "") for name in _VARIABLES}
    return {name: value for name, value in found.items() if len(value) >= _SHORTEST}


def _without_user(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    # `ssh://git@host` names an account; over http a lone user name is usually a token
    is_account = ":" not in user and not scheme.lower().startswith("http")
    return match.group() if is_account else f"{scheme}{MASK}@"
