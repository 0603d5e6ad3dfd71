"""Points that are shaken, displaced or lost: motion blur, crosstalk, incomplete echoes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from pc_data.corruptions.sensors import Sensor
from pc_data.errors import DataError
from pc_data.scan import Scan


def motion_blur(scan: Scan, rng: np.random.Generator, *, std: float) -> Scan:
    """Shake the sensor: one shift of the whole scan, and a small one of each point.

    Labels, boxes and cameras stay where they were.

    Args:
        scan: Any scan.
        rng: Draws the shifts.
        std: Standard deviation of the common shift along each axis, metres; of a point's own a
            tenth of it along x and y, and a twentieth along z.

    Source: Robo3D (Kong et al., ICCV 2023).
    """
    common = rng.normal(0.0, std, 3)
    own = rng.normal(0.0, 1.0, scan.xyz.shape) * (std * np.array([0.1, 0.1, 0.05]))
    return dataclasses.replace(scan, xyz=(scan.xyz + common + own).astype(np.float32))


def crosstalk(
    scan: Scan, rng: np.random.Generator, *, sensor: Sensor, share: float, std: float = 3.0
) -> Scan:
    """Displace some points as the light of another sensor does; they lose their labels.

    Args:
        scan: Any scan.
        rng: Chooses and moves the points.
        sensor: Its strongest intensity, of which the intensities of these points change by 3/255.
        share: Of the points, rounded down.
        std: Standard deviation of the displacement along each axis, metres.

    Source: Robo3D (Kong et al., ICCV 2023). Differs in the intensities, which are changed in
        proportion to their range and kept in it.
    """
    count = int(share * len(scan))
    index = rng.choice(len(scan), count, replace=False)
    xyz = scan.xyz.copy()
    xyz[index] += rng.normal(0.0, std, (count, 3)).astype(np.float32)
    intensity = scan.intensity
    if intensity is not None:
        change = rng.normal(0.0, 3 / 255 * sensor.max_intensity, count)
        intensity = intensity.copy()
        intensity[index] = np.clip(intensity[index] + change, 0, sensor.max_intensity)
    made_up = np.zeros(len(scan), bool)
    made_up[index] = True
    return forget(dataclasses.replace(scan, xyz=xyz, intensity=intensity), made_up)


def incomplete_echo(
    scan: Scan, rng: np.random.Generator, *, classes: Sequence[int], share: float
) -> Scan:
    """Lose points of dark surfaces: of classes that are often painted black.

    Args:
        scan: A labelled scan.
        rng: Chooses the points.
        classes: Labels of these classes; those with at most 10 points in the scan are spared.
        share: Of the points of each such class that are lost, rounded down.

    Raises:
        DataError: If the scan has no labels.

    Source: Robo3D (Kong et al., ICCV 2023).
    """
    if scan.labels is None:
        raise DataError(
            f"scan {scan.name} has no labels; incomplete echoes need them to find the vehicles"
        )
    keep = np.ones(len(scan), bool)
    for label in classes:
        points = np.flatnonzero(scan.labels == label)
        if len(points) > 10:
            keep[rng.choice(points, int(share * len(points)), replace=False)] = False
    return scan.select(keep)


def forget(scan: Scan, made_up: Bool[np.ndarray, " n"]) -> Scan:
    """Take class and object from points that no surface returned."""
    labels, instance = scan.labels, scan.instance
    return dataclasses.replace(
        scan,
        labels=None if labels is None else np.where(made_up, -1, labels),
        instance=None if instance is None else np.where(made_up, 0, instance),
    )
