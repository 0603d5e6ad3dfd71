"""`python -m crossmodal`, as launchers such as torchrun start it."""

import sys

from crossmodal.cli import main

if __name__ == "__main__":
    sys.exit(main())
