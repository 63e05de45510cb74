"""From pixels as they were read to the numbers that a network is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from eqprop.data.raw import Array
from eqprop.run.errors import ConfigError

Deviation = Annotated[float, Gt(0)]
Normalize = tuple[float, Deviation] | tuple[list[float], list[Deviation]]
"""Mean and standard deviation, one number each or one number a channel each."""


class Preparation:
    """Pads pictures by zeros and normalises samples: (x - mean) / std.

    Args:
        pad: pixels on each side, before normalising.
        normalize: mean and std for pixel values of 0 … 1; None: they stay as they are.
        sample_shape: of the samples that it will be given.

    Attributes:
        shape: of the samples that it makes of them.

    Raises:
        ConfigError: if samples of that shape cannot be padded or normalised so.
    """

    def __init__(self, pad: int, normalize: Normalize | None, sample_shape: Sequence[int]) -> None:
        channels, *sides = sample_shape
        if pad and len(sides) != 2:
            raise ConfigError(f"dataset.pad={pad}: {no_pictures(sample_shape)}; choose 0")
        self.shape = (channels, *(side + 2 * pad for side in sides))
        mean = None if normalize is None else normalize[0]
        if isinstance(mean, Sequence) and (len(sides) != 2 or len(mean) != channels):
            what = f"not a number for each channel of samples of shape {tuple(sample_shape)}"
            raise ConfigError(f"dataset.normalize={normalize}: {what}")
        self.pad, self.normalize = pad, normalize

    def __call__(self, images: Array | Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """``images`` (n, *sample_shape) as (n, *shape), a tensor of its own."""
        if isinstance(images, Tensor):
            x = images.detach().to(device, copy=True)
        else:
            native = np.ascontiguousarray(images, images.dtype.newbyteorder("="))
            x = torch.tensor(native, device=device)
        if self.pad:
            x = torch.nn.functional.pad(x, [self.pad] * 4)
        pixels = x.to(torch.float64 if dtype == torch.float64 else torch.float32)
        if x.dtype == torch.uint8:
            pixels.div_(255)
        return self._normalised(pixels).to(dtype)

    def black(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A pixel of value 0 in a picture that it makes, (channels, 1, 1)."""
        zeros = np.zeros((1, self.shape[0], 1, 1), np.uint8)
        return Preparation(0, self.normalize, zeros.shape[1:])(zeros, device, dtype)[0]

    def _normalised(self, x: Tensor) -> Tensor:
        if self.normalize is None:
            return x
        mean, std = (_operand(part, x) for part in self.normalize)
        return x.sub_(mean).div_(std)


def _operand(part: float | Sequence[float], x: Tensor) -> Any:
    if isinstance(part, Sequence):
        return torch.tensor(list(part), dtype=x.dtype, device=x.device).view(-1, 1, 1)
    return part


def is_normalize(normalize: Sequence[float] | Sequence[Sequence[float]] | None) -> bool:
    """Whether it is None, or mean and std of which each is a number, or a number a channel."""
    if normalize is None:
        return True
    if len(normalize) != 2:
        return False
    mean, std = (part if isinstance(part, Sequence) else [part] for part in normalize)
    return len(mean) == len(std) > 0 and all(map(math.isfinite, [*mean, *std])) and min(std) > 0


def no_pictures(sample_shape: Sequence[int]) -> str:
    """The words for samples that have no height and width."""
    return f"samples of shape {tuple(sample_shape)} are no pictures (channels, height, width)"
