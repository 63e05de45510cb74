"""A sample as a picture that a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

_COLOURS = 3


def picture(x: Tensor, shape: Sequence[int]) -> npt.NDArray[Any] | None:
    """The sample ``x`` (d,) of that shape as uint8, (height, width) or (height, width, 3).

    Its lowest number becomes black and its highest white, whatever it was normalised by. None for
    what is no image: it has neither two axes nor three of which the first or last are its colours.
    """
    values: Any = x.detach().float().cpu().numpy().reshape(tuple(shape))
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 3 and values.shape[0] == _COLOURS != values.shape[2]:
        values = np.moveaxis(values, 0, 2)
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] == _COLOURS):
        return None
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return scaled.round().astype(np.uint8)
