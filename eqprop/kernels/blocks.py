"""Loops over a block of units: rates, and thin products.

Each is written so that LLVM makes vector instructions of it: no branch inside a loop, no integer
wider than the floats beside it, and in the products two samples and `ROWS` rows at a time, which
is what the registers hold. None of the relaxed rules of arithmetic allowed here assumes that
numbers are finite, so that a NaN stays one.
"""

from __future__ import annotations

from typing import Any

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
    "cache": True,
}

# tanh(x) = x P(x²)/Q(x²) for |x| ≤ 8.5, and ±1 in this precision beyond: of all such functions of
# these degrees the one whose largest relative error, 1.2e-8, is the least (Lawson's iteration). All
# coefficients are positive, so that no term takes away what another had exactly.
_FURTHEST = F(8.5)
_P4, _P3, _P2, _P1 = F(1.42693208e-8), F(2.12511113e-5), F(3.53403087e-3), F(1.34132504e-1)
_Q4, _Q3, _Q2, _Q1 = F(8.14516170e-7), F(3.34887154e-4), F(2.60227676e-2), F(4.67465729e-1)
_ONE, _HALF = F(1.0), F(0.5)


@njit(inline="always", **COMPILED)
def tanh(x):
    """The hyperbolic tangent of a float; NaN stays NaN."""
    x = -_FURTHEST if x < -_FURTHEST else x
    x = _FURTHEST if x > _FURTHEST else x
    y = x * x
    p = (((_P4 * y + _P3) * y + _P2) * y + _P1) * y + _ONE
    q = (((_Q4 * y + _Q3) * y + _Q2) * y + _Q1) * y + _ONE
    return x * p / q


# sigmoid(u) = ½ + ½ tanh(u/2): the same function with the powers of two inside its coefficients,
# where they are exact. Two operations less, and the same bits.
_WIDE = F(2) * _FURTHEST
_SP4, _SP3, _SP2, _SP1, _SP0 = (
    F(c / 4**k) for c, k in zip((_P4, _P3, _P2, _P1, 1), (5, 4, 3, 2, 1), strict=True)
)
_SQ4, _SQ3, _SQ2, _SQ1 = (
    F(c / 4**k) for c, k in zip((_Q4, _Q3, _Q2, _Q1), (4, 3, 2, 1), strict=True)
)


@njit(inline="always", **COMPILED)
def sigmoid(u):
    """The logistic function of a float; NaN stays NaN."""
    u = -_WIDE if u < -_WIDE else u
    u = _WIDE if u > _WIDE else u
    y = u * u
    p = (((_SP4 * y + _SP3) * y + _SP2) * y + _SP1) * y + _SP0
    q = (((_SQ4 * y + _SQ3) * y + _SQ2) * y + _SQ1) * y + _ONE
    return _HALF + u * p / q


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
