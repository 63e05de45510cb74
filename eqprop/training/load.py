"""A trained network back from a run's folder, without its data or the working directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import torch
from hydra.utils import instantiate
from torch import Tensor

from eqprop.config.layers import activations, edge_of, skip_of
from eqprop.config.targets import BASES, check_base, locate
from eqprop.data import Dataset
from eqprop.network import CEnergy, Edge, Network, Skip, chain
from eqprop.network.edge import Shape
from eqprop.relaxation import Solver
from eqprop.run.checkpoint import Checkpoint, CheckpointError
from eqprop.run.errors import ConfigError
from eqprop.run.resume import newest_valid
from eqprop.run.text import one_line
from eqprop.training.predictor import Predictor
from eqprop.training.snapshot import restore_weights

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
PUBLISHED = {
    "eqprop.network.Gaussian": "eqprop.ConditionalGaussian",
    "eqprop.network.Hopfield": "eqprop.RestrictedHopfield",
}
"""The models with the published names, of the energies that have one."""
LAYER_KEYS = (
    *("hidden", "skips", "activation", "output_activation"),
    *("gain", "bias_init", "weight_init", "feedback"),
)
"""The keys of ``model`` that are not the energy's own."""
OPTIONAL = ("scheduler", "noise", "ablation")
"""Groups that a run, or an older one, may do without."""
PARTS = ("model", "cost", "dataset", "dynamics", "estimator", "optimizer", *OPTIONAL)
"""Groups of which a checkpoint's configuration names the classes."""


def load(
    run: str | os.PathLike[str], checkpoint: str = "last", device: torch.device | str = "cpu"
) -> Network:
    """The trained network of the run in the folder ``run``, in evaluation form: no gradients.

    ``network.predict(x)`` gives the classes, and ``network(x)`` the outputs, of samples as the data
    set has them: as the run's evaluations do. ``checkpoint`` is ``last``, ``best``, or a file's
    name in ``run/checkpoints``. Of our own energies on dense layers it is the model with the
    published names (``u``, ``clamp_layer``, …).
    Raises CheckpointError if there is no whole one, or it is not of an eqprop network.
    """
    found = find(run, checkpoint)
    network = build(found).to(device)
    if found.meta["config"]["device"].get("channels_last"):
        network.use_channels_last()
    restore_weights(network, found)
    network.predictor = Recorded(found)
    return network.eval().requires_grad_(False)


def find(run: str | os.PathLike[str], name: str = "last") -> Checkpoint:
    """The checkpoint of that name in a run's folder; for ``last`` the newest one that is whole."""
    path = Path(run) / "checkpoints" / f"{name.removesuffix('.pt')}.pt"
    found, _ = newest_valid(Path(run), None if name == "last" else path)
    if found is None:
        raise CheckpointError(f"{run} holds no checkpoint (checkpoints/last.pt)")
    return found


def build(found: Checkpoint) -> Network:
    """An untrained network as the checkpoint's configuration has it; no other part is made."""
    try:
        config, meta = found.meta["config"], found.meta
        options = dict(config["cost"])
        cost = _class_of("cost", options.pop("_target_"))(beta=1.0, **options)
        model = dict(config["model"])
        dense = all(isinstance(layer, int) for layer in model["hidden"])
        plain = not model.get("skips") and model.get("feedback", "symmetric") == "symmetric"
        if dense and plain and model.keys() <= {"_target_", *LAYER_KEYS}:
            model["_target_"] = PUBLISHED.get(model["_target_"], model["_target_"])
        network = network_of(model, tuple(meta["in_shape"]), meta["n_out"], cost, 1)
        return network.to(DTYPES[config["device"]["dtype"]])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        what = f"{found.path} is not of a network that can be built here"
        raise CheckpointError(f"{what} ({type(error).__name__}: {error})") from error


