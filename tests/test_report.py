"""scripts/report.py as a user runs it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from made_runs import make_run, make_sweep
from scripting import is_png, run

from eqprop.report.page import embedded

report = partial(run, "report.py")


def test_a_page_and_its_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need it: pip install 'eqprop[report]'")
    report(make_sweep(tmp_path))
    made = tmp_path / "report"
    names = {path.name for path in made.iterdir()}
    assert names == {"index.html"} | {
        f"{name}.png" for name in ("curves", "parameters", "relaxation", "confusion", "failures")
    }
    for path in made.glob("*.png"):
        assert is_png(path)


def test_where_it_goes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    assert "(1 run)" in report(run, "--output", tmp_path / "out" / "mine.html", "--no-png")
    report(run, "--output", tmp_path / "folder", "--no-png")
    assert (tmp_path / "out" / "mine.html").is_file()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["index.html"]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (line,) = report(tmp_path, status=2).splitlines()
    assert line.startswith(f"error: {tmp_path} holds no run")
    (line,) = report(tmp_path / "nope", status=2).splitlines()
    assert "does not exist" in line
    make_run(tmp_path / "a")
    (tmp_path / "file").write_text("")
    (line,) = report(tmp_path, "--output", tmp_path / "file" / "x", status=2).splitlines()
    assert "cannot write" in line


def test_what_is_embedded_ends_no_script() -> None:
    data = {"</script><!--\u2028": ["<script>", "&", "]]>"]}
    text = embedded(data)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == data
