"""A whole phase of one hidden layer and a narrow output, sample by sample, in the first cache.

With the input clamped nothing couples the samples, so a pair of them runs through all its steps
before the next pair is touched: the state is read from memory once a phase instead of ten times a
step. Both energies and both solvers are one formula. With d the constant drive of the hidden
layer h, v = W φ(h) + b, s the signal that the output o sends back, and c the curvature that a unit
has by itself,

    Gaussian (c = 2): ∂E/∂h = c (h − d − φ'(h) ⊙ Wᵀs),    s = o − v,  ∂E/∂o = c (o − v)
    Hopfield (c = 1): ∂E/∂h = c (h − φ'(h) ⊙ (d + Wᵀs)),  s = φ(o),   ∂E/∂o = c (o − φ'(o) ⊙ v)

φ' and φ'' are polynomials of r = φ(u): φ' = p + q r − w r², φ'' = φ' (q − 2 w r).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from eqprop.relaxation.compiled.blocks import (
    BLOCK,
    COMPILED,
    F,
    product,
    rates,
    softmax,
    transpose,
)

NO_COST, SQUARED_ERROR, CROSS_ENTROPY = 0, 1, 2

_ZERO, _ONE, _TWO = F(0.0), F(1.0), F(2.0)


class Phi(NamedTuple):
    """An activation: which of `blocks.rates`, and p, q, w of its derivatives."""

    kind: int
    p: np.float32
    q: np.float32
    w: np.float32


class Rule(NamedTuple):
    """What a step does."""

    newton: bool
    """Each unit by its gradient over its curvature, the output first; else Euler, all at once."""
    step: np.float32
    """dt / τ."""
    clip: np.float32
    """The furthest that a Newton step moves a unit."""
    hopfield: bool
    curvature: np.float32
    """c above."""
    cost: int
    beta: np.float32


@njit(**COMPILED)
def relax(
    h, r, d, o, sent, sums, y, W, b, stiffness, hidden, output, rule, n_steps, known, first, end
):
    """Take ``n_steps`` from the state h (batch, J), o (batch, K) of some of the samples.

    ``first`` … ``end`` are an even number of them.

    Args:
        r: (batch, J), where φ(h) is left.
        sent: (batch, K), where W φ(h) is left.
        sums: (batch,), where Σ_j h is left: not finite if a unit is not.
        d: (batch, J), the drive of the hidden layer.
        y: (batch, K), the target; any where there is no cost.
        W: (K padded with zeros to a multiple of `blocks.ROWS`, J).
        b: (K,).
        stiffness: (J,), diag(WᵀW) for the Gaussian energy, zeros for Hopfield's.
        known: whether ``r`` and ``sent`` hold what they will be left with after no step already.
    """
    K, J, padded = o.shape[1], h.shape[1], len(W)
    back = np.empty((2, BLOCK), F)
    v, signal = np.zeros((2, padded), F), np.zeros((2, padded), F)
    scratch = np.empty((3, K), F)
    for i in range(first, end, 2):
        if known:
            for k in range(K):
                v[0, k], v[1, k] = sent[i, k], sent[i + 1, k]
        else:
            v[:] = _ZERO
            for j in range(0, J, BLOCK):
                n = min(BLOCK, J - j)
                r0, r1 = r[i, j : j + n], r[i + 1, j : j + n]
                rates(hidden.kind, h[i, j : j + n], r0, n)
                rates(hidden.kind, h[i + 1, j : j + n], r1, n)
                product(W, j, r0, r1, v[0], v[1], n)
        for _ in range(n_steps):
            move_output(o[i], v[0], b, y[i], signal[0], output, rule, scratch)
            move_output(o[i + 1], v[1], b, y[i + 1], signal[1], output, rule, scratch)
            v[:] = _ZERO
            for j in range(0, J, BLOCK):
                n = min(BLOCK, J - j)
                r0, r1, s = r[i, j : j + n], r[i + 1, j : j + n], stiffness[j : j + n]
                transpose(W, j, signal[0], signal[1], back[0], back[1], n)
                move_hidden(h[i, j : j + n], d[i, j : j + n], r0, back[0], s, hidden, rule, n)
                move_hidden(
                    h[i + 1, j : j + n], d[i + 1, j : j + n], r1, back[1], s, hidden, rule, n
                )
                rates(hidden.kind, h[i, j : j + n], r0, n)
                rates(hidden.kind, h[i + 1, j : j + n], r1, n)
                product(W, j, r0, r1, v[0], v[1], n)
        for k in range(K):
            sent[i, k], sent[i + 1, k] = v[0, k], v[1, k]
        sums[i], sums[i + 1] = total(h[i]), total(h[i + 1])


@njit(**COMPILED)
def total(h):
    """The sum of a sample's units."""
    found = _ZERO
    for j in range(len(h)):
        found += h[j]
    return found


