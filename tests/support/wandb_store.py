"""What a stand-in for W&B's server keeps of runs, and whether a run is whole there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import QUICK, rows
from test_tracking_runs import NAMES

RUN = (
    *(*QUICK[:2], "tracking=wandb_online", "trainer.epochs=3", "trainer.log_every=2"),
    *("checkpoint.share=1", "trainer.curves_every=2", "hydra.run.dir=outputs/a"),
)
"""3 epochs of 13 steps: rows at the even steps and at 13, 26 and 39."""


@dataclass
class StoredRun:
    """What has arrived of one run, from however many processes."""

    about: dict[str, Any] = field(default_factory=dict)
    """The last value of each variable of UpsertBucket: config, displayName, groupName, tags, …"""
    streams: dict[str, list[str]] = field(default_factory=dict)
    """The lines of each streamed file; a line that comes again at its place replaces itself."""
    exits: list[int] = field(default_factory=list)
    """The exit code of each process that said that the run was complete."""
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams.get("wandb-history.jsonl", [])]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.streams.get("wandb-summary.json") or ["{}"]
        return dict(json.loads(lines[-1]))

    @property
    def config(self) -> dict[str, Any]:
        """Of the user, without W&B's own part."""
        found = json.loads(self.about.get("config") or "{}")
        return {name: part["value"] for name, part in found.items() if name != "_wandb"}

    def stream(self, body: dict[str, Any]) -> None:
        for name, part in body.get("files", {}).items():
            lines, offset = self.streams.setdefault(name, []), part["offset"]
            assert offset <= len(lines), f"{name}: nothing came before line {offset}"
            lines[offset : offset + len(part["content"])] = part["content"]
        if body.get("complete"):
            self.exits.append(body["exitcode"])


@dataclass
class StoredArtifact:
    input: dict[str, Any]
    """Of CreateArtifact: artifactTypeName, artifactCollectionName, runName, aliases, …"""
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False

    @property
    def aliases(self) -> set[str]:
        return {alias["alias"] for alias in self.input.get("aliases") or []}


def by_name(found: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """The values of each metric in the order in which they came, with their optimizer steps."""
    values: dict[str, list[tuple[int, Any]]] = {}
    for row in found:
        for name in row.keys() - {"step", "epoch", "_step", "_runtime", "_timestamp"}:
            values.setdefault(name, []).append((row.get("step", -1), row[name]))
    return values


def is_whole(run: StoredRun, folder: Path) -> None:
    """No row and no extreme is missing or there twice, and each has its step and epoch.

    W&B's client had no reason either to drop a row that it was given.
    """
    truth, found = by_name(rows(folder)), by_name(run.history)
    assert truth.keys() >= NAMES
    for name in truth:
        assert found[name] == truth[name], name
        values = [value for _, value in truth[name]]
        extremes = {"min": min(values), "max": max(values), "last": values[-1]}
        if name in run.summary:  # what is of one layer, parameter or batch is not
            assert run.summary[name] == extremes, name
    assert {"accuracy/validation", "accuracy/test", "cost/nudged"} <= run.summary.keys()
    epochs = {row["step"]: row["epoch"] for row in rows(folder)}
    assert {row["step"]: row["epoch"] for row in run.history} == epochs
    places = [row["_step"] for row in run.history]
    assert places == sorted(set(places))
    for log in folder.parent.glob("wandb/run-*/logs/debug-internal.log"):
        assert "ignoring" not in log.read_text()
