"""Clouds that geometry finds hard, by name."""

import numpy as np


def cloud(rng, kind, n, d):
    points = rng.normal(size=(n, d)) * 10
    match kind:
        case "collinear":
            points = np.outer(np.linspace(-5, 5, n), np.arange(1, d + 1))
        case "duplicates":
            points = points[rng.integers(0, max(n // 8, 1), n)]
        case "grid":
            points = np.floor(points / 4)
        case "equal":
            points = np.full((n, d), 3.25)
        case "axis":
            points[:, 1:] = 0
        case "sorted":
            points = np.sort(points, axis=0)
        case "organ_pipe":
            points = np.sort(points, axis=0)[np.argsort(np.arange(n) % 2, kind="stable")]
            points[n // 2 :] = points[n // 2 :][::-1].copy()
        case "two_scales":
            points[::2] *= 1e-4
    return points


KINDS = [
    "random",
    "collinear",
    "duplicates",
    "grid",
    "equal",
    "axis",
    "sorted",
    "organ_pipe",
    "two_scales",
]
