"""References (``${…}``) that grow into more than a configuration can be are refused on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf.base import Container
from omegaconf.errors import InterpolationResolutionError

LARGEST = 1_000_000  # characters
_STEP = 1000  # characters that following a reference counts at least: it takes time, too


@contextmanager
def bounded() -> Iterator[None]:
    """Within it following references raises once it has brought 1 000 000 characters.

    ``a: ${b}${b}``, ``b: ${c}${c}`` … doubles at every line: each part is counted before it is put
    together with others, so that neither the time nor the memory is spent.
    """
    names = ("_resolve_node_interpolation", "_evaluate_custom_resolver")
    originals = {name: getattr(Container, name) for name in names}
    left = LARGEST

    def spend(characters: int) -> None:
        nonlocal left
        left -= characters
        if left < 0:
            raise InterpolationResolutionError(
                f"grows beyond {LARGEST} characters by its references (${{…}})"
            )

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def follow(*args: Any, **options: Any) -> Any:
            spend(_STEP)
            found = original(*args, **options)
            spend(len(str(found)))
            return found

        return follow

    for name, original in originals.items():
        setattr(Container, name, counting(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(Container, name, original)
