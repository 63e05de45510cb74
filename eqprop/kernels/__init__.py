"""Compiled loops (numba) for relaxations that are short of arithmetic and long on passes.

Nothing here knows torch; `eqprop.relaxation.fused` says when they are used.
"""
