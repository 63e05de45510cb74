"""Layer by layer, each unit moved by its gradient over its own curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Init, Solver, require


class Newton(Solver):
    """``u ← u − clip(∂F/∂u / max(|∂²F/∂u²|, c), ±clip)``, output layer first; a step is one sweep.

    Trained networks are stiff: a unit's own curvature grows with its drive, and explicit steps
    then oscillate. Dividing by it, with its absolute value where it is negative and never by less
    than the curvature c that the unit has by itself, keeps every step downhill.

    Args:
        n_relax: sweeps of the free phase.
        clip: the furthest a unit moves in one sweep, in units of u.
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
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init)
        self.clip = clip

    def check(self, model: EnergyBasedModel) -> None:
        super().check(model)
        require(model, "layer_derivatives_", "newton")

    def begin(self, model: EnergyBasedModel) -> None:
        model.begin_sweeps()

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        curvatures = model.buffers_of("curvature")
        for i in range(model.n_layers - 1, -1, -1):
            grad, curvature = work[i], curvatures[i]
            if grad is None:
                continue
            model.layer_derivatives_(i, grad, curvature)
            curvature.abs_().clamp_min_(model.own_curvature)
            move = torch.div(grad, curvature, out=curvature).clamp_(-self.clip, self.clip)
            layer, phi = model.u[i], model.phi[i]
            old = model.buffers_of("old")[i].copy_(layer) if phi.pieces else layer
            layer.sub_(move)
            phi.within_piece_(layer, old)
            model.layer_moved(i)
