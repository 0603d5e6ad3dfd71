from dataclasses import dataclass

import pytest
from pc_data.limits import require_not_negative, require_positive


@dataclass
class Setting:
    size: object


@pytest.mark.parametrize(
    "size", [0, -1, 0.0, float("nan"), float("inf"), (2, 0), ((1, 1), (1, -3))]
)
def test_what_is_not_positive(size):
    with pytest.raises(ValueError, match=r"^size must be positive, got"):
        require_positive(Setting(size), "size")


@pytest.mark.parametrize("size", [-1, -0.5, float("nan"), float("-inf"), (2, -1)])
def test_what_is_negative(size):
    with pytest.raises(ValueError, match=r"^size must be 0 or more, got"):
        require_not_negative(Setting(size), "size")


def test_what_is_allowed():
    for size in (1, 1e-9, (1, 2), [[1], [2]]):
        require_positive(Setting(size), "size")
    for size in (0, 0.0, (0, 1), ()):
        require_not_negative(Setting(size), "size")
