"""Functions continued to complex numbers, where torch has none of them, or a slow one.

Each is analytic around the real axis, on which it is torch's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid(u: Tensor) -> Tensor:
    """1 / (1 + e⁻ᵘ); its poles lie at the imaginary parts ± π. Faster than torch's own."""
    if not u.is_complex():
        return torch.sigmoid(u)
    size = torch.exp(-u.real).clamp_max_(1e15)  # its square is finite in float32
    re, im = size * torch.cos(u.imag) + 1.0, size * torch.sin(u.imag)
    norm = re.square().add_(im.square())
    return torch.complex(re.div_(norm), im.div_(norm))


def tanh(u: Tensor) -> Tensor:
    """tanh u; its poles lie at the imaginary parts ± π/2."""
    return 2.0 * sigmoid(2.0 * u) - 1.0 if u.is_complex() else torch.tanh(u)


def softmax(x: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    """eˣ / Σ eˣ; its poles lie where the sum is zero, at imaginary parts beyond π/2."""
    if not x.is_complex():
        return torch.softmax(x, dim, out=out)
    powers = torch.exp(x - x.real.amax(dim, keepdim=True))
    return torch.div(powers, powers.sum(dim, keepdim=True), out=out)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """log softmax(x), its imaginary part up to 2π."""
    if not x.is_complex():
        return F.log_softmax(x, dim)
    shifted = x - x.real.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def softplus(u: Tensor) -> Tensor:
    """log(1 + eᵘ); its cuts begin at the imaginary parts ± π."""
    if not u.is_complex():
        return F.softplus(u)
    above = u.real > 0.0
    return torch.where(above, u, 0.0) + torch.log1p(torch.exp(torch.where(above, -u, u)))


def logit(r: Tensor) -> Tensor:
    """log(r / (1 − r)) of complex r; cut along the real axis outside of 0 … 1."""
    return torch.log(r) - torch.log1p(-r)


def x_log_x(x: Tensor) -> Tensor:
    """x log x, which is 0 at 0 for real x; cut along the negative real axis."""
    return x * torch.log(x) if x.is_complex() else torch.xlogy(x, x)
