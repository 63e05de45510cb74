"""The seam for estimators: which phases run, and how they give a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from eqprop.network import Cost, Network, Nudge, State
from eqprop.network.cost import fitting
from eqprop.network.edge import by_parameters
from eqprop.relaxation import Relaxation, Solver

Update = Callable[[list[Tensor]], None]


@dataclass(frozen=True)
class Estimate:
    """One gradient estimate of a batch.

    Attributes:
        gradients: one tensor a parameter, in ``parameters()`` order, in buffers that the next
            estimate of the same estimator writes into.
        output: the last layer (batch, n_out) of the free phase: what the network predicts.
        phases: the relaxations, by name: free, nudged, …
        metrics: what was measured, by the names of metrics.jsonl; empty unless asked for.
        applied: whether the weights have been moved already, through ``update``.
    """

    gradients: list[Tensor]
    output: Tensor
    phases: dict[str, Relaxation] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    applied: bool = False


class Estimator(ABC):
    """Turns a batch into one gradient a parameter. The caller has clamped the input layer.

    Attributes:
        order: as the nudging strength (the key ``beta``, or ``radius``) goes to 0, the bias of the
            gradient goes with this power of it, if all functions are smooth and all relaxations
            converge; None where there is no strength, or the power is not known.
        follows_cost: whether its gradient is made by a nudge that the cost pulls with: with a cost
            that pulls at nothing it is 0, or drift of phases that are not at rest.
        relaxes: whether it reads the gradient off states that the solver has relaxed.
    """

    order: int | None = None
    follows_cost: ClassVar = False
    relaxes: ClassVar = True

    @abstractmethod
    def estimate(
        self,
        network: Network,
        state: State,
        solver: Solver,
        cost: Cost,
        target: Tensor,
        *,
        update: Update | None = None,
        measure: bool = False,
    ) -> Estimate:
        """The gradient for a one-hot ``target`` (batch, n_out), with measurements if wanted.

        The next estimate writes into the same gradients: clone those that are to be kept.
        ``update`` moves the weights by a gradient: for estimators that learn within a phase.
        """

    def check(self, network: Network) -> None:
        """Refuse a network that it has no gradient for.

        Raises:
            ValueError: one line, saying why.
        """
        return

    def check_with(self, solver: Solver, cost: Cost) -> None:
        """Refuse a solver or a cost that it has no gradient with.

        Raises:
            ValueError: one line, saying why.
        """
        return

    def predict(self, network: Network, state: State, solver: Solver) -> None:
        """Put ``state``, whose input is clamped, where the network's output is read off."""
        solver.free_phase(network, state)

    def nudges(self, cost: Cost, target: Tensor) -> Iterator[tuple[str, Nudge]]:
        """The nudged phases that start at the free equilibrium, by name: diagnostics draw them."""
        return iter(())

    def remedies(self) -> dict[str, float]:
        """The settings that a training which diverges may lower, by their keys."""
        return {}

    def capture_obstacle(self) -> str | None:
        """Why a step with this estimator cannot be captured as a CUDA graph; None if it can."""
        return f"{type(self).__name__} does not say that it can be captured"


def target_for(state: State, target: Tensor) -> Tensor:
    """The target in the precision of ``state``, whose input is clamped.

    Raises:
        ValueError: if it is not, or if the target's shape is not the last layer's.
    """
    if not state.clamped[0]:
        raise ValueError("the input is not clamped: call state.clamp(0, x) before an estimate")
    return fitting(target, state.u[-1])


def refuse_clamped(state: State, estimator: Estimator) -> None:
    """Raise ValueError if a layer above the input is held: for estimators that would move it."""
    held = [layer for layer, clamped in enumerate(state.clamped) if clamped and layer]
    if held:
        raise ValueError(
            f"layer {held[0]} is clamped, and {type(estimator).__name__} holds the input alone; "
            "release it, or choose EquilibriumPropagation"
        )


