"""Train one network, or many with ``-m``: the same as the command ``eqprop-train``."""

from eqprop.cli.main import run

if __name__ == "__main__":
    run()
