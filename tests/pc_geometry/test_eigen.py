import numpy as np
import pytest
from pc_geometry.eigen import diagonalise


@pytest.mark.parametrize("seed", range(20))
def testdiagonalise_agrees_with_numpy(seed):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(3, 3)) * 10.0 ** rng.integers(-4, 3, 3)
    factor[seed % 3] *= seed > 10
    matrix, axes = factor.T @ factor, np.empty((3, 3))
    work = matrix.copy()
    diagonalise(work, axes)
    values = np.diag(work)
    np.testing.assert_allclose(
        np.sort(values), np.linalg.eigvalsh(matrix), atol=1e-13 * values.max()
    )
    np.testing.assert_allclose(axes @ np.diag(values) @ axes.T, matrix, atol=1e-13 * values.max())
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-14)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100])
def test_squares_need_not_be_representable(scale):
    matrix, axes = scale * np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 3]]), np.empty((3, 3))
    diagonalise(matrix, axes)
    np.testing.assert_allclose(np.sort(np.diag(matrix)) / scale, [0, 2, 3], atol=1e-14)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-14)
