"""How a scan's units are found: the switches of the paper's table IX."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from pc_geometry.units import (
    FindObjects,
    Units,
    cluster_objects,
    contrastive_units,
    farthest_from_above,
    nearest_context,
    pillar_context,
    random_samples,
)

from crossmodal.config import Config

_SAMPLING = {"farthest": farthest_from_above, "random": random_samples}


def unit_finder(config: Config) -> Callable[..., Units]:
    """`contrastive_units` with the values of the settings."""
    context: Any = partial(nearest_context, k=config.num_neighbors)
    if config.context == "pillar":
        context = partial(pillar_context, size=config.pillar_size)
    return partial(
        contrastive_units,
        num_units=config.num_units,
        context=context,
        objects=object_finder(config),
        choose=_SAMPLING[config.sampling],
    )


def object_finder(config: Config) -> FindObjects:
    """What finds the clusters that are one unit each; with `instances` off it finds none."""
    if not config.instances:
        return no_objects
    return partial(
        cluster_objects, radius=config.cluster_radius, min_points=config.min_cluster_points
    )


def no_objects(points: np.ndarray, ground: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Find no object: every unit stays as it was sampled."""
    return np.full(len(points), -1)
