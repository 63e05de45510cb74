"""One HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from typing import Any

_STYLES = ("page.css", "charts.css")
_SCRIPTS = ("base.js", "filter.js", "table.js", "plot.js", "charts.js", "parallel.js", "detail.js",
            "main.js")  # fmt: skip


def render(data: dict[str, Any]) -> bytes:
    """The page that shows ``data`` (see ``payload``), in UTF-8.

    The page's own policy forbids every connection, and every script but the one written here: a
    name that broke out of its place would still do nothing.
    """
    style = "\n".join(map(_part, _STYLES))
    script = '(() => {\n"use strict";\n' + "\n".join(map(_part, _SCRIPTS)) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _part("page.html")
    parts = {
        "@POLICY@": policy,
        "@TITLE@": html.escape(str(data["title"])),
        "@STYLE@": style,
        "@DATA@": embedded(data),
        "@SCRIPT@": script,
    }
    head, *rest = page.split("@@")
    for piece in rest:  # each part is put in once: one that looks like a mark stays as it is
        name, _, after = piece.partition("@")
        head += parts[f"@{name}@"] + after
    return head.encode("utf-8", "replace")


def embedded(data: Any) -> str:
    """JSON that no HTML parser finds an end or a comment in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _part(name: str) -> str:
    return (resources.files("eqprop.report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
