"""Show what differs between runs: the same as the command ``eqprop-compare``."""

from eqprop.cli.compare import run

if __name__ == "__main__":
    run()
