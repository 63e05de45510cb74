"""Named data sets as tensors on the device, and shuffled batches of them.

A data set of one's own is a subclass of ``Dataset`` with a ``read`` method.
"""

from __future__ import annotations

from eqprop.data.augment import Augmentation, CropFlip
from eqprop.data.base import Dataset
from eqprop.data.digits import Digits
from eqprop.data.draws import Draws, epoch_order
from eqprop.data.mnist import KMNIST, MNIST, FashionMNIST
from eqprop.data.mnist5k import MNIST5k
from eqprop.data.published import CIFAR10, CIFAR100, SVHN
from eqprop.data.raw import Raw
from eqprop.data.splits import Data, Split, one_hot

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "SVHN",
    "Augmentation",
    "CropFlip",
    "Data",
    "Dataset",
    "Digits",
    "Draws",
    "FashionMNIST",
    "MNIST5k",
    "Raw",
    "Split",
    "epoch_order",
    "one_hot",
]
