"""Whether a W&B server can be used from here, found out in a few seconds and before W&B tries."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import urllib.error
import urllib.request

DEFAULT_URL = "https://api.wandb.ai"
PROBE_TIMEOUT = 5.0  # seconds


def why_offline(base_url: str, *, has_login: bool, timeout: float = PROBE_TIMEOUT) -> str | None:
    """Why a run cannot be online now, or None if it can.

    ``WANDB_MODE`` may ask for offline; otherwise a login and a server that answers are needed.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "dryrun", "disabled"):
        return f"WANDB_MODE is {mode}"
    if not has_login:
        return "no W&B login; run `wandb login` or set WANDB_API_KEY"
    if not answers(base_url, timeout):
        return f"{base_url} does not answer within {timeout:g} s"
    return None


def answers(url: str, timeout: float) -> bool:
    """Whether anything answers HTTP at ``url`` within ``timeout`` seconds, through proxies too.

    In a thread of its own, since looking up a name has no timeout of its own.
    """
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(_ask(url, timeout)), daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(heard) and heard[0]


def _ask(url: str, timeout: float) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/healthz", timeout=timeout):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except urllib.error.URLError as error:
        # W&B trusts other certificates than Python may: an answer it is
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError, http.client.HTTPException):
        return False
