"""A stand-in for CUDA graphs on a CPU: it records a step's operations, and replays them.

It is as strict as a GPU's capture. Recording leaves no trace in any tensor or generator. A replay
repeats the recorded operations on the recorded memory, and nothing that happens in Python: a number
that Python baked in stays as it was. An operation that would make the host wait for the device is
refused, while recording, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eqprop.training.step import CudaGraphs, Stepped

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.unique_dim.default,
    aten._unique2.default,
    aten.index.Tensor,  # with a mask it asks how many there are
    aten.index_put_.default,
    aten.repeat_interleave.Tensor,
}


class HostWaitsError(RuntimeError):
    """What a captured step may not do."""


class Refusing(TorchDispatchMode):
    """Refuses operations after which the host would wait, and copies between devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WAITS:
            raise HostWaitsError(f"{func} makes the host wait for the device")
        devices = {t.device.type for t in tensors((args, kwargs)) if t.dim() > 0}
        out = self.call(func, args, kwargs)
        devices |= {t.device.type for t in tensors(out) if t.dim() > 0}
        if len(devices) > 1:
            raise HostWaitsError(f"{func} goes between {' and '.join(sorted(devices))}")
        return out

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


class _Recorder(Refusing):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}  # what was written to, and what it held

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        for tensor in written(func, args, kwargs):
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        for storage, held in self.before.values():
            storage.copy_(held)


class Tape(CudaGraphs):
    """Counts what it did: ``warmed`` steps, ``captured`` ones, ``replayed`` ones."""

    def __init__(self) -> None:
        self.warmed = self.captured = self.replayed = 0
        self.operations: list[str] = []

    def warm_up(self, step: Callable[[], Stepped]) -> Stepped:
        self.warmed += 1
        with Refusing():
            return step()

    def capture(
        self, step: Callable[[], Stepped], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Stepped]:
        self.captured += 1
        states = [generator.get_state() for generator in generators]
        with _Recorder() as recorder:
            result = step()
        recorder.undo()
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        self.operations = [str(func) for func, *_ in recorder.calls]

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for call in recorder.calls:
                    again(*call)

        return replay, result


def again(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Do a recorded operation on the memory that it was recorded on."""
    if func.is_view:
        return
    fresh = func(*args, **kwargs)
    for new, recorded in zip(tensors(fresh), tensors(out), strict=True):
        if new.data_ptr() != recorded.data_ptr():
            recorded.copy_(new)


def written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name) if argument.kwarg_only else None
            if value is None and place < len(args):
                value = args[place]
            yield from tensors(value)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
