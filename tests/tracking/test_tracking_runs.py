"""Whole runs: what each tracker holds at the end is what metrics.jsonl says, killed or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import killed
from PIL import Image
from running import Ran, rows, train
from tracked import records, summary_of

from eqprop.data import Digits

pytest.importorskip("tensorboard")
RUN = (
    *("dataset=digits", "model.hidden=[16]", "trainer.epochs=3", "trainer.log_every=2"),
    *("checkpoint.share=1", "trainer.curves_every=2", "hydra.run.dir=outputs/a"),
)
BOTH = "tracking=[wandb_offline,tensorboard]"
NAMES = {
    *("accuracy/train", "accuracy/validation", "accuracy/test"),
    *("energy/free", "energy/nudged", "energy/difference", "energy/test"),
    *("cost/free", "cost/nudged", "relaxation/free_steps", "relaxation/free_residual"),
    *("relaxation/nudged_steps", "relaxation/nudged_residual"),
    *(f"{kind}/{layer}" for layer in (1, 2)
      for kind in ("energy/layer", "saturation", "relaxation/nudged_residual")),
    *(f"{kind}_norm/W.{i}.{part}" for kind in ("gradient", "weight")
      for i in (0, 1) for part in ("weight", "bias")),
    *("time/train_s", "time/eval_s", "throughput/examples_per_s"),
}  # fmt: skip
"""The metrics that every run records."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return train(*RUN, BOTH, cwd=tmp_path_factory.mktemp("both")).succeeded()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The same run, killed in its second epoch and, after the curves of that, in its third."""
    cwd = tmp_path_factory.mktemp("resumed")
    killed(20, *RUN, BOTH, cwd=cwd)
    killed(35, "resume=outputs/a", cwd=cwd)
    return train("resume=outputs/a", cwd=cwd).succeeded()


@pytest.fixture(scope="module")
def offline(ran: Ran) -> list[dict[str, Any]]:
    return records(wandb_files(ran)[0])


def wandb_files(ran: Ran) -> list[Path]:
    return sorted(ran.cwd.glob("outputs/wandb/offline-run-*/*.wandb"))


def history(found: list[dict[str, Any]]) -> dict[str, dict[int, Any]]:
    """By name and step."""
    values: dict[str, dict[int, Any]] = {}
    for record in found:
        if record["type"] == "history":
            item = record["history"]["item"]
            for name, value in item.items():
                values.setdefault(name, {})[item["_step"]] = value
    return values


def expected(ran: Ran) -> dict[str, dict[int, Any]]:
    values: dict[str, dict[int, Any]] = {}
    for row in rows(ran.cwd / "outputs" / "a"):
        for name, value in row.items():
            values.setdefault(name, {})[row["step"]] = value
    return values


def test_wandb_has_every_metric_with_the_numbers_of_metrics_jsonl(
    ran: Ran, offline: list[dict[str, Any]]
) -> None:
    found, truth = history(offline), expected(ran)
    assert truth.keys() >= NAMES
    for name in truth:
        assert found[name] == pytest.approx(truth[name], rel=1e-12), name


def test_wandb_knows_the_axes(offline: list[dict[str, Any]]) -> None:
    metrics = {r["metric"]["name"]: r["metric"] for r in offline if r["type"] == "metric"}
    axes = {name.replace("\\.", "."): m.get("step_metric") for name, m in metrics.items()}
    for name in NAMES:
        of_epoch = name.startswith(("accuracy", "time", "throughput")) or name == "energy/test"
        assert axes[name] == ("epoch" if of_epoch else "step"), name


def test_wandb_knows_the_extremes_of_the_whole_run(ran: Ran, resumed: Ran) -> None:
    for run in (ran, resumed):
        summary = summary_of(wandb_files(run)[-1])["summary"]
        assert len(summary) <= 40, "a person reads it"
        for name in NAMES & summary.keys():
            values = list(expected(run)[name].values())
            extremes = {"min": min(values), "max": max(values), "last": values[-1]}
            assert summary[name] == pytest.approx(extremes, rel=1e-12), name
        known = {name.partition("/")[0] for name in summary}
        assert known >= {"accuracy", "best", "last", "cost", "relaxation", "time", "learning_rate"}


def test_wandb_has_the_media(ran: Ran, offline: list[dict[str, Any]]) -> None:
    media = wandb_files(ran)[0].parent / "files"
    tables = {
        name: json.loads((media / table["path"]).read_text())["data"]
        for name, table in summary_of(wandb_files(ran)[0])["summary"].items()
        if isinstance(table, dict) and table.get("_type") == "table-file"
    }
    confusion = {(int(a), int(b)): n for a, b, n in tables["zoom/confusion/test_table"]}
    evaluation = json.loads((ran.cwd / "outputs" / "a" / "evaluation.json").read_text())
    assert confusion == {
        (i, j): n for i, counts in enumerate(evaluation["confusion"]) for j, n in enumerate(counts)
    }
    right = np.trace(evaluation["confusion"]) / np.sum(evaluation["confusion"])
    assert right == pytest.approx(expected(ran)["accuracy/test"][39])
    worst = [(row[1], int(row[2]), int(row[3])) for row in tables["zoom/mistakes/test"]]
    assert worst == [(m["index"], m["target"], m["predicted"]) for m in evaluation["mistakes"]]
    curves = [json.loads(x) for x in (ran.cwd / "outputs/a/curves.jsonl").read_text().splitlines()]
    for phase in ("free", "nudged"):
        lines: dict[str, list[float]] = {}
        for step, key, value in tables[f"zoom/curves/{phase}_table"]:
            assert step == len(lines.setdefault(key, []))
            lines[key].append(value)
        assert lines == {f"epoch {c['epoch']}": c["energy"] for c in curves if c["phase"] == phase}
        assert list(lines) == ["epoch 2", "epoch 3"]


