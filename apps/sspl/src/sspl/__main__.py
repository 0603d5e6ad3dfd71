"""`python -m sspl`, as launchers such as torchrun start it."""

import sys

from sspl.cli import main

if __name__ == "__main__":
    sys.exit(main())
