"""scripts/benchmarks/picture_ep.py: the laws that it shows. No picture is judged."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scripting import is_png, needs_matplotlib, run


@needs_matplotlib
def test_the_picture_of_ep(tmp_path: Path) -> None:
    run("benchmarks/picture_ep.py", "--out", tmp_path / "ep.png")
    assert is_png(tmp_path / "ep.png")


def test_the_picture_s_errors_have_the_orders_that_it_names() -> None:
    import picture_ep

    model, target = picture_ep.network(seed=2)
    found = picture_ep.errors(model, target)
    for name, order in (("one-sided", 1), ("centered", 2)):
        steps = zip(found[name][-3:], found[name][-2:], strict=False)
        assert all(math.log10(a / b) * 3 == pytest.approx(order, abs=0.05) for a, b in steps)
