"""Eigenvectors of symmetric 3x3 matrices, for planes of least squares."""
# ruff: noqa: ANN001, ANN201, ANN202  (numba infers the types of kernels)

import math

from pc_geometry.compiling import kernel

MAX_SWEEPS = 20
"""Jacobi sweeps at most; four or five are enough, as convergence is quadratic."""


@kernel
def diagonalise(a, vectors):
    """Leave the eigenvalues of a symmetric matrix on its diagonal, and write its eigenvectors.

    The cyclic Jacobi method (Golub and Van Loan, Matrix Computations, section 8.5): accurate
    whatever the spread of the eigenvalues, which the roots of the cubic are not.
    """
    vectors[:] = 0
    for i in range(3):
        vectors[i, i] = 1
    scale = a[0, 0] + a[1, 1] + a[2, 2]
    for _ in range(MAX_SWEEPS):
        if abs(a[0, 1]) + abs(a[0, 2]) + abs(a[1, 2]) <= 1e-18 * scale:
            break
        for p in range(2):
            for q in range(p + 1, 3):
                if a[p, q] != 0:
                    _rotate(a, vectors, p, q)


@kernel
def _rotate(a, vectors, p, q):
    """Turn axes p and q so that a[p, q] vanishes."""
    half = 0.5 * (a[q, q] - a[p, p]) / a[p, q]
    t = math.copysign(1.0, half) / (abs(half) + math.sqrt(half * half + 1.0))
    c = 1 / math.sqrt(t * t + 1)
    s = t * c
    r = 3 - p - q
    a[p, p] -= t * a[p, q]
    a[q, q] += t * a[p, q]
    a[p, q] = a[q, p] = 0
    arp, arq = a[r, p], a[r, q]
    a[r, p] = a[p, r] = c * arp - s * arq
    a[r, q] = a[q, r] = s * arp + c * arq
    for i in range(3):
        vip, viq = vectors[i, p], vectors[i, q]
        vectors[i, p] = c * vip - s * viq
        vectors[i, q] = s * vip + c * viq
