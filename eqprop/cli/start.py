"""What a run is made of: a table before its first epoch, and for the record what ``auto`` chose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from eqprop.cli.device import captures, rounding
from eqprop.config.schema import Config
from eqprop.config.signature import component_type
from eqprop.network import Network
from eqprop.run.text import yaml_word
from eqprop.training.session import Session
from eqprop.training.summary import words

_LABEL = 10  # columns, as in the table of results


def lines(config: Config, session: Session) -> Iterator[str]:
    """A line for each part of the run, with the numbers that it really uses."""
    parts = chosen(config, session)
    data, network = session.data, session.network
    parameters = sum(p.numel() for p in network.parameters())
    samples = [("training", data.train), ("validation", data.validation), ("test", data.test)]
    sizes = (f"{0 if split is None else len(split):,} {name}" for name, split in samples)
    every = f"batches of {data.batch_size}, {session.steps_an_epoch:,} an epoch"
    epochs = f"{session.epochs} epoch{'s' * (session.epochs > 1)}"
    table = {
        "network": f"{layers_of(network)}; {parameters:,} parameters",
        "energy": f"{_name_of_energy(network)}, {_activations(parts['model'])}",
        "cost": type(session.cost).__name__,
        "solver": _told(parts["dynamics"]),
        "estimator": _told(options_of("estimator", session.estimator)),
        "optimizer": f"{_told(config.optimizer.model_dump(by_alias=True))}; {epochs}",
        "data": f"{_short(config.dataset.target)}: {', '.join(sizes)} samples; {every}",
        "device": _device(parts["device"], rounding(session)["device"]),
    }
    if config.init_from is not None:
        table["weights"] = f"those of {config.init_from}"
    more = {"noise": config.noise, "ablation": config.ablation}
    table |= {name: _told(part.model_dump(by_alias=True)) for name, part in more.items() if part}
    if own := config.callbacks.values():
        table["callbacks"] = "; ".join(_told(part.model_dump(by_alias=True)) for part in own)
    for name, text in table.items():
        yield f"{name:<{_LABEL}} {text}"


def chosen(config: Config, session: Session, origin: Any = None) -> dict[str, Any]:
    """What the run really uses where its configuration leaves that open, in plain values.

    ``origin`` is of which checkpoint its first weights are.
    """
    network, solver, device = session.network, session.solver, session.device
    dynamics = options_of("dynamics", solver)
    if dynamics.get("init") == "auto":
        forward = solver.feeds_forward(network)
        dynamics["init"] = "feedforward" if forward else solver.first(network)
    activation, output = config.model.activations()
    found: dict[str, Any] = {
        "model": {"activation": activation, "output_activation": output},
        "dynamics": dynamics,
        "device": {
            "type": device.type,
            "index": device.index or 0,
            "threads": torch.get_num_threads(),
            "dtype": config.device.dtype,
            "compile": bool(rounding(session)["compiled"]),
            "cuda_graph": captures(config, device),
        },
    }
    return found if origin is None else {**found, "init_from": origin}


def _name_of_energy(network: Network) -> str:
    """The class of the local terms, or of the network where that gives the energy as a whole."""
    return type(network if network.by_autograd else network.local).__name__


def options_of(group: str, part: Any) -> dict[str, Any]:
    """``_target_`` of a part, and the keys of its constructor that it keeps under their names."""
    kind: Any = type(part)
    fields = component_type(group, kind).model_fields
    keys = [field.alias or name for name, field in fields.items()]
    kept = {key: getattr(part, key) for key in keys if key != "_target_" and hasattr(part, key)}
    plain = (bool, int, float, str, type(None), list, tuple)
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}"} | {
        key: value for key, value in values.items() if isinstance(value, plain)
    }


def layers_of(network: Network) -> str:
    """The layers' sizes, ``784-1000-10`` or ``1x28x28 - 32x12x12 - 10``, and what joins them."""
    shapes = ["x".join(map(str, shape)) for shape in network.shapes]
    flat = all(len(shape) == 1 for shape in network.shapes)
    kinds = Counter(words(edge).partition(" from")[0] for edge in network.edges)
    edges = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return f"{'-'.join(shapes) if flat else ' - '.join(shapes)} ({edges})"


def _activations(model: Mapping[str, Any]) -> str:
    hidden, output = model["activation"], model["output_activation"]
    return hidden if hidden == output else f"{hidden}, output {output}"


def _told(part: Mapping[str, Any]) -> str:
    """A class and its keys on one line, without those that are null or false."""
    rest = {key: value for key, value in part.items() if key != "_target_"}
    shown = [f"{k} {_word(v)}" for k, v in rest.items() if v is not None and v is not False]
    return ", ".join([_short(part["_target_"]), *shown])


def _short(target: str) -> str:
    return target.rpartition(".")[2]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else yaml_word(value)


def _device(device: Mapping[str, Any], name: str) -> str:
    where = "CPU" if device["type"] == "cpu" else f"GPU {device['index']}"
    threads = f"{device['threads']} thread{'s' * (device['threads'] > 1)}"
    how = [f"{where} ({name})", threads, device["dtype"]]
    how += ["compiled loops"] if device["compile"] else []
    return ", ".join([*how, *(["CUDA graph"] if device["cuda_graph"] else [])])
