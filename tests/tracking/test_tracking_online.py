"""Weights & Biases online: a server or none is found out quickly."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tracked import PACKAGE, SCRIPT, recorded, script, summary_of

from eqprop.tracking import wandb as wandb_module


@contextlib.contextmanager
def server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()


def refuse(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(401)
    request.send_header("Content-Length", "0")
    request.end_headers()


def test_online_with_a_variable_that_says_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = f"{SCRIPT}\nrecord('run')\n"
    variables = {"HOME": str(tmp_path), "WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40}
    done = script(code, tmp_path / "out", "online", cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "WANDB_MODE is offline" in line
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"


def test_online_without_a_login_is_offline_with_one_warning(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = f"{SCRIPT}\nrecord('run')\n"
    done = script(code, tmp_path / "out", "online", cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "no W&B login" in line
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"


def test_online_refused_by_the_server_is_offline_with_one_warning(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    key = "k" * 40
    with server(refuse) as url:
        done = script(
            f"{SCRIPT}\nrecord('run')\n",
            tmp_path / "out",
            "online",
            cwd=tmp_path,
            HOME=str(tmp_path),
            WANDB_BASE_URL=url,
            WANDB_API_KEY=key,
            no_proxy="127.0.0.1",
        )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "recorded offline" in line
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def test_wandb_is_imported_only_when_a_run_starts() -> None:
    code = "import sys, eqprop.tracking; sys.exit('wandb' in sys.modules)"
    assert script(code, cwd=PACKAGE).returncode == 0
    assert wandb_module.__name__ == "eqprop.tracking.wandb"
