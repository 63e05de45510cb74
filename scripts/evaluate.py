"""Evaluate a run's checkpoint again: the same as the command ``eqprop-evaluate``."""

from eqprop.cli.evaluate import run

if __name__ == "__main__":
    run()
