"""How a network is shown a cloud: whole where it can be, in tiles, from a sensor, with normals."""

import numpy as np
import pytest
from pc_data.features import LIDAR_FEATURES
from pc_data.loading import sample_rng
from pc_data.scan import Scan
from pc_train.prediction.tiles import Limits, Shown
from pc_train.samples import evaluation_sample

FOV = ((-64.0, -64.0, -8.0), (64.0, 64.0, 8.0))


def _arguments(**changes):
    arguments = {
        "features": LIDAR_FEATURES,
        "intensity_mean": 0.0,
        "intensity_std": 1.0,
        "box": FOV,
        "num_neighbors": 4,
        "voxel_size": 0.5,
        "from_origin": False,
    }
    return arguments | changes


def _limits(max_points=100_000, tile_size=np.inf, overlap=2.0):
    return Limits(max_points=max_points, tile_size=tile_size, overlap=overlap)


def _ground(extent, *, num_points=4000, height=0.1, seed=0):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([-extent, -extent, 0], [extent, extent, height], (num_points, 3))
    return Scan(name="ground", xyz=xyz.astype(np.float32), intensity=np.ones(num_points, "f4"))


@pytest.mark.parametrize("extent", [20, 85])  # nearly half of the second is out of view
def test_scan_is_shown_as_in_evaluation(extent):
    scan = _ground(extent)
    ((points, sample),) = Shown(scan, _arguments(), _limits())
    whole = evaluation_sample(scan, sample_rng(0, 0, 0), **_arguments())
    assert points.tolist() == list(range(len(scan)))
    for name in ("xyz", "feat", "neighbors", "nearest"):
        np.testing.assert_array_equal(getattr(sample, name), getattr(whole, name))


@pytest.mark.parametrize(
    "limits",
    [_limits(max_points=1500), _limits(tile_size=25.0), _limits(max_points=2000, tile_size=30.0)],
)
def test_every_point_is_answered_once(limits):
    scan = _ground(40)
    shown = Shown(scan, _arguments(), limits)
    points = []
    for index, sample in shown:
        points.append(index)
        assert len(sample.xyz) <= limits.max_points
        assert len(sample.nearest) == len(index)
        # From a sensor in its middle, 1.8 m above the ground.
        assert np.abs(sample.xyz.numpy()[:, :2]).max() < 40
        assert -1.9 < sample.xyz[:, 2].min() < sample.xyz[:, 2].max() < -1.6
        answers = sample.xyz.numpy()[sample.nearest]
        place = scan.xyz[index]
        apart = (place - place.mean(0)) - (answers - answers.mean(0))
        assert np.linalg.norm(apart, axis=1).max() < 0.5 * 3**0.5 + 0.1
    assert len(points) == len(shown.tiles) > 1
    assert sorted(np.concatenate(points).tolist()) == list(range(len(scan)))


def test_network_that_does_not_measure_from_a_sensor_sees_the_frame_of_the_file():
    scan = _ground(40)
    arguments = _arguments(features=("height",), box=None, from_origin=True)
    shown = Shown(scan, arguments, _limits(tile_size=25.0))
    assert len(shown.tiles) > 1
    for index, sample in shown:
        far = np.abs(sample.xyz.numpy()[sample.nearest] - scan.xyz[index]).max()
        assert far < 0.5
    assert shown.notes == [f"cut into {len(shown.tiles)} tiles that overlap by 2 m"]


def test_normals_are_estimated_where_a_network_looks():
    rng = np.random.default_rng(0)
    floor = rng.uniform([0, 0, 0], [6, 5, 0], (3000, 3))
    ceiling = rng.uniform([0, 0, 3], [6, 5, 3], (3000, 3))
    wall = rng.uniform([0, 0, 0], [0, 5, 3], (2000, 3))
    room = Scan(name="room", xyz=np.concatenate([floor, ceiling, wall]).astype(np.float32))
    names = ("normal_x", "normal_y", "normal_z")
    arguments = _arguments(features=names, box=None, voxel_size=0.1, num_neighbors=0)
    ((_, sample),) = Shown(room, arguments, _limits())
    inward = np.repeat([[0, 0, 1], [0, 0, -1], [1, 0, 0]], (3000, 3000, 2000), axis=0)
    found = sample.feat.numpy()[sample.nearest]
    assert ((found * inward).sum(1) > 0.99).mean() > 0.9
    field = _ground(40, height=0.01)
    shown = Shown(field, arguments, _limits())
    ((_, sample),) = shown
    assert (sample.feat[:, 2] > 0.99).all()
    assert "there are no normals: they are estimated from 16 neighbours, upward" in shown.notes[-1]


def test_what_is_said():
    scan = _ground(2000)
    shown = Shown(scan, _arguments(box=None, voxel_size=0.1), _limits())
    assert "its unit may be smaller than was stated" in shown.notes[0]
    bare = Scan(name="bare", xyz=_ground(20).xyz)
    notes = Shown(bare, _arguments(), _limits()).notes
    assert notes == ["there is no intensity: all points count as of mean intensity"]


def test_limits_that_leave_no_tile():
    with pytest.raises(ValueError, match="pass a larger max_points or a smaller overlap"):
        Shown(_ground(40), _arguments(), _limits(max_points=10, overlap=20.0))
