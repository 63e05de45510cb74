"""Write one page on a run or a sweep: the same as the command ``eqprop-report``."""

from eqprop.cli.report import run

if __name__ == "__main__":
    run()
