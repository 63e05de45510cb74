"""The convolutions and matrix products of a training step, and what they take alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
FACTORS = {aten.mm: (0, 1), aten.addmm: (1, 2), aten.convolution: (0, 1)}
"""The operations that are measured, and which of their arguments are multiplied."""


class Call(NamedTuple):
    """One operation, with copies of what it was given."""

    run: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Products(TorchDispatchMode):
    """Within it, every convolution and product that torch runs is noted.

    Attributes:
        done: how many there were.
        needed: those that could not be avoided: no factor was zero, and it was not done before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done = 0
        self.needed: list[Call] = []
        self._seen: set[tuple[Any, ...]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        factors = list(factors_of(func.overloadpacket, args))
        if factors:
            self._note(Call(func, args, kwargs), factors)
        return func(*args, **kwargs)

    def _note(self, call: Call, factors: Sequence[Tensor]) -> None:
        self.done += 1
        settings = str([arg for arg in call.args if not isinstance(arg, Tensor)])
        key = (settings, *((tensor.shape, content(tensor)) for tensor in factors))
        if key in self._seen or not all(tensor.any() for tensor in factors):
            return
        self._seen.add(key)
        args = tuple(copied(arg) for arg in call.args)
        kwargs = {name: copied(value) for name, value in call.kwargs.items()}
        self.needed.append(Call(call.run, args, kwargs))


def factors_of(operation: Any, args: Sequence[Any]) -> Iterator[Tensor]:
    """What an operation multiplies; nothing if it is none of those that count."""
    if operation is aten.convolution_backward:
        to_input, to_weight, _ = args[-1]
        wanted = (True, to_weight, to_input)  # the other factor of each is the signal, the first
        yield from (tensor for tensor, used in zip(args[:3], wanted, strict=True) if used)
    else:
        yield from (args[i] for i in FACTORS.get(operation, ()))


def content(tensor: Tensor) -> int:
    """A number that tells tensors of different values apart."""
    values = tensor.detach().cpu().contiguous().flatten()
    return hash(values.view(torch.uint8).numpy().tobytes())


def copied(arg: Any) -> Any:
    """A tensor's copy, laid out in memory as it is; anything else as it is."""
    return arg.detach().clone() if isinstance(arg, Tensor) else arg


def arithmetic(step: Callable[[], object]) -> tuple[Products, Callable[[], None]]:
    """Take a step; return its products, and what runs the needed ones again and nothing else."""
    with Products() as products:
        step()

    @torch.no_grad()
    def alone() -> None:
        for call in products.needed:
            call.run(*call.args, **call.kwargs)

    return products, alone
