"""The types of the configuration's parts: which keys a group's option has, and what they may hold.

Strict: text is no number, true is no number, nothing but finite numbers, no key that is not listed.
A whole number may stand where any number is asked for. A field's description completes the
sentence "it must be …" in error messages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from eqprop.config.fields import (
    AutoFlag,
    Component,
    Count,
    Decay,
    Flag,
    NotNegative,
    Number,
    OptionalCount,
    OptionalFlag,
    OptionalText,
    OptionalThreads,
    Path,
    Positive,
    Project,
    Strict,
)

Activation = Literal[
    "identity", "sigmoid", "hard_sigmoid", "tanh", "relu", "leaky_relu", "softplus"
]

PIECEWISE_LINEAR = ("identity", "relu", "leaky_relu", "hard_sigmoid")


def _mean_and_positive_std(pair: list[float] | None) -> list[float] | None:
    if pair is not None and pair[1] <= 0:
        raise ValueError("std must be positive")
    return pair


def _not_zero(number: float) -> float:
    if number == 0:
        raise ValueError("must not be 0")
    return number


class Model(Component):
    """An energy; the runner makes its layers from `hidden` and `activation`."""

    hidden: Annotated[
        list[Annotated[int, Field(ge=1, lt=2**31)]],
        Field(min_length=1, description="a list of at least one whole number >= 1 and < 2^31"),
    ]
    activation: Activation


class ForeignModel(Model):
    """Somebody else's energy: keys of its own beside ours, checked against its signature."""

    model_config = ConfigDict(extra="allow")


class Foreign(Component):
    """Somebody else's class or function: its keys are checked against its signature."""

    model_config = ConfigDict(extra="allow")


class Cost(Component):
    """What the output layer is compared by."""


class TorchOptimizer(Component):
    """What every optimizer of torch takes; the last two are torch's ways to compute the same."""

    lr: Positive
    weight_decay: NotNegative = 0.0
    fused: OptionalFlag = None
    foreach: OptionalFlag = None


class Adam(TorchOptimizer):
    """torch.optim.Adam."""

    betas: Annotated[
        list[Decay],
        Field(min_length=2, max_length=2, description="a list of two numbers, each >= 0 and < 1"),
    ] = [0.9, 0.999]  # noqa: RUF012 - pydantic copies defaults
    eps: NotNegative = 1e-8
    amsgrad: Flag = False


class SGD(TorchOptimizer):
    """torch.optim.SGD."""

    momentum: NotNegative = 0.0
    dampening: Number = 0.0
    nesterov: Flag = False


class Adagrad(TorchOptimizer):
    """torch.optim.Adagrad."""

    lr_decay: NotNegative = 0.0
    initial_accumulator_value: NotNegative = 0.0
    eps: NotNegative = 1e-10


class Device(Strict):
    """Where a run computes, and in which precision."""

    type: Literal["auto", "cpu", "cuda"]
    index: Annotated[int, Field(ge=0, lt=2**31, description="a whole number >= 0")]
    dtype: Literal["float32", "float64", "bfloat16"]
    threads: OptionalThreads
    matmul: Literal["highest", "high", "medium"] = "highest"
    deterministic: Flag
    compile: AutoFlag
    cuda_graph: AutoFlag = "auto"


class Dataset(Component):
    """What is learnt."""

    batch_size: Count
    validation: Annotated[float, Field(ge=0, lt=1, description="a number >= 0 and < 1")] = 0.0
    limit: OptionalCount = None
    normalize: Annotated[
        Annotated[list[float], Field(min_length=2, max_length=2)] | None,
        AfterValidator(_mean_and_positive_std),
        Field(description="null or [mean, std] with std > 0"),
    ] = None
    download: Flag = False


class Relaxing(Component):
    """How the state moves to equilibrium: what every option has."""

    tau: Positive = 1.0
    n_nudged: OptionalCount = None
    tol: NotNegative = 0.0
    init: Literal["auto", "normal", "zeros", "feedforward"] = "auto"


class Dynamics(Relaxing):
    """What every solver has besides."""

    dt: Positive = 1.0
    n_relax: Count


class Auto(Relaxing):
    """The recommended solver; null leaves a number to it."""

    dt: Annotated[
        Annotated[float, Field(gt=0)] | None, Field(description="null or a finite number > 0")
    ] = None
    n_relax: OptionalCount = None


class Euler(Dynamics):
    """Explicit Euler steps."""

    adaptive: Flag = False


class Newton(Dynamics):
    """Layer by layer, along the gradient over the curvature."""

    clip: Positive = 1.0


class Anderson(Dynamics):
    """An accelerated Euler map."""

    memory: Annotated[int, Field(ge=2, le=50, description="a whole number from 2 to 50")] = 5
    regularisation: Positive = 1e-8


class Estimator(Component):
    """One-sided nudging, of either sign."""

    beta: Annotated[
        float, AfterValidator(_not_zero), Field(description="a finite number other than 0")
    ]


class CenteredEstimator(Component):
    """Nudging to both sides."""

    beta: Positive


class Trainer(Strict):
    """How long a run trains, and how often it is measured."""

    epochs: Count
    log_every: Count
    eval_every: Count
    eval_batch_size: Count
    curves_every: OptionalCount = None
    progress: OptionalFlag
    limit_batches: OptionalCount = None
    profile: OptionalCount = None


class Checkpoint(Strict):
    """When a run saves, and how much of it stays."""

    every: Count
    every_steps: OptionalCount
    keep: Annotated[int, Field(ge=0, lt=2**31, description="a whole number >= 0 and < 2^31")]
    share: Annotated[float, Field(gt=0, le=1, description="a number > 0 and <= 1")]


class Wandb(Component):
    """Weights & Biases."""

    mode: Literal["offline", "online"]
    checkpoints: Flag = True


class Tracking(Strict):
    """What every tracker is told, and which trackers there are."""

    project: Project
    entity: OptionalText
    group: OptionalText
    tags: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]],
        Field(description="a list of texts of 1 to 64 characters"),
    ]
    notes: OptionalText
    trackers: Annotated[
        dict[str, Component],
        Field(description="a mapping name: {_target_: class, …}, or {} for none"),
    ]


class Paths(Strict):
    """Where data and outputs lie."""

    data: Path
    outputs: Path
