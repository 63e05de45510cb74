"""What a device does that the mathematics does not: noise, few bits, phases that do not match.

A noise disturbs a training step while its gradient is estimated, and is gone when the weights are
moved: the optimizer sees the weights that learn. What is random is drawn from the state's
generator, anew for each batch. An evaluation is free of it, as it is the network that is measured;
what is a property of the device, its bits, holds there too.
"""

from eqprop.training.noise.noise import Noise
from eqprop.training.noise.states import Quantised, StateNoise, quantise_
from eqprop.training.noise.weights import GradientNoise, Mismatch, WeightNoise

__all__ = [
    "GradientNoise",
    "Mismatch",
    "Noise",
    "Quantised",
    "StateNoise",
    "WeightNoise",
    "quantise_",
]
