"""scripts/benchmarks/precision.py: its errors against what rounding must and cannot do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import precision
import pytest
import torch


def test_error_of() -> None:
    right = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert precision.error_of(right, right) == (0.0, pytest.approx(1.0))
    assert precision.error_of(2 * right, right) == (pytest.approx(1.0), pytest.approx(1.0))
    turned = torch.tensor([-4.0, 3.0], dtype=torch.float64)
    assert precision.error_of(turned, right) == (pytest.approx(math.sqrt(2)), pytest.approx(0.0))


def test_each_precision_is_as_wrong_as_its_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "found.json"
    words = ["dataset=digits", "model.hidden=[32]", "--epochs", "1", "--json", str(path)]
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        assert precision.main(words) == 0
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
    rows = json.loads(path.read_text())
    assert {(row["model"], row["epochs"]) for row in rows} == {
        (f"model={name}", epochs) for name in ("gaussian", "hopfield") for epochs in (0, 1)
    }
    digits = {(r["model"], r["epochs"], r["precision"], r["parameter"]): r for r in rows}
    for (*place, kind, name), row in digits.items():
        if kind == "bfloat16":  # 2^16 times coarser than float32
            assert row["relative"] > 100 * digits[(*place, "float32", name)]["relative"]
        elif kind == "float32":
            assert 0 < row["relative"] < 1e-3
            assert row["cosine"] == pytest.approx(1, abs=1e-6)
        else:  # products in bfloat16 where the processor has them, sums in float32
            assert 0 < row["relative"] < 0.5
    assert "bfloat16" in capsys.readouterr().out


def test_a_wrong_override_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert precision.main(["optimizer.lr=abc"]) == 2
    assert capsys.readouterr().err.startswith("error: optimizer.lr='abc'")