def network_of(
    model: Mapping[str, Any], in_shape: tuple[int, ...], n_out: int, cost: CEnergy, batch_size: int
) -> Network:
    """The network that ``model`` describes, between input and classes.

    Raises ConfigError if a ``_target_`` is no energy or edge, ValueError if parts do not fit.
    """
    options = dict(model)
    energy = _class_of("model", options.pop("_target_"))
    given = {key: options.pop(key) for key in LAYER_KEYS if key in options}
    paths = [f"model.hidden[{i}]" for i in range(len(given["hidden"]))]
    hidden = [
        layer if isinstance(layer, int) else _edge(edge_of(path, layer))
        for path, layer in zip(paths, given["hidden"], strict=True)
    ]
    ends = [skip_of(f"model.skips[{i}]", skip) for i, skip in enumerate(given.get("skips", ()))]
    activation, output = activations(given, energy)
    phi = ["identity", *[activation] * len(hidden), output]
    return chain(
        partial(energy, **options),
        in_shape,
        hidden,
        n_out,
        phi,
        cost,
        batch_size,
        [Skip(source, target, _edge(edge), own) for source, target, edge, own in ends],
        given.get("gain", 1.0),
        given.get("bias_init", "uniform"),
        given.get("weight_init", "uniform"),
        given.get("feedback", "symmetric"),
    )


def _edge(keys: dict[str, Any]) -> Callable[[Shape], Edge]:
    """What makes the edge from the shape of the layer that it comes from."""
    return partial(_class_of("edge", keys.pop("_target_")), **keys)


def refuse_foreign(found: Checkpoint, groups: Collection[str] = PARTS) -> None:
    """Raise CheckpointError if its configuration would make anything but parts of a training."""
    try:
        for group in groups:
            if group in OPTIONAL and found.meta["config"].get(group) is None:
                continue
            target = str(found.meta["config"][group]["_target_"])
            _class_of(group, target)
        if augment := found.meta["config"]["dataset"].get("augment"):
            _class_of("dataset.augment", augment["_target_"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{found.path} is of no training ({error})") from error


ANSWERING = ("dynamics", "estimator", "noise", "dataset")
"""The groups that decide, beside the network, what it answers."""


class Recorded:
    """How the network of a run answers: as its evaluations do. What it needs is made when asked."""

    def __init__(self, found: Checkpoint) -> None:
        self.found = Checkpoint(found.path, found.meta, b"")
        self.predictor: Predictor | None = None

    def __call__(self, network: Network, x: Tensor) -> Tensor:
        """The outputs (batch, n_out) for raw samples.

        Raises:
            CheckpointError: if the solver, estimator or data set of the run cannot be made here.
            ValueError: if samples do not fit.
        """
        if self.predictor is None:
            self.predictor = self._made(network)
        return self.predictor(network, x)

    def _made(self, network: Network) -> Predictor:
        refuse_foreign(self.found, ANSWERING)
        config = self.found.meta["config"]
        data = {key: value for key, value in config["dataset"].items() if key != "augment"}
        try:
            noise = instantiate(config["noise"]) if config.get("noise") else None
            dataset: Dataset = instantiate(data, root=config["paths"]["data"])
            return Predictor(
                solver_of(instantiate, config["dynamics"], network),
                instantiate(config["estimator"]),
                dataset,
                noise if noise is not None and noise.evaluated else None,
                config["seed"],
                config["trainer"]["eval_batch_size"],
            )
        except Exception as error:  # it is somebody else's code that may run here
            why = one_line(error.__cause__ or error)
            raise CheckpointError(
                f"{self.found.path}: its run cannot be made here: {why}"
            ) from error


def solver_of(make: Callable[..., Any], dynamics: Mapping[str, Any], network: Network) -> Solver:
    """The solver that ``make`` makes of the keys of ``dynamics``, for this network.

    Raises ValueError if it cannot relax the network.
    """
    chooses = "network" in signature(locate(str(dynamics["_target_"]))).parameters
    solver: Solver = make(dynamics, **({"network": network} if chooses else {}))
    solver.check(network)
    solver.suit(network)
    return solver


def _class_of(group: str, target: Any) -> Any:
    """The class, if it is one of the group: a checkpoint is data, not code to run.

    Or a function that says by an annotation that it returns such a class.
    """
    found = made = locate(str(target))
    if not isinstance(found, type):
        with suppress(Exception):  # of names that are imported for types alone, for example
            made = get_type_hints(found).get("return")
    if not isinstance(made, type):
        of = " or ".join(BASES[group])
        raise ConfigError(f"{target} is no class, and does not say what it returns (-> {of})")
    try:
        check_base(group, made)
    except ConfigError as error:
        raise ConfigError(f"{target}: {error}") from error
    return found
