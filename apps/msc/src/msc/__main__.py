"""`python -m msc`, as launchers such as torchrun start it."""

import sys

from msc.cli import main

if __name__ == "__main__":
    sys.exit(main())
