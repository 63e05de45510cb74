"""Layer by layer, each unit moved by its gradient over its own curvature."""

from __future__ import annotations

from functools import partial

import torch

from eqprop.connection import Op
from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Init, Solver, require
from eqprop.relaxation.loops import Move
from eqprop.relaxation.replay import ReplayedSolver


class Newton(ReplayedSolver):
    """``u ← u − clip(∂F/∂u / max(|∂²F/∂u²|, c), ±clip)``, output layer first; a step is one sweep.

    Trained networks are stiff: a unit's own curvature grows with its drive, and explicit steps
    then oscillate. Dividing by it, with its absolute value where it is negative and never by less
    than the curvature c that the unit has by itself, keeps every step downhill.

    Args:
        n_relax: sweeps of the free phase.
        clip: the furthest a unit moves in one sweep, in units of u.
        dt: the share of each move that is taken, in units of tau; 1 takes it whole.
        n_nudged: see :class:`Solver`, as are the rest.
    """

    default_init: Init = "zeros"

    def __init__(
        self,
        n_relax: int = 6,
        n_nudged: int | None = 4,
        tol: float = 0.0,
        init: Init = "auto",
        clip: float = 1.0,
        dt: float = 1.0,
        tau: float = 1.0,
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init, dt, tau)
        self.clip = clip

    def for_model(self, model: EnergyBasedModel) -> Solver:
        require(model, "layer_ops", "newton")
        return super().for_model(model)

    def move(self) -> Move | None:
        return Move(newton=True, step=self.dt / self.tau, clip=self.clip)

    def plan(self, model: EnergyBasedModel) -> list[Op]:
        model.begin_sweeps()
        work, moves = model.free_layers("gradient"), model.buffers_of("curvature")
        kept, ops = model.buffers_of("old"), list[Op]()
        for i in range(model.n_layers - 1, -1, -1):
            grad, move = work[i], moves[i]
            if grad is None:
                continue
            layer, phi = model.u[i], model.phi[i]
            ops += model.layer_ops(i, grad, move)
            ops += [move.abs_, partial(move.clamp_min_, model.own_curvature)]
            ops += [partial(torch.div, grad, move, out=move)]
            ops += [partial(move.clamp_, -self.clip, self.clip)]
            move_by = partial(layer.sub_, move, alpha=self.dt / self.tau)
            if phi.pieces:
                ops += [partial(kept[i].copy_, layer), move_by]
                ops += [partial(phi.within_piece_, layer, kept[i])]
            else:
                ops += [move_by]
            ops += model.moved_ops(i)
        return ops
