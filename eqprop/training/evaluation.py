"""What a network makes of data: the free phase over every sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eqprop.data import Split
from eqprop.network import State
from eqprop.training.session import Session


@torch.no_grad()
def evaluate(
    session: Session, split: Split, look: Callable[[Tensor], None] | None = None
) -> tuple[float, float]:
    """Accuracy and mean energy of the free phase over every sample of ``split``.

    ``look`` is given each batch's outputs (batch, n_out), which the next batch overwrites. States
    and noise are of its own, so that evaluating changes no bit of the training.
    """
    generator = session.evaluation_generator()
    correct = torch.zeros((), dtype=torch.int64, device=split.x.device)
    energy = torch.zeros((), dtype=split.x.dtype, device=split.x.device)
    state: State | None = None
    for x, y in split.batches(session.eval_batch_size):
        if state is None or state.batch_size != len(x):
            state = session.network.new_state(len(x), generator)
        state.clamp(0, x)
        with state.held():
            session.solver.free_phase(session.network, state)
            energy += session.network.energies(state).sum()
        correct += (state.u[-1].argmax(1) == y).sum()
        if look is not None:
            look(state.u[-1])
    return float(correct) / len(split), float(energy) / len(split)
