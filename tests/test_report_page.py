"""The page of scripts/report.py in a real browser: sorting, filters, tooltips, phones, names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import chromium
import pytest
from chromium import Chromium, brightness, contrast
from made_runs import add_details, make_run, make_sweep
from test_report import report

needs_chromium = pytest.mark.skipif(
    chromium.find() is None, reason="the page is tried in Chromium: apt-get install chromium"
)
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "\"><img src=x onerror=alert(3)> ' & <!--",
    "two\nlines",
    "javascript:alert(4)",
    b"not-utf8-\xff\xfe",
    "#fragment?query%41",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 22 runs with its report, made once for all."""
    folder = make_sweep(tmp_path_factory.mktemp("made") / "sweep")
    report(folder)
    return folder / "report"


@pytest.fixture
def page(browser: Chromium, sweep: Path) -> Iterator[Chromium]:
    """The sweep's page, which must have been quiet and alone until the end."""
    browser.window(1280, 900)
    browser.open(sweep / "index.html")
    yield browser
    assert browser.errors == []
    assert browser.requests == [(sweep / "index.html").as_uri()]


def column(page: Chromium, key: str) -> list[str]:
    """The texts of a column of the first table."""
    return page.run(
        f"""(() => {{ const t = document.querySelector(".scroll table");
        const i = [...t.querySelectorAll("thead th")].findIndex((e) => e.dataset.key === "{key}");
        return [...t.tBodies[0].rows].map((r) => r.cells[i].textContent); }})()"""
    )


def type_filter(page: Chromium, key: str, text: str) -> str:
    """Type into a column's filter; what the page says is left."""
    page.click(f'.scroll thead th[data-key="{key}"] input')
    page.run("document.activeElement.select()")
    page.call("Input.insertText", text=text)
    return page.run("document.querySelector('.bar [role=status]').textContent")


@pytest.mark.slow
@needs_chromium
def test_two_thousand_runs(browser: Chromium, tmp_path: Path) -> None:
    for i in range(2000):
        make_run(tmp_path / f"{i}-x", lr=1e-4 * (1 + i), seed=i % 3, epochs=30)
    report(tmp_path)
    browser.open(tmp_path / "report" / "index.html")
    assert browser.run("document.querySelector('.bar [role=status]').textContent") == "2000 rows"
    assert browser.errors == []


@needs_chromium
def test_sorting(page: Chromium) -> None:
    def objectives() -> list[float]:
        cells = column(page, "objective")
        assert cells[-4:] == ["–"] * 4  # what is missing comes last, whichever way
        return [float(cell) for cell in cells[:-4]]

    assert objectives() == sorted(objectives(), reverse=True)
    page.click('.scroll th[data-key="objective"] .sort')
    assert objectives() == sorted(objectives())
    page.run("document.querySelector('.scroll th[data-key=\"optimizer.lr\"] .sort').focus()")
    page.key("Enter", 13)  # by the keyboard too
    rates = [float(cell) for cell in column(page, "optimizer.lr")]
    assert rates == sorted(rates, reverse=True)
    sorts = "[...document.querySelectorAll('.scroll')][0].querySelectorAll('[aria-sort]')"
    assert page.run(f"[...{sorts}].map((e) => e.getAttribute('aria-sort'))") == ["descending"]


@needs_chromium
def test_filtering(page: Chromium) -> None:
    assert type_filter(page, "objective", ">0.9") == "6 of 22 rows"
    assert all(float(cell) > 0.9 for cell in column(page, "objective"))
    assert type_filter(page, "estimator.beta", "0.4..1") == "4 of 22 rows"
    assert type_filter(page, "estimator.beta", "<1 >=0.5") == "2 of 22 rows"
    assert type_filter(page, "estimator.beta", ">x") == "6 of 22 rows"  # means nothing: no filter
    invalid = "document.querySelector('.scroll th[data-key=\"estimator.beta\"] input').ariaInvalid"
    assert page.run(invalid) == "true"
    page.click(".bar button")
    assert type_filter(page, "state", "=done") == "19 of 22 rows"
    assert type_filter(page, "state", "!done") == "3 of 22 rows"
    assert type_filter(page, "reason", "not finite") == "1 of 22 rows"
    assert column(page, "run") == ["18-diverged"]
    assert type_filter(page, "state", "no such") == "0 of 22 rows"


