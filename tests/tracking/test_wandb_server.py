"""Weights & Biases online: what a server on loopback has received of whole runs."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from running import Ran, status, train
from wandb_server import ENTITY, KEY, WandbServer, serving
from wandb_store import RUN, is_whole

pytest.importorskip("wandb")


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, WandbServer]:
    """A run that was left alone."""
    told = ("project=trials", "group=evening", "tags=[first,try]", "notes=why")
    with serving() as server:
        ran = train(
            *(*RUN, "name=tiny", *(f"tracking.{words}" for words in told)),
            cwd=tmp_path_factory.mktemp("online"),
            env=server.variables,
        ).succeeded()
    return ran, server


# a run that was left alone


def test_the_server_has_every_metric(received: tuple[Ran, WandbServer]) -> None:
    ran, server = received
    is_whole(server.run, (ran.folder))
    assert server.unknown == []
    objective = status(ran.folder)["objective"]
    assert server.run.summary["best/accuracy/validation"] == objective


def test_the_server_knows_what_the_run_is(received: tuple[Ran, WandbServer]) -> None:
    _, server = received
    assert server.runs.keys() == {"a"}
    about, config = server.run.about, server.run.config
    assert (about["project"], about["groupName"], about["notes"]) == ("trials", "evening", "why")
    assert (about["tags"], about["displayName"]) == (["first", "try"], "a")
    assert (config["model"]["hidden"], config["dataset"]["batch_size"]) == ([16], 100)
    assert config["name"] == "tiny"
    assert server.run.exits == [0]
    metadata = json.loads(server.run.files["wandb-metadata.json"])
    assert metadata["args"][:2] == list(RUN[:2])


def test_the_page_is_named_at_the_start_and_the_end(received: tuple[Ran, WandbServer]) -> None:
    ran, server = received
    page = f"{server.url}/{ENTITY}/trials/runs/a"
    start, *_ = ran.out.split("epoch 1/")
    assert page in start
    assert f"wandb leet outputs/wandb, or {page}" in ran.out
    assert page in (ran.folder / "run.log").read_text()


def test_the_key_is_in_no_file(received: tuple[Ran, WandbServer]) -> None:
    ran, server = received
    assert server.keys == {KEY}, "it has been used"
    files = [path for path in ran.cwd.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert all(KEY.encode() not in content for content in server.run.files.values())


def test_the_charts_and_the_tables_have_come(received: tuple[Ran, WandbServer]) -> None:
    ran, server = received
    evaluation = json.loads((ran.folder / "evaluation.json").read_text())
    tables = {
        name: json.loads(server.run.files[value["path"]])["data"]
        for name, value in server.run.summary.items()
        if isinstance(value, dict) and value.get("_type") == "table-file"
    }
    cells = {(int(a), int(b)): n for a, b, n in tables.pop("zoom/confusion/test_table")}
    assert cells == {
        (i, j): n for i, counts in enumerate(evaluation["confusion"]) for j, n in enumerate(counts)
    }
    worst = [row[1] for row in tables.pop("zoom/mistakes/test")]
    assert worst == [mistake["index"] for mistake in evaluation["mistakes"]]
    assert tables.keys() == {"zoom/curves/free_table", "zoom/curves/nudged_table"}
    charts = json.loads(server.run.about["config"])["_wandb"]["value"]["visualize"]
    assert charts.keys() == {"zoom/confusion/test", "zoom/curves/free", "zoom/curves/nudged"}
    filters = Image.open(io.BytesIO(server.run.files[server.run.summary["zoom/filters/1"]["path"]]))
    assert np.array_equal(
        np.asarray(filters), np.asarray(Image.open(ran.folder / "pictures" / "filters" / "1.png"))
    )
    (shown,) = (a for a in server.artifacts if "mistakes" in a.input["artifactCollectionName"])
    pictures = [Image.open(io.BytesIO(b)) for n, b in shown.files.items() if n.endswith(".png")]
    assert len(pictures) == len(worst)
    assert all(np.asarray(picture).shape == (8, 8) for picture in pictures)


def test_the_charts_come_behind_the_metrics(received: tuple[Ran, WandbServer]) -> None:
    _, server = received
    names = sorted({name for row in server.run.history for name in row if name[0] != "_"})
    charts = [name for name in names if name.startswith("zoom/")]
    assert charts == names[-len(charts) :]
    assert "zoom/mistakes/test" in charts


def test_the_checkpoints_have_come(received: tuple[Ran, WandbServer]) -> None:
    ran, server = received
    models = [a for a in server.artifacts if a.input["artifactTypeName"] == "model"]
    assert [a.aliases for a in models] == [{"latest", "best"}, {"latest", "last"}]
    for alias, artifact in zip(("best", "last"), models, strict=True):
        assert artifact.input["artifactCollectionName"] == "checkpoint-a"
        assert artifact.committed
        content = (ran.folder / "checkpoints" / f"{alias}.pt").read_bytes()
        assert artifact.files == {f"{alias}.pt": content}
        assert artifact.manifest["contents"].keys() == artifact.files.keys()
