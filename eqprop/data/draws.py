"""Random choices that are functions of seed, epoch and sample, and of no generator's state."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation ``(n,)`` of 0 … n-1, int64 on the CPU, that depends on seed and epoch only.

    ``seed`` and ``epoch`` are from 0 to 2⁶³ - 1.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(_mixed(seed, epoch)))


class Draws:
    """Random numbers for the samples of a batch, on their device.

    A sample's numbers depend on the seed, the epoch, the sample and on how many were drawn for it
    before: not on the batch that it is in. They are hashes (SplitMix64) of these four.

    Args:
        seed, epoch: from 0 to 2⁶³ - 1.
        samples: (batch,) int64, each sample's place in the training data.
    """

    def __init__(self, seed: int, epoch: int, samples: Tensor) -> None:
        self._keys = _hash(samples * _GAMMA + _mixed(seed, epoch))
        self._drawn = 0

    def integers(self, n: int) -> Tensor:
        """The next numbers (batch,), int64: each of 0 … n-1 is equally likely; n is below 2³¹."""
        self._drawn += 1
        upper = _shifted(_hash(self._keys + _signed(self._drawn * _GAMMA)), 32)
        return (upper * n) >> 32

    def normal_(self, out: Tensor) -> Tensor:
        """Fill ``out`` (batch, *shape) with the next numbers from N(0, 1), and return it."""
        n = out[0].numel()
        at_once = max(1, _AT_ONCE // n)
        for keys, part in zip(
            torch.split(self._keys, at_once), torch.split(out, at_once), strict=True
        ):
            radius, angle = self._uniform(keys, 0, n), self._uniform(keys, n, n)
            normal = radius.log_().mul_(-2.0).sqrt_().mul_(angle.mul_(2.0 * math.pi).cos_())
            part.copy_(normal.view(part.shape))
        self._drawn += 2 * n
        return out

    def _uniform(self, keys: Tensor, after: int, n: int) -> Tensor:
        """The ``n`` numbers (samples, n) after the next few of each key: float64, > 0 and <= 1."""
        first = self._drawn + after + 1
        places = torch.arange(first, first + n, device=keys.device) * _GAMMA
        bits = _shifted(_hash(keys.unsqueeze(1) + places), 11)
        return (bits + 1).double().mul_(2.0**-53)


def _mixed(seed: int, epoch: int) -> int:
    """A hash, from 0 to 2⁶³ - 1, so that neighbouring seeds and epochs have nothing in common."""
    # words of a fixed number: (seed 5 + 3·2³², epoch 0) must differ from (seed 5, epoch 3)
    words = [part for number in (seed, epoch) for part in divmod(number, 2**32)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1


def _signed(bits: int) -> int:
    """The lowest 64 bits as torch's int64 has them: its sums and products wrap around."""
    return (bits + 2**63) % 2**64 - 2**63


def _shifted(x: Tensor, places: int) -> Tensor:
    """``x`` shifted to the right, filled up with zeros and not with copies of its sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)


_AT_ONCE = 1 << 18  # numbers from N(0, 1): what is made of them in float64 stays in the cache
_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _hash(x: Tensor) -> Tensor:
    """SplitMix64's finalizer: every bit of ``x`` (int64) changes half of the result's."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)
