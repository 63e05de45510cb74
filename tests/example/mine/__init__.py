"""Parts of one's own: an energy, an edge, a solver, …: docs/own-parts.md shows them.

Each is one class here and one YAML file in ``conf/``. From the folder above::

    python scripts/train.py --config-dir conf model=leaky network=low_rank dynamics=momentum
"""

from mine.callback import Drift
from mine.dataset import Bars
from mine.edge import LowRank
from mine.energy import Leaky
from mine.estimator import ContrastiveHebbian
from mine.solver import Momentum

__all__ = ["Bars", "ContrastiveHebbian", "Drift", "Leaky", "LowRank", "Momentum"]
