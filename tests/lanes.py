"""Two ways to run the tests: compiled, or interpreted with shapes checked at every call."""

import os

import pytest

_INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT") == "1"

compiled_only = pytest.mark.skipif(_INTERPRETED, reason="too large for interpreted kernels")
unchecked_only = pytest.mark.skipif(
    _INTERPRETED, reason="the shape checker refuses the call before our message"
)
