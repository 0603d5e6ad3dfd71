"""`python -m scalr`, as launchers such as torchrun start it."""

import sys

from scalr.cli import main

if __name__ == "__main__":
    sys.exit(main())
