"""Two ways to run these tests: compiled, or interpreted with shapes checked at every call."""

import numba
import pytest

compiled_only = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="too large for interpreted kernels"
)
unchecked_only = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="the shape checker refuses the call before our message"
)
