"""Evaluates a run's checkpoint again, and compares with what the run recorded.

    python scripts/evaluate.py outputs/2026-01-31/12-00-00-gaussian-mnist5k-a1b2c3
    python scripts/evaluate.py RUN --checkpoint best --data ../shared/data

Exits 0 if every accuracy that was recorded at that point comes out again, 1 if one does not. It
computes on a GPU if there is one, wherever the run did.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from _timing import exit_cleanly

from eqprop.report.tolerant import number, read_lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a file's name (last)")
    parser.add_argument("--data", help="the folder of the data, where it is not the run's own")
    arguments = parser.parse_args()
    return evaluate(arguments.run, arguments.checkpoint, arguments.data)


def row_of(run: Path, step: int) -> dict[str, Any]:
    """The epoch's row that was recorded at this step; empty if the run's record has none."""
    rows = read_lines(run / "metrics.jsonl", [])
    return next((r for r in rows if r.get("step") == step and "time/train_s" in r), {})


def for_here(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what was of the machine that the run was on, or of its record."""
    device = {**config["device"], "type": "auto", "index": 0, "cuda_graph": "auto"}
    tracking = {**config["tracking"], "trackers": {}}
    return {**config, "device": device, "tracking": tracking}


def evaluate(run: Path, checkpoint: str, data: str | None) -> int:
    from omegaconf import OmegaConf

    from eqprop.cli import build
    from eqprop.config.schema import validate
    from eqprop.run.resume import newest_valid
    from eqprop.training import load as trained
    from eqprop.training import snapshot

    found = trained.find(run, checkpoint)
    for broken in newest_valid(run)[1] if checkpoint == "last" else ():
        print(f"warning: {broken}; {found.path} is evaluated", file=sys.stderr)
    trained.refuse_foreign(found)  # a checkpoint is data, whatever it names as code
    plain = for_here(found.meta["config"])
    if data is not None:
        plain["paths"]["data"] = data
    training = build.build_training(OmegaConf.create(plain), validate(plain))
    snapshot.restore_weights(training.model, found)
    recorded = row_of(run, int(found.meta["step"]))
    differ = 0
    for name, split in (("validation", training.data.validation), ("test", training.data.test)):
        if split is None:
            continue
        accuracy, energy = training.evaluate(split)
        before = number(recorded.get(f"accuracy/{name}"))
        note = "not recorded" if before is None else f"recorded {100 * before:.2f} %"
        print(f"{name:<10} {100 * accuracy:.2f} %  energy {energy:.6g}  ({note})")
        differ += before is not None and before != accuracy
    return 1 if differ else 0


if __name__ == "__main__":
    exit_cleanly(main)
