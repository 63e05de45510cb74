"""Imports of the package, those for types only too: no circles, and one direction."""

from __future__ import annotations

import lines
import pytest

LEVELS = (  # low to high; a module imports from its own package and from lower levels
    {"network"},
    {"relaxation"},
    {"estimator"},
    {"run"},
    {"data", "tracking", "config"},
    {"training"},
    {"report", "sweep"},
    {"cli"},
)
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
ALONE = ("network", "run")  # import from no other package at all


def package_of(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def test_no_module_imports_itself_in_a_circle() -> None:
    assert lines.circle(lines.imports()) == []


def test_packages_import_from_lower_levels_only() -> None:
    wrong = []
    for module, imported in lines.imports().items():
        here = package_of(module)
        for other in imported if here else ():  # eqprop itself only gives names
            there = package_of(other)
            alone = here in ALONE and there != here
            if there and there != here and (alone or LEVEL[there] >= LEVEL[here]):
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_every_package_has_a_level() -> None:
    packages = {package_of(module) for module in lines.imports()} - {""}
    assert packages == LEVEL.keys()


def test_a_circle_is_found() -> None:
    assert lines.circle({"a": {"b"}, "b": {"c"}}) == []
    assert set(lines.circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    lines.main()
    out = capsys.readouterr().out
    assert "import circles: none" in out
    counted = int(out.split()[0])
    assert counted == sum(
        len(path.read_text().splitlines()) for path in lines.PACKAGE.rglob("*.py")
    )
