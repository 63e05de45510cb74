"""The page of scripts/report.py in a real browser: sorting, filters, tooltips, phones, names."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import chromium
import numpy as np
import pytest
from chromium import Chromium, brightness, contrast
from made_runs import add_details, make_run, make_sweep, write_rows
from PIL import Image
from scripting import report

needs_chromium = pytest.mark.skipif(
    chromium.find() is None, reason="the page is tried in Chromium: apt-get install chromium"
)
COUNT = "document.querySelector('.dt-info').textContent.trim()"
SORTS = "document.querySelectorAll('#runs thead [aria-sort]')"
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
    load(browser, sweep / "index.html")
    yield browser
    assert browser.errors == []
    assert alone(browser) == [(sweep / "index.html").as_uri()]


def load(browser: Chromium, page: Path) -> None:
    """Open the page and wait for its libraries."""
    browser.open(page)
    ready = "window.Plotly && [...document.querySelectorAll('.plot')].every((e) => e.figure)"
    until(browser, ready)


def until(page: Chromium, expression: str) -> None:
    """Wait until something holds in the page; the browser's time limit ends a vain wait."""
    page.run(
        f"new Promise((done) => {{ const look = () => {expression} ? done(true)"
        ": setTimeout(look, 10); look(); })"
    )


def alone(page: Chromium) -> list[str]:
    """What the page asked for outside of itself."""
    return [url for url in page.requests if not url.startswith(("blob:", "data:"))]


def column(page: Chromium, key: str) -> list[str]:
    """The texts of a column of the first table."""
    return page.run(
        f"""(() => {{ const t = document.getElementById("runs");
        const i = [...t.tHead.rows[0].cells].findIndex((e) => e.textContent.trim() === "{key}");
        return [...t.tBodies[0].rows].map((r) => r.cells[i].textContent); }})()"""
    )


def type_filter(page: Chromium, key: str, text: str) -> str:
    """Type into a column's filter; what the page says is left."""
    page.click(f'input[aria-label="Filter by {key}"]')
    page.run("document.activeElement.select()")
    page.call("Input.insertText", text=text)
    return page.run(COUNT)


@pytest.mark.slow
@needs_chromium
def test_two_thousand_runs(browser: Chromium, tmp_path: Path) -> None:
    for i in range(2000):
        make_run(tmp_path / f"{i}-x", lr=1e-4 * (1 + i), seed=i % 3, epochs=30)
    report(tmp_path, "--no-png")
    load(browser, tmp_path / "report" / "index.html")
    assert browser.run(COUNT) == "2,000 of 2,000 runs"
    browser.show("[data-chart]", "svg .trace")
    assert browser.errors == []


@needs_chromium
def test_sorting(page: Chromium) -> None:
    def objectives() -> list[float]:
        cells = column(page, "objective")
        assert cells[-4:] == ["–"] * 4  # what is missing comes last, whichever way
        return [float(cell) for cell in cells[:-4]]

    assert objectives() == sorted(objectives(), reverse=True)
    page.click("#runs thead th:nth-child(3)")
    until(page, f"{SORTS}[0].ariaSort === 'ascending'")
    assert objectives() == sorted(objectives())
    page.run(
        "[...document.querySelectorAll('#runs thead th')]"
        ".find((e) => e.textContent.trim() === 'optimizer.lr').querySelector('[tabindex]').focus()"
    )
    page.key("Enter", 13)  # by the keyboard too
    until(page, f"{SORTS}[0].ariaSort === 'descending'")
    rates = [float(cell) for cell in column(page, "optimizer.lr")]
    assert rates == sorted(rates, reverse=True)
    assert page.run(f"{SORTS}.length") == 1