@njit(**COMPILED)
def move_hidden(h, d, r, back, stiffness, phi, rule, n):
    """Move a block of hidden units; ``r`` = φ(h), ``back`` = Wᵀs."""
    c, step, clip = rule.curvature, rule.step, rule.clip
    inside = _ONE if rule.hopfield else _ZERO  # whether d is inside φ' ⊙ (…)
    outside, p, q, w = _ONE - inside, phi.p, phi.q, phi.w
    if rule.newton:
        for j in range(n):
            pull, first = back[j] + inside * d[j], p + q * r[j] - w * r[j] * r[j]
            second = first * (q - _TWO * w * r[j])
            grad = c * (h[j] - outside * d[j] - first * pull)
            curvature = abs(c * (_ONE + first * first * stiffness[j] - second * pull))
            curvature = c if curvature < c else curvature
            move = grad / curvature
            move = -clip if move < -clip else move
            move = clip if move > clip else move
            h[j] -= step * move
    else:
        step *= c
        for j in range(n):
            first = p + q * r[j] - w * r[j] * r[j]
            h[j] -= step * (h[j] - outside * d[j] - first * (back[j] + inside * d[j]))


@njit(**COMPILED)
def move_output(o, v, b, y, signal, phi, rule, scratch):
    """Move the output of a sample, and write what it then sends back (Euler: sent back before)."""
    K, c = len(o), rule.curvature
    nudge, bend, r = scratch[0], scratch[1], scratch[2]
    pull_of_cost(o, y, nudge, bend, rule)
    rates(phi.kind, o, r, K)
    for k in range(K):
        drive, old = v[k] + b[k], o[k]
        first = phi.p + phi.q * r[k] - phi.w * r[k] * r[k]
        second = first * (phi.q - _TWO * phi.w * r[k])
        grad = c * (old - first * drive) + nudge[k]
        if rule.newton:
            curvature = abs(c * (_ONE - second * drive) + bend[k])
            move = grad / max(curvature, c)
            move = -rule.clip if move < -rule.clip else move
            move = rule.clip if move > rule.clip else move
            o[k] = old - rule.step * move
            signal[k] = o[k] - drive
        else:
            o[k] = old - rule.step * grad
            signal[k] = old - drive
    if rule.hopfield:
        if rule.newton:
            rates(phi.kind, o, r, K)
        for k in range(K):
            signal[k] = r[k]


@njit(**COMPILED)
def pull_of_cost(o, y, nudge, bend, rule):
    """β ∂C/∂o and the diagonal of β ∂²C/∂o² of a sample."""
    K, beta = len(o), rule.beta
    if rule.cost == SQUARED_ERROR:
        for k in range(K):
            nudge[k], bend[k] = beta * (o[k] - y[k]), beta
    elif rule.cost == CROSS_ENTROPY:
        mass = y.sum()
        softmax(o, nudge, K)
        for k in range(K):
            p = nudge[k]
            nudge[k], bend[k] = beta * (mass * p - y[k]), beta * mass * (p - p * p)
    else:
        for k in range(K):
            nudge[k], bend[k] = _ZERO, _ZERO
