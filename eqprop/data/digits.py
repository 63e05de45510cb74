"""scikit-learn's small digits, for runs of seconds."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eqprop.data.base import Dataset
from eqprop.data.raw import Array, Raw

TEST_FRACTION = 0.2
_DEPTH = 16  # the largest pixel value


class Digits(Dataset):
    """1 797 handwritten digits of 8 × 8, in 0 … 1; of each class the last fifth is the test set."""

    n_classes: ClassVar[int] = 10

    def read(self) -> Raw:
        """The digits that come with scikit-learn."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images / _DEPTH).astype(np.float32)
        labels: Array = digits.target
        test = np.zeros(len(labels), dtype=bool)
        for label in range(self.n_classes):
            members = np.flatnonzero(labels == label)
            test[members[len(members) - int(TEST_FRACTION * len(members)) :]] = True
        return Raw(images[~test], labels[~test], images[test], labels[test])
