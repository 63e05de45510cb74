"""Named data sets as tensors on the device, and shuffled batches of them.

A data set of one's own is a subclass of ``Dataset`` with a ``read`` method.
"""

from __future__ import annotations

from eqprop.data.base import Dataset, Raw
from eqprop.data.digits import Digits
from eqprop.data.mnist import KMNIST, MNIST, FashionMNIST
from eqprop.data.mnist5k import MNIST5k
from eqprop.data.splits import Data, Split, epoch_order, one_hot

__all__ = [
    "KMNIST",
    "MNIST",
    "Data",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "MNIST5k",
    "Raw",
    "Split",
    "epoch_order",
    "one_hot",
]
