"""A data set by its arrays."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from typing_extensions import Doc

from eqprop.data import Dataset, Raw


class Bars(Dataset):
    """Pictures of 8 × 8 with one bar at any place: upright (class 0) or lying (class 1)."""

    n_classes: ClassVar[int] = 2

    def __init__(
        self,
        noise: Annotated[float, Ge(0), Doc("standard deviation of each pixel's noise")] = 0.1,
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.noise = noise

    def read(self) -> Raw:
        draw = np.random.RandomState(0)
        pictures = draw.normal(0.0, self.noise, (1200, 8, 8)).astype(np.float32)
        labels, places = draw.randint(2, size=1200), draw.randint(8, size=1200)
        for picture, label, place in zip(pictures, labels, places, strict=True):
            picture[place, :] += label
            picture[:, place] += 1 - label
        return Raw(pictures[:1000], labels[:1000], pictures[1000:], labels[1000:])
