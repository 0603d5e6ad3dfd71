"""Where the small real samples and the golden fixtures lie, if this machine has them."""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared"
REAL_DATA = Path(os.environ.get("PC_REAL_DATA", _SHARED / "data"))
FIXTURES = Path(os.environ.get("PC_FIXTURES", _SHARED / "fixtures"))

needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason=f"no real samples at {REAL_DATA}; set PC_REAL_DATA"
)
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason=f"no golden fixtures at {FIXTURES}; set PC_FIXTURES"
)
