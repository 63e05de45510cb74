"""One HTML page on runs that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from eqprop.report.content import content
from eqprop.run.errors import UserError
from eqprop.run.reading import Run


def render(folder: Path, runs: Sequence[Run], page: Path) -> bytes:
    """The ``page`` on ``runs``, which were found in ``folder``, in UTF-8.

    Every text of a run is escaped, and the page's policy forbids connections and other scripts.
    UserError, if the libraries that the page is made of are not installed.
    """
    try:
        from itables.utils import read_package_file
        from jinja2 import Environment
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("the page needs the extra: pip install 'eqprop[report]'") from error
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    script = _part("page.js")
    made = environment.from_string(_part("page.html")).render(
        **content(folder, runs, page.parent),
        libraries=[get_plotlyjs(), read_package_file("html/dt_bundle.js")],
        script=Markup(script),
        style=Markup(read_package_file("html/dt_bundle.css") + _part("page.css")),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return made.encode()


def _part(name: str) -> str:
    return (resources.files("eqprop.report") / "page" / name).read_text(encoding="utf-8")
