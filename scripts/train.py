"""Train one network, or many with ``-m``: the same as the command ``eqprop-train``."""

import os
import sys

# (shells complete the command where its file names @hydra.main)
if __name__ == "__main__":
    if sys.version_info[:2] not in [(3, minor) for minor in range(10, 14)]:
        found = "%d.%d" % sys.version_info[:2]  # noqa: UP031 (older ones get here, too)
        sys.stderr.write("error: eqprop needs Python 3.10 to 3.13; this is " + found + "\n")
        sys.exit(2)
    own = os.path.dirname(os.path.abspath(__file__))
    last = {own, os.getcwd()} - {os.path.dirname(own)}  # no file in them stands for a library's
    sys.path.sort(key=lambda entry: os.path.abspath(entry) in last)
    from eqprop.cli.main import run

    run()