@needs_chromium
def test_filtering(page: Chromium) -> None:
    assert type_filter(page, "objective", ">0.9") == "6 of 22 runs"
    assert all(float(cell) > 0.9 for cell in column(page, "objective"))
    assert type_filter(page, "estimator.beta", "0.4..1") == "4 of 22 runs"
    assert type_filter(page, "estimator.beta", "<1 >= 0.5") == "2 of 22 runs"
    assert type_filter(page, "estimator.beta", ">x") == "6 of 22 runs"  # means nothing: no filter
    invalid = "document.querySelector('input[aria-label=\"Filter by estimator.beta\"]').ariaInvalid"
    assert page.run(invalid) == "true"
    page.click(".dt-buttons button:nth-of-type(2)")
    assert type_filter(page, "state", "=done") == "19 of 22 runs"
    assert type_filter(page, "state", "!done") == "3 of 22 runs"
    assert type_filter(page, "state", "=killed|failed") == "2 of 22 runs"
    assert type_filter(page, "reason", "not finite") == "1 of 22 runs"
    assert column(page, "run") == ["18-diverged"]
    assert type_filter(page, "state", "no such") == "0 of 22 runs"


@needs_chromium
def test_the_charts_show_the_runs_that_are_left(page: Chromium) -> None:
    lines = "document.querySelector('[data-chart]').data"
    page.show("[data-chart]", "svg .trace")
    assert page.run(f"{lines}.length") == 7  # six in colour, and the others
    type_filter(page, "run", "3-gaussian")
    page.show("[data-chart]", "svg .trace")
    named = page.run(f"{lines}.slice(1).map((trace) => trace.text[0])")
    assert len(named) == 2  # 3-… and 13-…
    assert all("3-gaussian-digits" in name for name in named)
    key = "[...document.querySelectorAll('#key span')].map((e) => (e.hidden ? '' : e.textContent))"
    assert [name.partition("-")[0] for name in page.run(key) if name] == [
        name.partition("-")[0] for name in column(page, "run")
    ]


