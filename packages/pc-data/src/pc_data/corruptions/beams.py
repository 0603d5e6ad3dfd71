"""Which beam saw each point; a LiDAR that loses beams, or has fewer."""

import math

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.corruptions.sensors import Sensor
from pc_data.scan import Scan

_CAR = 1.5
"""Metres around the sensor in which it sees its own car, or nothing."""

_STEP = 0.1
"""Radians between neighbours along a turn, at most."""

_BINS = 512
"""Steps of elevation between the lowest and the highest point that beams are told apart by."""


def find_beams(xyz: Float32[np.ndarray, "n 3"], sensor: Sensor) -> Int64[np.ndarray, " n"]:
    """Tell which beam saw each point, 0 the lowest, from where the points are.

    Points that are stored beam by beam, each a full turn (SemanticKITTI's), are cut at the turns.
    Others are cut into strips of elevation with the least variance in each. Points that were moved
    to make up for the sensor's own motion leave their strip close to the vehicle: on a nuScenes
    keyframe 87% of the points get their true beam, and all of those above the horizon. Where a
    dataset tells the beam, use that instead.

    Args:
        xyz: Points in metres.
        sensor: Its position and number of beams.
    """
    if not len(xyz):
        return np.zeros(0, np.int64)
    x, y, z = (xyz.astype(np.float64) - sensor.position).T
    elevation = np.arctan2(z, np.hypot(x, y))
    turn = _turns(np.arctan2(y, x))
    if turn[-1] + 1 == sensor.num_beams:
        mean = np.bincount(turn, weights=elevation) / np.bincount(turn)
        return np.argsort(np.argsort(mean))[turn]
    clear = np.hypot(x, y) > _CAR
    low, high = np.percentile(elevation[clear] if clear.any() else elevation, (0.1, 99.9))
    scale = _BINS / max(high - low, 1e-6)
    step = np.clip((elevation - low) * scale, 0, _BINS - 1).astype(np.int64)
    counts = np.bincount(step[clear], minlength=_BINS).astype(np.float64)
    borders = _cut(counts, sensor.num_beams)
    return np.searchsorted(borders, step, side="right")


def beam_missing(
    scan: Scan,
    rng: np.random.Generator,
    *,
    sensor: Sensor,
    share: float,
    beams: Int64[np.ndarray, " n"] | None = None,
) -> Scan:
    """Lose some beams: all of their points.

    Args:
        scan: Any scan.
        rng: Chooses the beams.
        sensor: The LiDAR.
        share: Of the beams that are lost, rounded to whole beams.
        beams: The beam of each point, where it is known.

    Source: Robo3D (Kong et al., ICCV 2023). Differs in two points: beams are drawn from all of
        them, not only from the middle ones, and each at most once, so that the share holds.
    """
    beams = find_beams(scan.xyz, sensor) if beams is None else beams
    num_lost = round(share * sensor.num_beams)
    lost = np.zeros(max(sensor.num_beams, beams.max(initial=0) + 1), bool)
    lost[rng.choice(sensor.num_beams, num_lost, replace=False)] = True
    return scan.select(~lost[beams])


def cross_sensor(
    scan: Scan,
    rng: np.random.Generator,  # noqa: ARG001 - corruptions are made by (scan, rng)
    *,
    sensor: Sensor,
    share: float,
    beams: Int64[np.ndarray, " n"] | None = None,
) -> Scan:
    """See with a LiDAR of fewer beams and half the resolution along each of them.

    Beams stay at equal intervals; along each that stays, every second point does.

    Args:
        scan: Any scan whose points along a beam are stored in order.
        rng: Not used.
        sensor: The LiDAR.
        share: Of the beams that stay.
        beams: The beam of each point, where it is known.

    Source: Robo3D (Kong et al., ICCV 2023), which takes every second point of the file.
    """
    beams = find_beams(scan.xyz, sensor) if beams is None else beams
    number = np.arange(max(sensor.num_beams, beams.max(initial=0) + 1))
    stays = np.floor(number * share) != np.floor((number - 1) * share)
    return scan.select(stays[beams] & (_rank_in_beam(beams) % 2 == 0))


def _rank_in_beam(beams: np.ndarray) -> np.ndarray:
    """How many earlier points of the scan are of the same beam."""
    order = np.argsort(beams, kind="stable")
    start = np.cumsum(np.bincount(beams)) - np.bincount(beams)
    rank = np.empty(len(beams), np.int64)
    rank[order] = np.arange(len(beams)) - start[beams[order]]
    return rank


def _turns(azimuth: np.ndarray) -> np.ndarray:
    """Number of full turns before each point; none where points are not stored along turns.

    A turn begins straight ahead. A point behind the sensor must come between two of them, so that
    points which jump back and forth at the seam count once.
    """
    step = (np.diff(azimuth) + math.pi) % (2 * math.pi) - math.pi
    if not len(step) or np.mean(np.abs(step) < _STEP) < 0.9:
        return np.zeros(len(azimuth), np.int64)
    azimuth = azimuth if np.median(step) >= 0 else -azimuth
    behind = np.abs(azimuth) > 0.75 * math.pi
    ahead = (azimuth >= 0) & (azimuth < 0.5 * math.pi)
    index = np.arange(len(azimuth))
    last_behind = np.maximum.accumulate(np.where(behind, index, -1))
    last_ahead = np.maximum.accumulate(np.where(ahead, index, -1))
    before = np.concatenate([[-1], last_ahead[:-1]])
    return np.cumsum(ahead & (last_behind > before) & (before >= 0))


def _cut(counts: Float64[np.ndarray, " bins"], parts: int) -> Int64[np.ndarray, " borders"]:
    """Cut a histogram into parts of least variance: the first bin of each part but the first."""
    bins = np.arange(len(counts))
    sums = [np.concatenate([[0.0], np.cumsum(counts * bins**power)]) for power in range(3)]
    mass, first, second = (total[:, None] - total[None, :] for total in sums)  # [end start]
    spread = second - first**2 / np.maximum(mass, 1)
    spread[np.triu_indices(len(counts) + 1)] = np.inf
    cost = np.full(len(counts) + 1, np.inf)
    cost[0] = 0.0
    starts = []
    for _ in range(parts):  # the best cuts of the first bins into one part more
        whole = spread + cost
        starts.append(whole.argmin(1))
        cost = whole.min(1)
    borders = np.empty(parts - 1, np.int64)
    end = len(counts)
    for part in range(parts - 1, 0, -1):
        end = borders[part - 1] = starts[part][end]
    return borders
