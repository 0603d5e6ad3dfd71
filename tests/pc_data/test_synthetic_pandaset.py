"""The synthetic PandaSet: its layout beside the real sample, its geometry beside the street."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from pc_data.readers.pandaset import PandaSet
from pc_data.readers.pandaset_classes import BOX_CLASS_NAMES, CLASS_NAMES, RAW_NAMES, training_class
from pc_data.readers.pandaset_scenes import CAMERAS
from pc_data.readers.pandaset_tables import read_cuboids, read_returns
from pc_data.synthetic.categories import Category
from pc_data.synthetic.pandaset import _CAMERAS as MOUNTS
from pc_data.synthetic.pandaset import (
    _LIDARS,
    PANDAR64,
    _camera_mount,
    _car,
    _intrinsics,
    make_street_pandaset,
)
from pc_data.synthetic.pandaset_tables import RAW_ID
from pc_data.synthetic.scene import Scene
from pc_data.synthetic.sensors import render
from pc_data.synthetic.style import TRAIN
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points
from scipy.spatial import cKDTree

from tests.real_data import REAL_DATA, needs_real_data

_SMALL = {"num_scenes": 2, "frames_per_scene": 2, "image_size": (64, 48)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "pandaset"
    make_street_pandaset(out, seed=5, **_SMALL)
    return out


@pytest.fixture(scope="module")
def scans(root):
    """The four frames: two of 001, then two of 002."""
    return tuple(PandaSet(root, split="all"))


def tree(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def tree_hash(root):
    digest = hashlib.sha256()
    for name in tree(root):
        digest.update(name.encode() + (root / name).read_bytes())
    return digest.hexdigest()


def test_layout_is_the_official_one(root):
    assert sorted(path.name for path in root.iterdir()) == ["001", "002"]
    frames = [f"{k:02d}" for k in range(2)]
    expected = [f"lidar/{k}.pkl.gz" for k in frames]
    expected += [f"annotations/{kind}/{k}.pkl.gz" for kind in ("cuboids", "semseg") for k in frames]
    expected += [f"lidar/{name}.json" for name in ("poses", "timestamps")]
    expected += [f"meta/{name}.json" for name in ("gps", "timestamps")]
    expected += ["annotations/semseg/classes.json"]
    for name in CAMERAS:
        expected += [f"camera/{name}/{k}.jpg" for k in frames]
        expected += [f"camera/{name}/{part}.json" for part in ("intrinsics", "poses", "timestamps")]
    for scene in ("001", "002"):
        assert tree(root / scene) == sorted(expected)
        names = json.loads((root / scene / "annotations/semseg/classes.json").read_bytes())
        assert names == {str(k): name for k, name in RAW_NAMES.items()}


@needs_real_data
def test_files_look_like_those_of_the_real_frame(root):
    real, made = REAL_DATA / "pandaset/002", root / "001"
    for name in ("lidar", "annotations/cuboids", "annotations/semseg"):
        official, ours = (
            pd.read_pickle(folder / name / "00.pkl.gz")  # noqa: S301
            for folder in (real, made)
        )
        assert dict(ours.dtypes) == dict(official.dtypes)
        assert list(ours) == list(official)
    labels, ours = (
        pd.read_pickle(folder / "annotations/cuboids/00.pkl.gz")  # noqa: S301
        for folder in (real, made)
    )
    for column in labels.columns[labels.columns.str.startswith("attributes")]:
        assert set(ours[column].dropna()) <= {*labels[column].dropna(), "Standing", "Child"} | {
            "Without Rider",
            "With Rider",
        }
    for name in ("lidar/poses", "lidar/timestamps", "meta/gps", "camera/left_camera/poses"):
        official, ours = (
            json.loads((folder / f"{name}.json").read_bytes())[0] for folder in (real, made)
        )
        assert type(ours) is type(official)
        if isinstance(ours, dict):
            assert list(ours) == list(official)
    official, ours = (
        json.loads((folder / "camera/left_camera/intrinsics.json").read_bytes())
        for folder in (real, made)
    )
    assert list(ours) == list(official)


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    small = _SMALL | {"num_scenes": 1}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_street_pandaset(tmp_path / name, seed=seed, **small)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b") != tree_hash(tmp_path / "c")


def test_splits(root):
    assert PandaSet(root, split="train").scene_names == ("001",)
    assert PandaSet(root, split="val").scene_names == ("002",)


def test_scans_look_like_scans(scans):
    for scan in scans:
        assert 110_000 < len(scan) < 175_000
        assert 0 <= scan.intensity.min() <= scan.intensity.max() <= 255
        assert 10 < scan.intensity.mean() < 45
        assert len(scan.cameras) == 6
        near = np.linalg.norm(scan.xyz[:, :2], axis=1) < 8
        road = scan.xyz[near & (scan.labels == CLASS_NAMES.index("road"))]
        assert np.median(road[:, 2]) == pytest.approx(-1.87, abs=0.1)
        shown = {CLASS_NAMES[k] for k in np.unique(scan.labels) if k >= 0}
        assert {"road", "road marking", "sidewalk", "manmade", "vegetation", "car"} <= shown


def test_rays_are_those_of_the_sensors(root):
    spinning = PandaSet(root, sensors="pandar64").load_points(0)
    xyz = spinning[:, :3].astype(float) - np.array(_LIDARS[0].position) + [0, 0, 1.6]
    elevation = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
    nearest = np.abs(elevation[:, None] - PANDAR64.elevation).argmin(1)
    off = np.abs(elevation - PANDAR64.elevation[nearest])
    assert np.percentile(off, 99.9) < 0.01
    assert len(np.unique(nearest)) > 58
    assert -0.102 <= spinning[:, 4].min() < spinning[:, 4].max() <= 0.002
    ahead = PandaSet(root, sensors="pandargt").load_points(0)
    xyz = ahead[:, :3].astype(float) - np.array(_LIDARS[1].position) + [0, 0, 1.6]
    azimuth = np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0]))
    elevation = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
    # It fires 40 ms later, when the car is some decimetres further.
    far = np.linalg.norm(xyz, axis=1) > 15
    assert 58 < azimuth[far].min() < azimuth[far].max() < 122
    assert -13.5 < elevation[far].min() < elevation[far].max() < 8.5
    assert far.sum() > 5000
    assert -0.014 <= ahead[:, 4].min() < ahead[:, 4].max() <= 0.086


def test_labels_in_boxes_agree(scans):
    for scan in scans:
        assert len(scan.boxes) > 15
        assert len(set(scan.boxes.track)) == len(scan.boxes)
        agree = total = 0
        for k, label in enumerate(scan.boxes.labels):
            own = scan.labels[scan.instance == k + 1]
            agree += np.count_nonzero(own == CLASS_NAMES.index(BOX_CLASS_NAMES[label]))
            total += len(own)
        assert agree > 0.88 * total > 5000


def test_moving_objects_have_a_box_for_each_sensor(root):
    twins = vehicles = 0
    for scene in ("001", "002"):
        file = root / scene / "lidar/00.pkl.gz"
        returns = read_returns(file)
        cuboids = read_cuboids(root / scene / "annotations/cuboids/00.pkl.gz")
        for row in np.flatnonzero(cuboids.sensor == 0):
            twin = cuboids.twin[row]
            assert cuboids.sensor[twin] == 1
            assert cuboids.twin[twin] == row
            shift = cuboids.cuboid[twin] - cuboids.cuboid[row]
            speed = np.linalg.norm(shift[:2]) / 0.04
            assert 0.3 < speed < 25
            if BOX_CLASS_NAMES[cuboids.labels[row]] in ("car", "truck", "bus"):
                heading = cuboids.cuboid[row, 6]
                ahead = shift[0] * np.cos(heading) + shift[1] * np.sin(heading)
                assert ahead > 0.98 * np.linalg.norm(shift[:2])
                vehicles += 1
            twins += 1
        for row in np.flatnonzero(cuboids.sensor >= 0):
            inside, _ = points_in_boxes(returns.xyz, cuboids.cuboid[row : row + 1])
            assert (returns.sensor[inside] == cuboids.sensor[row]).any()
    assert twins >= 4
    assert vehicles >= 2


@pytest.mark.parametrize("name", ["front_camera", "right_camera", "back_camera"])
def test_points_project_onto_pixels_of_their_class(root, name):
    scan = PandaSet(root, sensors="pandar64")[1]
    scene = Scene(TRAIN, seed=(5, 0, 0), duration=0.5)
    size = _SMALL["image_size"]
    camera = scan.camera(name)
    picture, classes = render(
        scene.world(0.5),
        scene.look,
        scene.paving,
        scene.light,
        pose=_car(scene, 0.5 + MOUNTS[name].delay) @ _camera_mount(MOUNTS[name]),
        intrinsics=_intrinsics(name, size),
        image_size=size,
    )
    assert (np.abs(camera.load_image().astype(int) - picture) > 30).mean() < 0.05
    class_of = np.array([training_class(RAW_NAMES[k]) if k else -1 for k in RAW_ID])
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    seen = visible_points(pixel, depth, size, min_depth=0.0)
    u, v = pixel[seen].astype(int).T
    assert seen.sum() > 2000
    assert np.mean(class_of[classes[v, u]] == scan.labels[seen]) > 0.75


def test_poses_bring_still_points_together(scans):
    still = [CLASS_NAMES.index(name) for name in ("manmade", "traffic sign")]
    for first, second in (scans[:2], scans[2:]):
        assert np.linalg.norm(second.pose[:3, 3] - first.pose[:3, 3]) > 1
        own = [scan.xyz[np.isin(scan.labels, still)].astype(float) for scan in (first, second)]
        placed = [
            xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3]
            for xyz, scan in zip(own, (first, second), strict=True)
        ]
        apart, together = (np.median(cKDTree(one).query(two)[0]) for one, two in (own, placed))
        assert together < 0.12
        assert together < 0.7 * apart


def test_world_starts_at_the_car_and_is_level(root):
    for scene in ("001", "002"):
        first = json.loads((root / scene / "lidar/poses.json").read_bytes())[0]
        np.testing.assert_allclose(list(first["position"].values()), 0, atol=1e-9)


def test_every_category_has_an_official_id():
    assert set(RAW_ID.tolist()) <= {0, *RAW_NAMES}
    assert RAW_ID[Category.CAR] == 13


def test_requests_out_of_range(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        make_street_pandaset(tmp_path, num_scenes=1, seed=0)
    with pytest.raises(ValueError, match="num_scenes must be at most 999 and frames_per_scene"):
        make_street_pandaset(tmp_path / "x", num_scenes=1, seed=0, frames_per_scene=101)
    with pytest.raises(ValueError, match="image_size must be at least 16 x 16"):
        make_street_pandaset(tmp_path / "x", num_scenes=1, seed=0, image_size=(8, 80))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
