"""Loops over a block of units: rates, and thin products.

Each is written so that LLVM makes vector instructions of it: no branch inside a loop, no integer
wider than the floats beside it, and in the products two samples and `ROWS` rows at a time, which
is what the registers hold. None of the relaxed rules of arithmetic allowed here assumes that
numbers are finite, so that a NaN stays one.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit

BLOCK = 1024
"""Units in a block: fewer cost more in starting loops than the second cache costs."""

ROWS = 5
"""Rows of the weights in one pass of a product; weights are padded to a multiple of it."""

SIGMOID, TANH, IDENTITY = 0, 1, 2
"""The activations that `rates` knows."""

F = np.float32
COMPILED: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "nogil": True,
    "error_model": "numpy",
    "cache": bool(getattr(numba.config, "CACHE_DIR", "")),  # where `load` found a folder for it
}

# tanh(x) = x P(x²)/Q(x²) for |x| ≤ 8.5, and ±1 in this precision beyond: of all such functions of
# these degrees the one whose largest relative error, 1.2e-8, is the least (Lawson's iteration). All
# coefficients are positive, so that no term takes away what another had exactly.
_P = (F(1.42693208e-8), F(2.12511113e-5), F(3.53403087e-3), F(1.34132504e-1), F(1.0))
_Q = (F(8.14516170e-7), F(3.34887154e-4), F(2.60227676e-2), F(4.67465729e-1), F(1.0))
_FURTHEST, _HALF = F(8.5), F(0.5)

# sigmoid(u) = ½ + ½ tanh(u/2): the same function with the powers of two inside its coefficients,
# where they are exact. Two operations less, and the same bits.
_POWERS = (4, 3, 2, 1, 0)  # of x²
_SIGMOID_P = tuple(F(c / 4 ** (k + 1)) for c, k in zip(_P, _POWERS, strict=True))
_SIGMOID_Q = tuple(F(c / 4**k) for c, k in zip(_Q, _POWERS, strict=True))
_SIGMOID_FURTHEST = 2 * _FURTHEST


@njit(inline="always", **COMPILED)
def quotient(x, furthest, P, Q):
    """x P(x²)/Q(x²) of a float no further from 0 than ``furthest``; NaN stays NaN."""
    x = -furthest if x < -furthest else x
    x = furthest if x > furthest else x
    y = x * x
    p = (((P[0] * y + P[1]) * y + P[2]) * y + P[3]) * y + P[4]
    q = (((Q[0] * y + Q[1]) * y + Q[2]) * y + Q[3]) * y + Q[4]
    return x * p / q


@njit(inline="always", **COMPILED)
def tanh(x):
    """The hyperbolic tangent of a float."""
    return quotient(x, _FURTHEST, _P, _Q)


@njit(inline="always", **COMPILED)
def sigmoid(u):
    """The logistic function of a float."""
    return _HALF + quotient(u, _SIGMOID_FURTHEST, _SIGMOID_P, _SIGMOID_Q)


@njit(**COMPILED)
def rates(kind, u, r, n):
    """φ(u) into ``r``, of the first ``n`` units."""
    if kind == SIGMOID:
        for j in range(n):
            r[j] = sigmoid(u[j])
    elif kind == TANH:
        for j in range(n):
            r[j] = tanh(u[j])
    else:
        for j in range(n):
            r[j] = u[j]


@njit(**COMPILED)
def softmax(u, out, n):
    """softmax(u) of few units into ``out``."""
    top = u[0]
    for k in range(n):
        top = u[k] if u[k] > top else top
    total = F(0.0)
    for k in range(n):
        out[k] = np.exp(u[k] - top)
        total += out[k]
    for k in range(n):
        out[k] /= total


@njit(**COMPILED)
def product(W, j, r0, r1, p0, p1, n):
    """p += W[:, j : j + n] r, for two samples."""
    for k in range(0, len(W), ROWS):
        a, b, c = W[k, j : j + n], W[k + 1, j : j + n], W[k + 2, j : j + n]
        d, e = W[k + 3, j : j + n], W[k + 4, j : j + n]
        a0 = b0 = c0 = d0 = e0 = a1 = b1 = c1 = d1 = e1 = F(0.0)
        for i in range(n):
            x, y = r0[i], r1[i]
            a0 += a[i] * x
            b0 += b[i] * x
            c0 += c[i] * x
            d0 += d[i] * x
            e0 += e[i] * x
            a1 += a[i] * y
            b1 += b[i] * y
            c1 += c[i] * y
            d1 += d[i] * y
            e1 += e[i] * y
        for p, sums in ((p0, (a0, b0, c0, d0, e0)), (p1, (a1, b1, c1, d1, e1))):
            for i in range(ROWS):
                p[k + i] += sums[i]


@njit(**COMPILED)
def transpose(W, j, s0, s1, out0, out1, n):
    """out = W[:, j : j + n]ᵀ s, for two samples."""
    for k in range(0, len(W), ROWS):
        a, b, c = W[k, j : j + n], W[k + 1, j : j + n], W[k + 2, j : j + n]
        d, e = W[k + 3, j : j + n], W[k + 4, j : j + n]
        a0, b0, c0, d0, e0 = s0[k], s0[k + 1], s0[k + 2], s0[k + 3], s0[k + 4]
        a1, b1, c1, d1, e1 = s1[k], s1[k + 1], s1[k + 2], s1[k + 3], s1[k + 4]
        if k == 0:
            for i in range(n):
                out0[i] = a[i] * a0 + b[i] * b0 + c[i] * c0 + d[i] * d0 + e[i] * e0
                out1[i] = a[i] * a1 + b[i] * b1 + c[i] * c1 + d[i] * d1 + e[i] * e1
        else:
            for i in range(n):
                out0[i] += a[i] * a0 + b[i] * b0 + c[i] * c0 + d[i] * d0 + e[i] * e0
                out1[i] += a[i] * a1 + b[i] * b1 + c[i] * c1 + d[i] * d1 + e[i] * e1