@needs_chromium
def test_hovering(page: Chromium) -> None:
    page.show("[data-chart]", "svg .trace")
    x, y = page.run(
        "(() => { const e = document.querySelector('[data-chart]').querySelectorAll('.point')[4];"
        "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    page.mouse("mouseMoved", x - 3, y)
    page.mouse("mouseMoved", x, y)
    page.show("[data-chart]", ".hoverlayer .hovertext")
    text = page.run("document.querySelector('.hoverlayer').textContent")
    assert "gaussian-digits" in text
    assert "optimizer.lr=" in text


@needs_chromium
def test_dragging_along_an_axis_filters(page: Chromium) -> None:
    axis = "#parallel .axis-brush .background-brush, #parallel .axis-brush rect"
    page.show("#parallel", ".axis-brush rect")
    x, y, height = page.run(
        f"(() => {{ const b = document.querySelector('{axis}').getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y, b.height]; })()"
    )
    page.mouse("mouseMoved", x, y + height * 0.02)
    page.mouse("mousePressed", x, y + height * 0.02, button="left", clickCount=1)
    for share in (0.05, 0.1, 0.2):
        page.mouse("mouseMoved", x, y + height * share, button="left", buttons=1)
    page.mouse("mouseReleased", x, y + height * 0.2, button="left", clickCount=1)
    until(page, "!document.querySelector('.dt-info').textContent.startsWith('22 ')")
    rates = {float(cell) for cell in column(page, "optimizer.lr")}
    assert rates == {0.03}  # the top fifth of the axis


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(page: Chromium, dark: bool) -> None:
    page.window(390, 844, dark=dark, phone=True)
    page.run("new Promise((done) => setTimeout(done, 100))")
    width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert page.run(width) <= 390
    table = "document.querySelector('.dt-layout-table > div')"
    assert page.run(f"{table}.scrollWidth > {table}.clientWidth && {table}.clientWidth <= 390")
    colours = "[document.body].map((e) => getComputedStyle(e))"
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
        "[...document.querySelectorAll('#runs tbody a')].map((a) => a.getAttribute('href'))"
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
        write_rows(folder / "curves.jsonl", [{"epoch": text, "phase": text, "energy": [1, 2]}])
        (folder / "evaluation.json").write_text(
            json.dumps({"confusion": [[1, 2], [3, 4]], "classes": [text, "b"],
                        "mistakes": [{"index": 1, text: text}]})
        )  # fmt: skip
    report(tmp_path / "top")
    page = tmp_path / "top" / "report" / "index.html"
    browser.window(1280, 900)
    load(browser, page)
    assert browser.errors == []
    browser.click(".dt-buttons button")  # the names of all columns
    browser.show(".dt-button-collection", "button")
    assert alone(browser) == [page.as_uri()]
    assert browser.run("document.querySelectorAll('script, img, iframe').length") == 4
    for chart in ("[data-chart]", "[data-figure]"):
        browser.show(chart, "svg .trace")
    assert browser.run("document.querySelectorAll('svg a, script, img, iframe').length") == 4
    assert browser.errors == []
    links = browser.run(
        "[...document.querySelectorAll('#runs tbody a')].map((a) => a.getAttribute('href'))"
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
    load(browser, folder / "report" / "index.html")
    assert browser.errors == []
    assert browser.run("document.documentElement.scrollWidth") <= 390
    text = browser.run("document.body.innerText")
    assert ("Confusion" in text) == (rest == "whole")
    assert ("No numbers yet" in text) == (rest != "whole")
    assert ("status.json" in text) == (rest == "nothing")
    titles = browser.run("[...document.querySelectorAll('h3')].map((e) => e.textContent)")
    assert len(set(titles)) == len(titles)
    if rest == "whole":
        assert "objective: best accuracy/validation" in text
        assert "last accuracy/test" in text
        # all curves of a relaxation are named, where they can be seen
        browser.show('[aria-label="residual, free phase"]', ".legendtext")
        seen = browser.run(
            "[...document.querySelectorAll('[aria-label=\"residual, free phase\"] .legendtext')]"
            ".map((e) => [e.textContent, e.getBoundingClientRect().right])"
        )
        assert [name for name, _ in seen] == ["1", "2", "3", "4", "5"]
        assert max(right for _, right in seen) <= 390
        # what was measured once is a number, and every curve has its name
        sizes = "[...document.images].map((e) => [e.alt, e.naturalWidth, e.naturalHeight])"
        assert browser.run(sizes) == [["filters, layer 1", 4, 3], ["states, layer 1", 4, 3]]
        assert re.search(r"accuracy/test\s+0\.\d+", text)
        browser.show('[aria-label="energy"]', ".legendtext")
        named = "[...document.querySelectorAll('[aria-label=\"energy\"] .legendtext')]"
        assert browser.run(f"{named}.map((e) => e.textContent)") == [
            "energy/difference",
            "energy/free",
            "energy/nudged",
        ]


@needs_chromium
def test_one_value_is_a_number_and_no_plot(browser: Chromium, tmp_path: Path) -> None:
    """A single epoch, and a phase that makes no steps: nothing to draw."""
    folder = make_run(tmp_path / "one", epochs=1)
    curve = {"epoch": 1, "step": 4, "phase": "free", "energy": [2.5], "residual": [0.0]}
    write_rows(folder / "curves.jsonl", [curve])
    report(folder)
    load(browser, folder / "report" / "index.html")
    text = browser.run("document.body.innerText")
    assert re.search(r"energy, free phase\s+2\.5", text)
    assert re.search(r"accuracy/validation\s+0\.\d+", text)
    points = "document.querySelectorAll('.plot').forEach((e) => { e.seen = true; })"
    browser.run(points)
    assert browser.run(
        "[...document.querySelectorAll('.plot')].every((e) => e.figure().data"
        ".some((t) => (t.x ?? []).length > 1))"
    )


@needs_chromium
def test_a_search_shows_the_pruned_points(browser: Chromium, tmp_path: Path) -> None:
    for i, lr in enumerate((0.001, 0.003, 0.01)):
        make_run(tmp_path / f"{i}-x", lr=lr)
    make_run(tmp_path / "3-x", "pruned", lr=0.1)
    make_run(tmp_path / "4-x", "failed", lr=1.0)
    report(tmp_path, "--no-png")
    load(browser, tmp_path / "report" / "index.html")
    browser.show("#parallel", ".axis-brush rect")
    axes = "document.querySelector('#parallel').data[0].dimensions"
    assert browser.run(f"{axes}.map((d) => d.label)") == ["lr", "state", "objective"]
    assert browser.run(f"{axes}[0].values.length") == 4  # not the one that failed
    best = max(
        json.loads(line).get("accuracy/validation", 0)
        for line in (tmp_path / "3-x" / "metrics.jsonl").read_text().splitlines()
    )
    assert best in [pytest.approx(v) for v in browser.run(f"{axes}.at(-1).values")]
    browser.show("[data-setting]", "svg .trace")
    symbols = browser.run("document.querySelector('[data-setting]').data[0].marker.symbol")
    assert sorted(symbols) == ["circle", "circle", "circle", "circle-open"]


@needs_chromium
def test_what_names_share_is_cut_at_the_front_on_a_phone(browser: Chromium, tmp_path: Path) -> None:
    top = tmp_path / "all"
    for i, name in enumerate(("one-a", "one-b")):
        make_run(top / "2026-01-31" / "12-00-00" / name, lr=0.01 * (i + 1))
    report(top, "--no-png")
    widths = {}
    for width in (1400, 390):
        browser.window(width, 844, phone=width < 500)
        load(browser, top / "report" / "index.html")
        assert sorted(column(browser, "run")) == [f"2026-01-31/12-00-00/one-{x}" for x in "ab"]
        widths[width] = browser.run("document.querySelector('#runs td.run a').offsetWidth")
        cut = "document.querySelector('#runs td.run a .cut')"
        assert browser.run(f"{cut}.textContent") == "2026-01-31/12-00-00/one-"
        assert (browser.run(f"getComputedStyle({cut}).fontSize") == "0px") == (width < 500)
        titles = browser.run("[...document.querySelectorAll('h3')].map((e) => e.textContent)")
        assert len(set(titles)) == len(titles)
    assert widths[390] < widths[1400] / 2


@needs_chromium
def test_the_mistakes_are_pictures_beside_the_matrix(browser: Chromium, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one")
    add_details(folder)
    (folder / "pictures" / "mistakes").mkdir()
    shades = np.arange(12, dtype=np.uint8) * 20
    Image.fromarray(np.repeat(np.repeat(shades, 8)[None], 8, axis=0)).save(
        folder / "pictures" / "mistakes" / "test.png"
    )
    report(folder)
    browser.window(1400, 900)
    load(browser, folder / "report" / "index.html")
    browser.middle(".beside")
    browser.picture(tmp_path / "seen.png")
    left, right = browser.run(
        "[...document.querySelectorAll('.beside > figure')].map((e) => e.getBoundingClientRect())"
        ".map((b) => [b.left, b.right, b.top])"
    )
    assert left[1] <= right[0]
    assert left[2] == right[2]
    places = browser.run(
        "[...document.querySelectorAll('.sheet i')].map((e) => e.getBoundingClientRect())"
        ".map((b) => [b.x + b.width / 2, b.y + b.height / 2])"
    )
    with Image.open(tmp_path / "seen.png") as seen:
        found = [seen.convert("L").getpixel((round(x), round(y))) for x, y in places]
    assert found == list(shades)
    assert browser.run("document.querySelectorAll('.sheet div')[1].textContent.trim()") == "1 → 4"


@needs_chromium
def test_numbers_beyond_all_measure(browser: Chromium, tmp_path: Path) -> None:
    for i, value in enumerate((1.7e308, -1.7e308, 1e140, -1e140, 1e-140)):
        run = make_run(tmp_path / f"{i}", lr=10.0**-i, objective=value)
        make_run(tmp_path / f"{i}-again", lr=10.0**-i, seed=2, objective=-value)
        rows = [
            {"step": n, "epoch": n, "accuracy/test": value, "energy/free": (-1) ** n * value,
             "energy/nudged": 10**400, "cost/free": math.nan}
            for n in range(3)
        ]  # fmt: skip
        write_rows(run / "metrics.jsonl", rows)
        write_rows(run / "curves.jsonl", [{"energy": [value, 10**309, None, "x", -value]}])
        found = {
            "confusion": [[value, 10**400], [0, -1]],
            "mistakes": [{}, {"a": value}, {"b": []}],
        }
        (run / "evaluation.json").write_text(json.dumps(found))
    report(tmp_path, "--no-png")
    load(browser, tmp_path / "report" / "index.html")
    for chart in ("[data-chart]", "[data-setting]", "[data-figure]"):
        browser.show(chart, "svg.main-svg")
    assert browser.errors == []
    assert browser.run(COUNT) == "10 of 10 runs"
