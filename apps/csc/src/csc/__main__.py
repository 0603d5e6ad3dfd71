"""`python -m csc`, as launchers such as torchrun start it."""

import sys

from csc.cli import main

if __name__ == "__main__":
    sys.exit(main())
