"""Whole phases of one hidden layer as compiled loops: when they apply, and their arrays.

``blocks`` and ``chain`` are what numba compiles; this is the pattern that they match. Nothing in a
network or a state knows of them.
"""

from eqprop.relaxation.compiled.loops import Move, applies, feed_forward, fits, load, pays, relax

__all__ = ["Move", "applies", "feed_forward", "fits", "load", "pays", "relax"]
