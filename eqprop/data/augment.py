"""Random changes of the training pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from eqprop.data.draws import Draws
from eqprop.run.errors import ConfigError


class Augmentation(ABC):
    """What training pictures go through, in batches, on the device; others never do.

    It draws from ``draws`` alone, so that a picture is a function of seed, epoch and sample.
    """

    active: bool = True
    """Whether it changes anything: what is not active costs nothing."""

    @abstractmethod
    def __call__(self, x: Tensor, draws: Draws, black: Tensor) -> Tensor:
        """New pictures of the shape of ``x`` (batch, channels, height, width), which stays.

        ``black`` (channels, 1, 1) is a pixel value of 0, normalised as ``x`` is.
        """


class CropFlip(Augmentation):
    """A window of the picture's size, cut at random from the padded picture; and its mirror image.

    Raises ConfigError for a value out of range.
    """

    def __init__(
        self,
        crop: Annotated[
            int,
            Ge(0),
            Doc("pixels of padding on each side, out of which a window is cut (0: none)"),
        ] = 0,
        mode: Annotated[
            Literal["edge", "zeros"], Doc("padding repeats the outermost pixels, or is black")
        ] = "edge",
        flip: Annotated[bool, Doc("exchange left and right in half of the cases")] = False,
    ) -> None:
        if crop < 0 or mode not in ("edge", "zeros"):
            allowed = "crop must be at least 0, mode edge or zeros"
            raise ConfigError(f"dataset.augment: crop={crop}, mode={mode}: {allowed}")
        self.crop, self.mode, self.flip = crop, mode, flip
        self.active = crop > 0 or flip

    def __call__(self, x: Tensor, draws: Draws, black: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        rows, columns = self._window(height, draws), self._window(width, draws)
        if self.flip:
            mirrored = draws.integers(2).bool().unsqueeze(1)
            columns = torch.where(mirrored, columns.flip(1), columns)
        inner_rows, inner_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        places = (inner_rows.unsqueeze(2) * width + inner_columns.unsqueeze(1)).flatten(1)
        places = places.unsqueeze(1).expand(-1, channels, -1)
        cut = x.flatten(2).gather(2, places).view(x.shape)
        if self.mode == "edge":
            return cut
        inside = (rows == inner_rows).unsqueeze(2) & (columns == inner_columns).unsqueeze(1)
        return torch.where(inside.unsqueeze(1), cut, black)

    def _window(self, size: int, draws: Draws) -> Tensor:
        """The rows, or columns, (batch, size) of the picture of which the window consists."""
        offsets = draws.integers(2 * self.crop + 1) - self.crop
        return offsets.unsqueeze(1) + torch.arange(size, device=offsets.device)
