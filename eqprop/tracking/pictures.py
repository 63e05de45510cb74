"""Pictures of what trackers are shown, as arrays of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eqprop.tracking.items import ConfusionMatrix

Pixels = npt.NDArray[Any]
_CELL = 24  # pixels
_GAP = 2  # pixels


def matrix_picture(matrix: ConfusionMatrix) -> Pixels:
    """(side, side) uint8: a square a cell, the whiter the larger its share of the true class."""
    counts = np.array(matrix.counts, dtype=np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return np.kron((255 * share).round(), np.ones((_CELL, _CELL))).astype(np.uint8)


def side_by_side(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one shape in a grid, row by row, with dark gaps between them."""
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width, *colours = pictures[0].shape
    rows = math.ceil(len(pictures) / columns)
    grid = np.zeros((rows * (height + _GAP), columns * (width + _GAP), *colours), np.uint8)
    for number, picture in enumerate(pictures):
        top, left = (
            part * size
            for part, size in zip(
                divmod(number, columns), (height + _GAP, width + _GAP), strict=True
            )
        )
        grid[top : top + height, left : left + width] = picture
    return grid
