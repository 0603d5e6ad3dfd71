"""`python -m scalr`, as launchers such as torchrun start it."""

import sys

from scalr.cli import main

sys.exit(main())
