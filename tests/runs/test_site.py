"""The documentation site, built as a contributor does: strictly, whole, and without a network."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import chromium
import pytest
from chromium import Chromium
from omegaconf import OmegaConf
from running import ROOT

from eqprop.config.folder import conf_dir
from eqprop.config.schema import Config
from eqprop.config.signature import Component
from eqprop.run.text import flatten

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="pip install 'eqprop[docs]'"
)
PACKAGES = ("eqprop", "eqprop.network", "eqprop.relaxation", "eqprop.estimator", "eqprop.data")
PACKAGES += ("eqprop.tracking", "eqprop.training.noise")
ROW = re.compile(r"<tr>\s*<td><code>([^<]+)</code>.*?</tr>", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def rows(site: Path) -> dict[str, list[list[str]]]:
    """The rows of the page of keys, as the texts of their cells, by key."""
    found: dict[str, list[list[str]]] = {}
    for match in ROW.finditer((site / "configuration.html").read_text(encoding="utf-8")):
        cells = re.findall(r"<td>(.*?)</td>", match[0], re.DOTALL)
        found.setdefault(match[1], []).append(cells)
    return found


def keys_of(path: Path) -> list[str]:
    """Every key that an option file sets, whole; those that a sweep varies are others' keys."""
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    package = re.search(r"^# @package (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    group = path.parent.relative_to(conf_dir()).as_posix().replace("/", ".").strip(".")
    top = package[1].replace("_global_", "") if package else group
    content = {key: value for key, value in content.items() if key != "defaults"}
    whole = [f"{top}.{key}".strip(".") for key, _ in flatten(content)]
    whole = [key for key in whole if not key.endswith("_target_")]
    return [key for key in whole if not key.startswith("hydra.sweeper.params.")]


def test_every_key_of_every_option_is_described(site: Path) -> None:
    found = rows(site)
    for path in sorted(conf_dir().rglob("*.yaml")):
        for key in keys_of(path):
            if found.get(key) == [] or key in ("noise", "ablation", "scheduler"):
                continue  # a whole part left out
            assert key in found, f"{path}: {key}"
            assert all(len(cells) == 4 and cells[-1].strip() for cells in found[key]), key


def test_every_key_of_the_schema_is_there_with_its_range(site: Path) -> None:
    found = rows(site)
    for group, field in Config.model_fields.items():
        kind: Any = field.annotation
        is_section = isinstance(kind, type) and not issubclass(kind, Component)
        for key in getattr(kind, "model_fields", {}) if is_section else ():
            assert f"{group}.{key}" in found, f"{group}.{key}"
            assert all(cells[1].strip() for cells in found[f"{group}.{key}"]), key
    (momentum,) = found["optimizer.momentum"]
    assert "number &gt;= 0" in momentum[1] or "number >= 0" in momentum[1]
    assert "of sgd" in momentum[0].replace("<br>", " ")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_place(site: Path, package: str) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in importlib.import_module(package).__all__:
        assert re.search(rf'id="eqprop[\w.]*\.{name}"', text), f"{package}.{name}"


def test_its_pages_fetch_nothing(site: Path) -> None:
    sources = (
        r"""<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//|<link[^>]*href="https?://"""
    )
    for page in site.rglob("*.html"):
        assert not re.search(sources, page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", style.read_text(encoding="utf-8"))


def test_what_is_written_for_the_builder_is_not_published(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    assert "<!-- configuration -->" not in (site / "configuration.html").read_text()
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("dynamics.n_relax" in doc["text"] for doc in index["docs"])


@pytest.mark.skipif(chromium.find() is None, reason="pages are looked at in Chromium")
def test_pages_in_a_browser(site: Path, tmp_path: Path) -> None:
    """No errors, no foreign requests, and no page that is wider than its window."""
    handler = partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, Chromium(tmp_path) as browser:
        Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}/"
        for width, dark in ((1400, False), (400, True)):
            browser.window(width, 900, dark=dark, phone=width < 500)
            for page in ("index.html", "configuration.html", "own-parts.html", "api/network.html"):
                browser.open(here + page)
                assert browser.errors == []
                assert all(url.startswith((here, "data:")) for url in browser.requests)
                assert browser.run("document.documentElement.scrollWidth") <= width, page
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