def test_wandb_has_the_pictures_of_the_mistakes(offline: list[dict[str, Any]]) -> None:
    (artifact,) = (
        r["artifact"]
        for r in offline
        if r["type"] == "artifact" and "mistakestest" in r["artifact"]["name"]
    )
    files = {c["path"]: Path(c["local_path"]) for c in artifact["manifest"]["contents"]}
    data = json.loads(files["zoom/mistakes/test.table.json"].read_text())["data"]
    samples = Digits(root="data", batch_size=100).load("cpu").test.x
    assert len(data) == 25
    for picture, index, *_ in data:
        with Image.open(files[picture["path"]]) as image:
            pixels = np.asarray(image)
        sample = samples[index].view(8, 8).numpy()
        assert pixels.shape == (8, 8)
        assert np.corrcoef(pixels.ravel(), sample.ravel())[0, 1] > 0.999


def checkpoints(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    artifacts = [r["artifact"] for r in found if r["type"] == "artifact"]
    models = [artifact for artifact in artifacts if artifact["type"] == "model"]
    assert {artifact["name"] for artifact in models} == {"checkpoint-a"}
    found_as = {
        alias: artifact["manifest"]["contents"][0]
        for artifact in models
        for alias in artifact["aliases"]
        if alias != "latest"  # which W&B adds itself
    }
    assert len(models) == len(found_as)
    return found_as


def test_wandb_has_the_checkpoints(ran: Ran, offline: list[dict[str, Any]]) -> None:
    for alias in ("best", "last"):
        kept = Path(checkpoints(offline)[alias]["local_path"])
        assert kept.is_relative_to(ran.cwd / "outputs" / "wandb")
        original = ran.cwd / "outputs" / "a" / "checkpoints" / f"{alias}.pt"
        assert kept.read_bytes() == original.read_bytes()


def test_wandb_knows_the_command(ran: Ran, offline: list[dict[str, Any]]) -> None:
    (environment,) = (r["environment"] for r in offline if "args" in r.get("environment", {}))
    assert sorted(environment["args"]) == sorted([*RUN, BOTH])
    assert environment["program"].endswith("scripts/train.py")


def test_checkpoints_can_be_left_out(tmp_path: Path) -> None:
    less = ("trainer.epochs=1", "tracking.trackers.wandb.checkpoints=false")
    ran = train(*RUN[:2], *less, cwd=tmp_path).succeeded()
    kinds = {r["artifact"]["type"] for r in records(wandb_files(ran)[0]) if r["type"] == "artifact"}
    assert kinds == {"run_table"}


def test_tensorboard_has_the_numbers_of_metrics_jsonl(ran: Ran, resumed: Ran) -> None:
    from test_tracking_tensorboard import scalars

    for run in (ran, resumed):
        found, truth = scalars(run.cwd / "outputs" / "a" / "tensorboard"), expected(run)
        for name in NAMES:
            assert dict(found[name]) == pytest.approx(truth[name], rel=1e-6), name
            assert len(found[name]) == len(truth[name])


def test_resumed_no_curve_picture_or_artifact_is_there_twice(ran: Ran, resumed: Ran) -> None:
    from test_tracking_tensorboard import raw

    alone, again = ran.cwd / "outputs" / "a", resumed.cwd / "outputs" / "a"
    for name in ("curves.jsonl", "evaluation.json"):
        assert (again / name).read_text() == (alone / name).read_text()
    assert sorted(raw(again / "tensorboard")) == sorted(raw(alone / "tensorboard"))
    (file,) = wandb_files(resumed)  # one entry, though three processes have recorded it
    assert checkpoints(records(file)).keys() == {"best", "last"}


@pytest.mark.parametrize("tracking", ["tensorboard", "wandb_tensorboard"])
def test_ready_options(tracking: str, tmp_path: Path) -> None:
    from test_tracking_tensorboard import scalars

    few = ("trainer.epochs=1", "trainer.log_every=50", f"tracking={tracking}")
    ran = train(*RUN[:2], *few, "hydra.run.dir=outputs/a", cwd=tmp_path).succeeded()
    assert "tensorboard --logdir outputs" in ran.out
    assert "accuracy/test" in scalars(tmp_path / "outputs" / "a" / "tensorboard")
    assert len(wandb_files(ran)) == ("wandb" in tracking)
