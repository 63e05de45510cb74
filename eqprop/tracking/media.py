"""What a run shows besides numbers, as W&B has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistakes

AXES = ("step", "epoch")
OF_EPOCHS = ("accuracy/", "time/", "throughput/", "energy/test")
"""How the names of the metrics begin that there is one of an epoch."""
SECTION = "zoom"
"""Where charts and tables are shown: behind the metrics, whose sections come by the alphabet.

A terminal dashboard draws the number of a table's rows, and whatever numbers it has, as metrics.
"""


def define_metric(run: Any, name: str) -> None:
    """Give a metric its x axis, and its lowest, highest and last value in the summary.

    By its whole name: W&B's patterns do not match a name with a dot in it, as parameters have.
    """
    if name in AXES:
        run.define_metric(name)
        return
    axis = "epoch" if name.startswith(OF_EPOCHS) else "step"
    run.define_metric(name.replace(".", "\\."), step_metric=axis, summary="min,max,last")


def curves_chart(wandb: Any, curves: Sequence[Curve]) -> Any:
    """The energies of one phase against its steps, a line an epoch."""
    return wandb.plot.line_series(
        xs=[list(range(len(curve.energy))) for curve in curves],
        ys=[list(curve.energy) for curve in curves],
        keys=[f"epoch {curve.epoch}" for curve in curves],
        title=f"Energy in the {curves[0].phase} phase",
        xname="relaxation step",
    )


def confusion_chart(wandb: Any, matrix: ConfusionMatrix) -> Any:
    """The confusion matrix in W&B's own chart."""
    columns = ["Actual", "Predicted", "nPredictions"]
    cells = [
        [true, predicted, count]
        for true, counts in zip(matrix.classes, matrix.counts, strict=True)
        for predicted, count in zip(matrix.classes, counts, strict=True)
    ]
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=columns, data=cells),
        {name: name for name in columns},
        {"title": "Confusion matrix"},
    )


def mistakes_table(wandb: Any, mistakes: Mistakes) -> Any:
    """The worst mistakes with their pictures, a row each."""
    columns = ["picture", "index", "true", "taken for", "probability", "of the true one", "cost"]
    rows = [
        [
            None if m.picture is None else wandb.Image(m.picture),
            *(m.index, mistakes.classes[m.target], mistakes.classes[m.predicted]),
            *(m.probability, m.target_probability, m.cost),
        ]
        for m in mistakes.worst
    ]
    return wandb.Table(columns=columns, data=rows)


def tidy(thing: Any) -> None:
    """Remove the folder that W&B has written a logged table into and copied it from.

    It would leave that to the end of the process.
    """
    target = getattr(getattr(thing, "table", thing), "_artifact_target", None)
    folder = getattr(getattr(target, "artifact", None), "_tmp_dir", None)
    if folder is not None:
        folder.cleanup()


def checkpoint_artifact(wandb: Any, name: str, file: CheckpointFile, folder: Path) -> Any:
    """A version of the run's checkpoint. ``folder`` keeps it as it is now, for a later upload."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / file.path.name
    kept.unlink(missing_ok=True)
    try:
        os.link(file.path, kept)  # costs no space: the run replaces its checkpoints, never edits
    except OSError:  # another file system, or one without links
        shutil.copyfile(file.path, kept)
    artifact = wandb.Artifact(name[:128], type="model")
    artifact.add_file(str(kept.absolute()), skip_cache=True, policy="immutable")
    return artifact
