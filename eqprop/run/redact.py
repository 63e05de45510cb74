"""Keeping secrets out of what a run writes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET_NAME = re.compile(r"(KEY|TOKEN|PASSWORD|SECRET)$", re.IGNORECASE)
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s/?#'\"]+)@", re.IGNORECASE)
_SHORTEST_SEARCHED = 6  # a shorter value occurs by chance inside other words


def redact(text: str) -> str:
    """``text`` without the credentials in its URLs and without the values of secret variables.

    A variable is secret if its name ends in KEY, TOKEN, PASSWORD or SECRET. Its value becomes
    ``***`` wherever it occurs; one of fewer than six characters only where it is the whole text, or
    the whole right-hand side of a ``key=value``.
    """
    text = _URL.sub(_without_user, text)
    head, equals, tail = text.partition("=")
    secrets = {value for name, value in os.environ.items() if value and _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):  # one may contain another
        if secret == text:
            return MASK
        if secret == tail:
            return f"{head}{equals}{MASK}"
        if len(secret) >= _SHORTEST_SEARCHED:
            text = text.replace(secret, MASK)
    return text


def redact_all(value: Any) -> Any:
    """Plain data with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(key)): redact_all(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(part) for part in value]
    return value


def _without_user(match: re.Match[str]) -> str:
    scheme, user = match.groups()
    # `ssh://git@host` names an account; over http a lone user name is usually a token
    is_account = ":" not in user and not scheme.lower().startswith("http")
    return match.group() if is_account else f"{scheme}{MASK}@"
