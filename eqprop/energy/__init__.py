"""Energies E(u; W, b): state, clamping, gradients. A new one is a class with ``energy(u)``."""

from eqprop.energy.base import EnergyBasedModel
from eqprop.energy.gaussian import ConditionalGaussian
from eqprop.energy.hopfield import RestrictedHopfield
from eqprop.energy.layered import LayeredEnergy

__all__ = ["ConditionalGaussian", "EnergyBasedModel", "LayeredEnergy", "RestrictedHopfield"]
