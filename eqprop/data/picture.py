"""A sample, or many small pictures, as a picture that a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

_COLOURS = 3
_WIDTH = 480  # pixels up to which a mosaic is enlarged


def picture(x: Tensor, shape: Sequence[int]) -> npt.NDArray[Any] | None:
    """The sample ``x``, read in that shape, as uint8: (height, width) or (height, width, 3).

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


def mosaic(pictures: Tensor, columns: int) -> npt.NDArray[Any]:
    """Pictures (n, 1 or 3, height, width) in rows of ``columns``, as one uint8 picture.

    All are on one scale from black to white, with a white line around each; enlarged if small.
    """
    n, colours, height, width = pictures.shape
    found = picture(pictures.movedim(1, 3), (n * height, width, colours))
    assert found is not None
    tiles = found.reshape(n, height, width, *found.shape[2:])
    size = (height + 1) * -(-n // columns) + 1, (width + 1) * columns + 1
    canvas = np.full((*size, *found.shape[2:]), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (height + 1) * (i // columns) + 1, (width + 1) * (i % columns) + 1
        canvas[y : y + height, x : x + width] = tile
    zoom = max(1, _WIDTH // size[1])
    return canvas.repeat(zoom, 0).repeat(zoom, 1)
