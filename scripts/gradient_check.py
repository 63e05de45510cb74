"""Compare gradients with a reference: the same as the command ``eqprop-gradient-check``."""

from eqprop.cli.gradient_check import run

if __name__ == "__main__":
    run()
