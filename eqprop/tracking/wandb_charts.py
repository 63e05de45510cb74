"""What a run shows besides numbers, as charts, tables and artifacts of W&B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistakes


def curves_chart(curves: Sequence[Curve]) -> Any:
    """The energies of one phase against its steps, a line for each epoch."""
    import wandb

    return wandb.plot.line_series(
        xs=[list(range(len(curve.energy))) for curve in curves],
        ys=[list(curve.energy) for curve in curves],
        keys=[f"epoch {curve.epoch}" for curve in curves],
        title=f"Energy in the {curves[0].phase} phase",
        xname="relaxation step",
    )


def confusion_chart(matrix: ConfusionMatrix) -> Any:
    """The confusion matrix in W&B's own chart."""
    import wandb

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


def mistakes_table(mistakes: Mistakes) -> Any:
    """The worst mistakes with their pictures, a row for each."""
    import wandb

    columns = ["picture", "index", "true", "predicted", "probability", "of the true one", "cost"]
    rows = [
        [
            None if m.picture is None else wandb.Image(m.picture),
            *(m.index, mistakes.classes[m.target], mistakes.classes[m.predicted]),
            *(m.probability, m.target_probability, m.cost),
        ]
        for m in mistakes.worst
    ]
    return wandb.Table(columns=columns, data=rows)


def checkpoint_artifact(file: CheckpointFile, run_id: str) -> Any:
    """A version of the run's checkpoint. W&B copies the file, for it may be uploaded later."""
    import wandb

    artifact = wandb.Artifact(f"checkpoint-{run_id}"[:128], type="model")
    artifact.add_file(str(file.path), skip_cache=True)
    return artifact
