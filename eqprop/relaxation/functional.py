"""A sweep as a differentiable function of the layers it starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqprop.network import Network, Nudge, State
from eqprop.network.edge import alias
from eqprop.network.local import Quadratic, Site, nudged_at


def swept(
    network: Network,
    u: Sequence[Tensor],
    nudge: Nudge | None,
    layers: Sequence[int],
    rule: str,
    share: float,
    clip: float,
    place: str = "inside",
) -> list[Tensor]:
    """The layers after a sweep over ``layers`` by ``rule``, each taking ``share`` of its move.

    The curvature that a newton step divides by counts as constant: at the equilibrium, where the
    gradient is zero, that leaves the derivative exact.
    """
    state = network.new_state(len(u[0]))
    state.clamp(0, u[0].detach())
    state.u[:] = [layer.detach() for layer in u]
    found = list(u)
    for layer in layers:
        own = nudge if layer == network.n_layers - 1 else None
        old = found[layer]
        if rule == "projected":
            found[layer] = torch.lerp(old, _projected(network, found, layer, own, place), share)
        elif rule == "exact":
            with torch.no_grad():
                cost = Quadratic() if own is None else own.quadratic()
                site = network.site(state, layer)
                target = network.terms[layer].minimise(site, cost, torch.empty_like(old))
            move = _newton_move(network, state, own, layer, found, target)
            found[layer] = torch.lerp(old, target - move + move.detach(), share)
        else:
            move = _newton_move(network, state, own, layer, found, old)
            moved = old - share * move.clamp(-clip, clip)
            found[layer] = _within(moved, old.detach(), network, layer)
        state.u[layer] = found[layer].detach()
    return found


def _newton_move(
    network: Network, state: State, nudge: Nudge | None, layer: int, u: list[Tensor], at: Tensor
) -> Tensor:
    """∂F/∂u over its curvature with ``layer`` at ``at``, under the d and p of the layers ``u``.

    ``state`` has the numbers of ``u``.
    """
    with torch.no_grad():
        site, there = network.site(state, layer), at.detach()
        site = site._replace(u=there, r=network.rate_phi[layer](there))
        closed, curvature = network.newton_terms(state, layer, site, nudge)
        least, scale = network.terms[layer].own_curvature, network.local.scale
        divisor, closed = curvature.abs().clamp_min(least).mul_(scale), closed * scale
    with torch.enable_grad():
        here = alias(at)
        gradient = -network.field_parts(u).force(layer, here)
        if nudge is not None:
            (pull,) = torch.autograd.grad(nudge.energy(here).sum(), here, create_graph=True)
            gradient = gradient + pull
    same = (gradient.detach() - closed).abs() <= math.sqrt(torch.finfo(closed.dtype).eps)
    return torch.where(same, gradient, closed) / divisor  # a kink or a bound holds the others


def _projected(
    network: Network, u: list[Tensor], layer: int, nudge: Nudge | None, place: str
) -> Tensor:
    """What the rule projected moves ``layer`` to."""
    parts, here = network.field_parts(u), alias(u[layer])
    with torch.enable_grad():
        pull: Tensor | Quadratic | None = nudge and nudge.if_quadratic()
        drive, pressure = parts.drive(layer), parts.pressure(layer)
        site = Site(network.phi[layer], here, parts.rates[layer], drive, pressure)
        local = network.terms[layer]
        if nudge is not None and (pull is None or place == "outside"):
            at = alias(nudged_at(local, site))
            (pull,) = torch.autograd.grad(nudge.energy(at).sum(), at, create_graph=True)
        if isinstance(pull, Tensor) and place == "outside":
            return local.project(site, None, None) - pull / local.scale
        return local.project(site, pull, None)


def _within(new: Tensor, old: Tensor, network: Network, layer: int) -> Tensor:
    """As a newton step ends: no further than a kink that may hold the unit, or than its range."""
    held = new.detach().clone()
    if network.rate_phi[layer].pieces:
        network.rate_phi[layer].within_piece_(held, old)
    held.clamp_(*network.domains[layer])
    return torch.where(held == new.detach(), new, held)