def refuse_low_nudge(estimator: Estimator, lowest: float, solver: Solver, cost: Cost) -> None:
    """Raise ValueError if ``lowest``, the least of the nudges, is too low for the solver."""
    if lowest <= (least := solver.least_nudge(cost)):
        keys = ", ".join(f"{key}={value:g}" for key, value in estimator.remedies().items())
        raise ValueError(
            f"{keys or type(estimator).__name__}: its nudge of {lowest:g} is too low: this "
            f"dynamics.rule divides by 1 + beta and needs nudges > {least:g}; choose a smaller "
            "strength, or dynamics=newton"
        )


def nudged(cost: Cost, target: Tensor, beta: float | Tensor) -> Nudge:
    """The nudge β C with β as a tensor beside the target."""
    if isinstance(beta, Tensor):
        return Nudge(cost, target, beta)
    return Nudge(cost, target, target.new_full((), beta))  # a fill, which can be captured


def parameter_gradient(
    of: Sequence[Tensor],
    parameters: Sequence[Tensor],
    along: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
) -> list[Tensor]:
    """Σ along · ∂of/∂θ by autograd, in the parameters' layout in memory; along scalars if None.

    Zeros for parameters that play no part in it, or that require no gradient. Fused optimizers go
    through a gradient in the order of its parameter, whatever its strides.
    """
    gradients = [torch.zeros_like(p) for p in parameters]
    for i, gradient in enumerate(by_parameters(of, parameters, along, retain_graph)):
        if gradient is not None:
            same = gradient.stride() == gradients[i].stride()
            gradients[i] = gradient if same else gradients[i].copy_(gradient)
    return gradients


def measured_energy(
    network: Network, state: State, phase: str, cost: Cost, target: Tensor
) -> dict[str, float]:
    """``energy/<phase>``: batch mean of E; ``cost/<phase>``: of C, not multiplied by β."""
    with torch.no_grad():
        return {
            f"energy/{phase}": float(network.energies(state).mean()),
            f"cost/{phase}": float(cost.cost(state.u[-1], target).mean()),
        }


@torch.no_grad()
def measured_layers(network: Network, state: State) -> dict[str, float]:
    """``energy/layer/<l>``: batch mean of its part of E; ``saturation/<l>``: share of its units.

    Of an energy that is given as a whole, no layer's part is known.
    """
    metrics = {}
    for layer in range(1, network.n_layers):
        if not network.by_autograd:
            site, phi = state.sites[layer], network.phi[layer]
            rate, drive = network.rate(state, layer), network.drive(state, layer)
            energies = network.terms[layer].value(site.u, rate, drive, phi).flatten(1).sum(1)
            metrics[f"energy/layer/{layer}"] = network.local.scale * float(energies.mean())
        metrics[f"saturation/{layer}"] = float(saturated(network, state, layer).float().mean())
    return metrics


@torch.no_grad()
def saturated(network: Network, state: State, layer: int) -> Tensor:
    """Which units (batch, *shape) hardly pass a signal on.

    There, φ' is less than a hundredth of what it is at most between −4 and 4, or the rate lies at
    an end of the range of φ.
    """
    phi, rate = network.phi[layer], network.rate(state, layer)
    at = network.drive(state, layer) if network.local.acts_on_drive else state.u[layer]
    wide = torch.linspace(-4.0, 4.0, 81, dtype=at.dtype, device=at.device)
    slope, usual = (phi.slope_(u, phi(u), torch.empty_like(u)).abs() for u in (at, wide))
    low, high = phi.range
    return (slope < 0.01 * usual.max()) | (rate == low) | (rate == high)


def measured_relaxation(phase: str, relaxation: Relaxation) -> dict[str, float]:
    """``relaxation/<phase>_steps``, ``_residual`` and, layer by layer, ``_residual/<l>``."""
    metrics: dict[str, float] = {f"relaxation/{phase}_steps": relaxation.steps}
    if relaxation.residual is not None:
        metrics[f"relaxation/{phase}_residual"] = relaxation.residual
    for layer, part in relaxation.layer_residuals.items():
        if layer > 0:
            metrics[f"relaxation/{phase}_residual/{layer}"] = part
    return metrics
