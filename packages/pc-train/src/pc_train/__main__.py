"""`python -m pc_train`, as launchers such as torchrun start it."""

import sys

from pc_train.cli import main

if __name__ == "__main__":
    sys.exit(main())
