"""scripts/report.py as a user runs it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from made_runs import make_run, make_sweep, write_rows
from scripting import is_png, report


def test_a_page_and_the_figure_of_what_failed(tmp_path: Path) -> None:
    report(make_sweep(tmp_path))
    made = tmp_path / "report"
    assert {path.name for path in made.iterdir()} == {"index.html", "failures.png"}
    assert is_png(made / "failures.png")


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


def test_hostile_texts_end_nothing(tmp_path: Path) -> None:
    """Parsed as a browser does, the page has the elements of the template and no others."""
    text = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>'\"&lt;{{ 7777 * 7 }}"
    tags = []
    for reason in ("plain", text):
        folder = tmp_path / reason[:2].replace("/", "x")
        for i in range(2):
            run = make_run(folder / f"{i}", "failed", reason=reason, lr=0.1 + i)
            (run / ".hydra" / "config.yaml").write_text(json.dumps({reason: i, "model": reason}))
            write_rows(run / "metrics.jsonl", [{"step": n, reason: n} for n in range(3)])
            rows = [{"epoch": reason, "phase": reason, "energy": [1, 2]}]
            write_rows(run / "curves.jsonl", rows)
            found = {"confusion": [[1]], "classes": [reason], "mistakes": [{reason: reason}]}
            (run / "evaluation.json").write_text(json.dumps(found))
        report(folder, "--no-png")
        page = (folder / "report" / "index.html").read_text()
        assert "54439" not in page.partition("<body>")[2].partition("</main>")[0]
        tags.append(Elements(page).found)
    assert tags[0] == tags[1]


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))
