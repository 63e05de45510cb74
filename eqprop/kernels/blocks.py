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

# exp(x) = 2^m exp(f) with f in ±½ log 2, log 2 in two parts so that f is exact, and the minimax
# polynomial of degree 6 that Cephes has for exp(f) (Moshier, expf.c).
_LOG2_E, _LOG_2_HIGH, _LOG_2_LOW = F(1.44269504), F(0.693359375), F(-2.12194440e-4)
_P5, _P4, _P3 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
_P2, _P1, _P0 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
_LIMIT = F(87.0)
_ONE, _TWO, _HALF = F(1.0), F(2.0), F(0.5)
_BIAS, _MANTISSA = F(127.0), F(8388608.0)  # of a float's bits


@njit(**COMPILED)
def split_exp(x, scale, mantissa, power, n):
    """exp(scale x) = mantissa · p, p with the bits ``power`` (int32); ±87 at the most."""
    for j in range(n):
        z = x[j] * scale
        z = -_LIMIT if z < -_LIMIT else z
        z = _LIMIT if z > _LIMIT else z
        m = np.floor(z * _LOG2_E + _HALF)
        f = (z - m * _LOG_2_HIGH) - m * _LOG_2_LOW
        p = ((((_P5 * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0
        mantissa[j] = p * f * f + f + _ONE
        power[j] = np.int32((m + _BIAS) * _MANTISSA)


@njit(**COMPILED)
def rates(kind, u, r, power, n):
    """φ(u) into ``r``, of the first ``n`` units; ``power`` (int32) is scratch."""
    p = power.view(np.float32)
    if kind == SIGMOID:
        split_exp(u, -_ONE, r, power, n)
        for j in range(n):
            r[j] = _ONE / (_ONE + r[j] * p[j])
    elif kind == TANH:
        split_exp(u, -_TWO, r, power, n)
        for j in range(n):
            r[j] = _TWO / (_ONE + r[j] * p[j]) - _ONE
    else:
        for j in range(n):
            r[j] = u[j]


@njit(**COMPILED)
def softmax(u, out, power, n):
    """softmax(u) into ``out``; ``power`` (int32) is scratch."""
    top = u[0]
    for k in range(n):
        top = u[k] if u[k] > top else top
    for k in range(n):
        out[k] = u[k] - top
    split_exp(out, _ONE, out, power, n)
    p = power.view(np.float32)
    total = F(0.0)
    for k in range(n):
        out[k] *= p[k]
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
