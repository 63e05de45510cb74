"""W&B's variables do in the default run what W&B's users expect."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import QUICK, train, wandb_runs

pytest.importorskip("wandb")
RUN = (*QUICK[:3], "trainer.summary=false")


def test_they_win_over_defaults_and_not_over_what_is_typed(tmp_path: Path) -> None:
    env = {
        "WANDB_PROJECT": "mine",
        "WANDB_NAME": "a name",
        "WANDB_TAGS": "first, second",
        "WANDB_RUN_GROUP": "together",
        "WANDB_ENTITY": "somebody",
        "WANDB_NOTES": "why, and how",
    }
    train(*RUN, cwd=tmp_path, env=env).succeeded()
    (run,) = wandb_runs(tmp_path)
    assert (run["project"], run["display_name"], run["run_group"]) == ("mine", "a name", "together")
    assert (run["tags"], run["notes"]) == (["first", "second"], "why, and how")
    assert run["entity"] == "somebody"
    typed = ("tracking.project=typed", "name=typed", "tracking.tags=[x]", "tracking.notes=n")
    (tmp_path / "b").mkdir()
    train(*RUN, *typed, "tracking.group=g", cwd=tmp_path / "b", env=env).succeeded()
    (run,) = wandb_runs(tmp_path / "b")
    assert (run["project"], run["run_group"], run["tags"]) == ("typed", "g", ["x"])
    assert run["display_name"].startswith("typed-")


@pytest.mark.parametrize("variable", ["WANDB_MODE=disabled", "WANDB_DISABLED=true"])
def test_disabled(variable: str, tmp_path: Path) -> None:
    name, _, value = variable.partition("=")
    ran = train(*RUN, cwd=tmp_path, env={name: value}).succeeded()
    assert "disabled" in ran.out
    assert "wandb leet" not in ran.out
    assert not (tmp_path / "outputs" / "wandb").exists()
    typed = train(*RUN, "tracking=wandb_offline", cwd=tmp_path, env={name: value}).succeeded()
    assert f"ignored: {variable}" in typed.out
    assert len(wandb_runs(tmp_path)) == 1


def test_online_and_a_folder(tmp_path: Path) -> None:
    """Without a login it goes offline, and says so."""
    where = tmp_path / "elsewhere"
    where.mkdir()
    env = {"WANDB_MODE": "online", "WANDB_DIR": str(where)}
    ran = train(*RUN, cwd=tmp_path, env=env)
    assert ran.code == 0
    assert "no W&B login" in ran.out + ran.err
    assert "elsewhere/wandb" in ran.out
    assert len(list(where.glob("wandb/offline-run-*"))) == 1
    assert not list((tmp_path / "outputs").glob("wandb/offline-run-*"))