@needs_chromium
def test_hovering(page: Chromium) -> None:
    page.show(".charts .chart:nth-child(2)", "svg .trace")
    box = page.run(
        "(() => { const e = document.querySelector('.chart:nth-child(2) svg');"
        "const b = e.getBoundingClientRect();"
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    tip = "[document.getElementById('tip')].map((t) => (t.hidden ? '' : t.textContent))[0]"
    assert page.run(tip) == ""
    told = set()
    for share in range(4, 40):
        page.mouse("mouseMoved", box[0] + box[2] * 0.8, box[1] + box[3] * share / 40)
        told.add(page.run(tip))
    assert any("gaussian-digits" in text and "epoch" in text for text in told), told
    page.mouse("mouseMoved", 2, 2)
    assert page.run(tip) == ""


@needs_chromium
def test_dragging_along_an_axis_filters(page: Chromium) -> None:
    page.show(".across", ".handle")
    x, y, height = page.run(
        "(() => { const b = document.querySelector('.across .handle').getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y, b.height]; })()"
    )
    page.mouse("mousePressed", x, y + 2, button="left", clickCount=1)
    page.mouse("mouseMoved", x, y + height * 0.2, button="left")
    page.mouse("mouseReleased", x, y + height * 0.2, button="left", clickCount=1)
    rates = {float(cell) for cell in column(page, "optimizer.lr")}
    assert rates == {0.03}  # the top fifth of the axis


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(page: Chromium, dark: bool) -> None:
    page.window(390, 844, dark=dark, phone=True)
    page.run("new Promise((done) => setTimeout(done, 100))")
    width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert page.run(width) <= 390
    table = "document.querySelector('.scroll')"
    assert page.run(f"{table}.scrollWidth > {table}.clientWidth && {table}.clientWidth <= 390")
    colours = "[document.body, document.querySelector('.tile')].map((e) => getComputedStyle(e))"
    found = page.run(f"{colours}.map((s) => [s.color, s.backgroundColor])")
    assert contrast(*found[0]) > 7
    page.open(page.requests[0])
    assert (brightness(found[0][1]) < 0.1) == dark


@needs_chromium
def test_every_label_and_heading(page: Chromium) -> None:
    """What a screen reader needs: a name for each control, one first heading, a language."""
    unnamed = page.run(
        "[...document.querySelectorAll('input, button, select, [role=region], [role=img]')].filter("
        "(e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0
    assert page.run("document.querySelectorAll('h1').length") == 1
    assert page.run("document.documentElement.lang") == "en"


@needs_chromium
def test_links_lead_to_the_folders(page: Chromium, sweep: Path) -> None:
    links = page.run(
        "[...document.querySelectorAll('tbody th a')].map((a) => a.getAttribute('href'))"
    )
    assert len(links) == 22
    assert all((sweep / unquote(link) / "status.json").is_file() for link in links)


@needs_chromium
def test_hostile_names_stay_names(browser: Chromium, tmp_path: Path) -> None:
    for i, name in enumerate(HOSTILE):
        raw = os.fsencode(name)
        folder = Path(os.fsdecode(os.fsencode(tmp_path / "top") + b"/" + raw))
        text = raw.decode("utf-8", "replace")
        make_run(folder, "failed", reason=text, lr=0.1 * (i + 1))
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"name={text}"]))
        with (folder / ".hydra" / "config.yaml").open("a") as file:
            file.write(f"notes: {json.dumps(text)}\n? {json.dumps(text)}\n: 1\n")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(
                json.dumps({"step": 99, "epoch": 9, text: 1, f"accuracy/{text}": 0.5}) + "\n"
            )
        (folder / "evaluation.json").write_text(
            json.dumps({"confusion": [[1, 2], [3, 4]], "classes": [text, "b"],
                        "mistakes": [{"index": 1, text: text}]})
        )  # fmt: skip
    report(tmp_path / "top")
    page = tmp_path / "top" / "report" / "index.html"
    browser.window(1280, 900)
    browser.open(page)
    assert browser.errors == []
    assert browser.requests == [page.as_uri()]
    assert browser.run("document.querySelectorAll('script, img, iframe').length") == 2
    links = browser.run(
        "[...document.querySelectorAll('tbody th a')].map((a) => a.getAttribute('href'))"
    )
    start = os.fsencode(page.parent)
    folders = {os.path.realpath(start + b"/" + unquote_to_bytes(link)) for link in links}
    assert len(folders) == len(links) == len(HOSTILE)
    assert all(os.path.isfile(folder + b"/status.json") for folder in folders)
    assert "<script>alert(1)</script>" in browser.run("document.body.innerText")


@needs_chromium
@pytest.mark.parametrize("rest", ["whole", "status", "nothing"])
def test_one_run(rest: str, browser: Chromium, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one")
    if rest == "whole":
        add_details(folder)
    else:
        (folder / "metrics.jsonl").write_text("")
        (folder / ".hydra" / "config.yaml").unlink()
    if rest == "nothing":
        (folder / "status.json").write_text("")
    report(folder)
    browser.window(390, 844)
    browser.open(folder / "report" / "index.html")
    assert browser.errors == []
    assert browser.run("document.documentElement.scrollWidth") <= 390
    text = browser.run("document.body.innerText")
    assert ("Confusion" in text) == (rest == "whole")
    assert ("No numbers yet" in text) == (rest != "whole")
    assert ("status.json" in text) == (rest == "nothing")
