import numpy as np
import pytest
from pc_geometry.arrays import require_count, require_points

from tests.lanes import unchecked_only


@unchecked_only
@pytest.mark.parametrize("integer", [np.uint8, np.int16, np.uint16, np.int64, np.array])
def test_a_count_becomes_a_python_int(integer):
    count = require_count("k", integer(120))
    assert type(count) is int
    assert count * 2048 == 245_760


def test_a_count_may_be_either_limit():
    assert require_count("k", 1) == 1
    assert require_count("k", 0, least=0) == 0
    assert require_count("k", 5, least=3, most=5) == 5
    assert require_count("k", 2**70) == 2**70


@pytest.mark.parametrize("value", [0, -3])
def test_a_count_below_the_least(value):
    with pytest.raises(ValueError, match=f"^k must be at least 1, got {value}$"):
        require_count("k", value)


@pytest.mark.parametrize("value", [2, 6])
def test_a_count_out_of_both_limits(value):
    with pytest.raises(ValueError, match=f"^k must be from 3 to 5, got {value}$"):
        require_count("k", value, least=3, most=5)


@unchecked_only
@pytest.mark.parametrize("value", [2.0, 1.5, np.float64(2), None, "2"])
def test_a_count_that_is_no_integer(value):
    with pytest.raises(ValueError, match=r"^k must be an integer at least 1, got .*(2|1\.5|None)"):
        require_count("k", value)
    with pytest.raises(ValueError, match=r"^k must be an integer from 1 to 9, got "):
        require_count("k", value, most=9)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        *[(integer, np.float64) for integer in (np.int32, np.int64, np.uint8, np.bool_)],
    ],
)
@unchecked_only
def test_points_become_single_or_double(given, kept):
    points = require_points(np.array([[1, 0, 1]], given))
    assert points.dtype == kept
    assert points.tolist() == [[1, 0, 1]]


def test_points_become_contiguous():
    points = np.arange(12.0).reshape(3, 4).T[:, ::-1]
    assert not points.flags.c_contiguous
    found = require_points(points)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, points)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_counted(bad):
    points = np.zeros((5, 3))
    points[2, 1] = points[4, 0] = points[4, 2] = bad
    with pytest.raises(ValueError, match=r"^xyz must be finite, got 2 of 5 .* first at index 2;"):
        require_points(points, name="xyz")


@unchecked_only
@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 1), (1, 2, 3)])
def test_points_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"shape \[n d\] with d = 2 or 3, got \("):
        require_points(np.zeros(shape))
