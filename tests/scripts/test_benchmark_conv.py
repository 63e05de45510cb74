"""The benchmark of conv networks, at the smallest sizes. No timing is judged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import benchmark_conv
import pytest
import torch
from _arithmetic import arithmetic
from idx_files import make_mnist
from scripting import in_process
from torch.nn import functional as F

WEIGHT = torch.randn(2, 3, 3, 3)
PICTURE, OTHER = torch.randn(2, 4, 3, 5, 5)
backward = torch.ops.aten.convolution_backward


def conv(x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, WEIGHT)


def pull(signal: torch.Tensor, r: torch.Tensor) -> None:
    backward(
        signal, r, WEIGHT, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (True, False, False)
    )


def products(*steps: Any) -> tuple[int, int]:
    """How many products there were, and how many of them were needed."""
    found, alone = arithmetic(lambda: [step() for step in steps])
    alone()
    return found.done, len(found.needed)


def test_a_product_is_needed_once() -> None:
    assert products(lambda: conv(PICTURE), lambda: conv(PICTURE.clone())) == (2, 1)
    assert products(lambda: conv(PICTURE), lambda: conv(OTHER)) == (2, 2)
    assert products(lambda: WEIGHT[0, 0] @ WEIGHT[0, 1], lambda: PICTURE + 1) == (1, 1)


def test_a_factor_of_zero_needs_no_product() -> None:
    assert products(lambda: conv(torch.zeros_like(PICTURE))) == (1, 0)
    bias, zeros = torch.zeros(5), torch.zeros(5, 5)
    assert products(lambda: torch.addmm(bias, PICTURE[0, 0], PICTURE[0, 1])) == (1, 1)
    assert products(lambda: torch.addmm(bias, zeros, PICTURE[0, 1])) == (1, 0)


def test_what_a_product_does_not_depend_on_does_not_count() -> None:
    """The adjoint of a convolution is the same wherever its input is."""
    signal = conv(PICTURE)
    assert products(lambda: pull(signal, PICTURE), lambda: pull(signal, OTHER)) == (2, 1)
    assert products(lambda: pull(0 * signal, PICTURE)) == (1, 0)


def test_a_buffer_that_was_written_to_is_another_factor() -> None:
    x = PICTURE.clone()
    assert products(lambda: conv(x), lambda: x.add_(1.0), lambda: conv(x)) == (2, 2)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("conv")
    data, path = make_mnist(folder / "data"), folder / "report.json"
    how = ("--rounds", 1, "--budget", 0.1, "--threads", 1, "--epochs", 1, "--json", path)
    small = ("dataset.batch_size=5", "trainer.log_every=2")
    out = in_process(benchmark_conv, "--data", data, *how, "--override", *small)
    assert "/ arithmetic" in out
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_steps_are_set_against_backprop_and_arithmetic(report: dict[str, Any]) -> None:
    names = [row["case"] for row in report["steps"]]
    assert names == [name + who for name in benchmark_conv.CASES for who in ("", ", backprop")]
    for row in report["steps"]:
        for spread in (row["vs_backprop"], row["vs_arithmetic"]):
            assert 0 < spread["q1"] <= spread["median"] <= spread["q3"] < math.inf
        assert row["median_s"] > 0 < row["arithmetic"]["median_s"]


def test_the_products_of_a_step(report: dict[str, Any]) -> None:
    """Backprop: three forward, two back through the dense edge and one call through each conv one.

    Predictive coding, by hand: the pass (3); the output's pull, the drives of layers 3 and 2, both
    pulls again (5); the drive of layer 3 for its signal (1); weight gradients (3).
    """
    rows = {row["case"]: row for row in report["steps"]}
    assert rows["pcn_lenet_mnist, backprop"]["products"] == 3 + 2 + 2
    assert rows["pcn_lenet_mnist"]["products_needed"] == 12
    for row in rows.values():
        assert row["products_needed"] <= row["products"]


def test_epochs_by_the_command(report: dict[str, Any]) -> None:
    assert [row["experiment"] for row in report["epochs"]] == list(benchmark_conv.EXPERIMENTS)
    for row in report["epochs"]:
        assert row["epochs"] == 1
        assert 0 < row["ratio"]["median"] < math.inf
        assert all(0 <= row["accuracy/test"][who]["median"] <= 1 for who in ("eqprop", "backprop"))


def test_one_experiment_alone(tmp_path: Path) -> None:
    """On the digits that come with a package, where there are no files."""
    path = tmp_path / "report.json"
    how = ("--rounds", 1, "--budget", 0.1, "--threads", 1, "--limit", 10, "--json", path)
    in_process(benchmark_conv, "pcn_lenet_mnist", "--data", tmp_path, *how)
    report = json.loads(path.read_text())
    assert len(report["steps"]) == 4
    assert "epochs" not in report
