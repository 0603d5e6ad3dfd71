"""PandaSet: the real sample, a tiny world written by hand, and what can be wrong with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers import pandaset_classes
from pc_data.readers.pandaset import PandaSet
from pc_data.readers.pandaset_classes import BOX_CLASS_NAMES, CLASS_NAMES, RAW_NAMES
from pc_data.readers.pandaset_scenes import CAMERAS
from pc_data.synthetic.frames import write_frame
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points
from pc_geometry.rigid import quaternion_from_rotation, rotation_z

from tests.pc_data.tiny_worlds import IMAGE_SIZE, write_image, write_nuscenes
from tests.real_data import REAL_DATA, needs_real_data

SAMPLE = REAL_DATA / "pandaset"


def label(name):
    return CLASS_NAMES.index(name)


# --- the real frame


@pytest.fixture(scope="module")
def real():
    return PandaSet(SAMPLE)


@needs_real_data
def test_real_frame(real):
    (scan,) = real
    assert (scan.name, len(scan), scan.timestamp) == ("002/00", 166768, 1557539956.500022)
    assert len(PandaSet(SAMPLE, sensors="pandar64")[0]) == 106169
    assert len(PandaSet(SAMPLE, sensors="pandargt")[0]) == 60599
    assert 0 == scan.intensity.min() < scan.intensity.max() == 255
    counts = {name: int((scan.labels == k).sum()) for k, name in enumerate(CLASS_NAMES)}
    assert counts["road"] == 34211
    assert counts["manmade"] == 45585 + 33372
    assert counts["car"] == 29754
    assert counts["vegetation"] == 11347
    assert counts["truck"] == 2295 + 1480  # pick-ups and medium-sized ones
    assert counts["motorcycle"] == 1113
    assert counts["other vehicle"] == 2036
    points = real.load_points(0)
    assert set(np.unique(points[:, 5])) == {0, 1}
    assert -0.11 < points[:, 4].min() < points[:, 4].max() < 0.09  # of a tenth of a second
    with pytest.raises(DataError, match="no scan of split 'val'"):
        PandaSet(SAMPLE, split="val")  # San Francisco is for training


@needs_real_data
def test_real_frame_is_level_and_looks_along_y(real):
    scan = real[0]
    near = np.linalg.norm(scan.xyz[:, :2], axis=1) < 15
    road = scan.xyz[near & (scan.labels == label("road"))]
    assert np.median(road[:, 2]) == pytest.approx(-1.87, abs=0.02)
    assert np.percentile(np.abs(road[:, 2] - np.median(road[:, 2])), 99) < 0.7
    ahead = PandaSet(SAMPLE, sensors="pandargt")[0].xyz
    assert (ahead[:, 1] > 0).all()
    looks = {camera.name: camera.from_scan[2, :2] for camera in scan.cameras}
    np.testing.assert_allclose(looks["front_camera"], (0, 1), atol=0.01)
    np.testing.assert_allclose(looks["right_camera"], (1, 0), atol=0.03)
    assert tuple(looks) == CAMERAS


@needs_real_data
def test_real_cuboids_hold_points_of_their_class(real):
    scan = real[0]
    names = [BOX_CLASS_NAMES[k] if k >= 0 else "" for k in scan.boxes.labels]
    assert len(scan.boxes) == 113 - 20  # twins of the PandarGT
    assert len(set(scan.boxes.track)) == 93
    cars = [k for k, name in enumerate(names) if name == "car"]

    def car_share(xyz, cuboids):
        inside, splits = points_in_boxes(xyz, cuboids)
        parts = [inside[splits[k] : splits[k + 1]] for k in cars]
        return [np.mean(scan.labels[part] == label("car")) for part in parts if len(part) > 30]

    def car_points(xyz, cuboids):
        inside = np.unique(points_in_boxes(xyz, cuboids[cars])[0])
        return (scan.labels[inside] == label("car")).sum()

    shares = car_share(scan.xyz, scan.boxes.cuboid)
    assert len(shares) > 35
    assert np.mean(shares) > 0.97
    held = car_points(scan.xyz, scan.boxes.cuboid)
    assert held > 0.98 * (scan.labels == label("car")).sum()
    for turn in (np.pi / 2, np.pi / 4):  # what another convention of the heading would give
        turned = scan.boxes.cuboid + np.array([0, 0, 0, 0, 0, 0, turn])
        assert car_points(scan.xyz, turned) < 0.9 * held
    own = np.isin(scan.instance - 1, cars)
    assert np.mean(scan.labels[own] == label("car")) > 0.95
    assert (np.bincount(scan.instance, minlength=94)[1:] > 0).sum() == 88


@needs_real_data
def test_real_cars_drive_on_the_right(real):
    """Which end of a car is its front: in our lanes it points along +y, in theirs along -y."""
    boxes = real[0].boxes
    car = boxes.labels == BOX_CLASS_NAMES.index("car")
    x, _, _, length, width, _, yaw = boxes.cuboid.T
    assert (length[car] > width[car]).all()
    ours, theirs = (car & (x > low) & (x < high) for low, high in ((-4.5, 1), (-15, -8)))
    assert ours.sum() > 8
    assert theirs.sum() > 5
    assert (np.abs(yaw[ours] - np.pi / 2) < 0.1).all()
    assert (np.abs(yaw[theirs] + np.pi / 2) < 0.1).all()


@needs_real_data
@pytest.mark.parametrize(
    ("name", "color", "own", "least"),
    [
        ("front_camera", (-1, 2, -1), "vegetation", 25),  # green
        ("back_camera", (1, 0, -1), "traffic cone", 20),  # orange
    ],
)
def test_real_projection_lands_on_pixels_of_the_class_color(real, name, color, own, least):
    scan = real[0]
    camera = scan.camera(name)
    assert camera.image_size == (1920, 1080)
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    seen = visible_points(pixel, depth, camera.image_size, min_depth=0.0)
    assert seen.sum() > 20_000
    u, v = pixel[seen].astype(int).T
    tint = camera.load_image().astype(int)[v, u] @ color
    labels = scan.labels[seen]
    for other in ("road", "car", "manmade", "sidewalk"):
        difference = np.median(tint[labels == label(own)]) - np.median(tint[labels == label(other)])
        assert difference > least


# --- classes


def test_classes_are_those_of_the_table():
    ids = (
        *(-1, -1, -1, -1, -1, 4, 15, 0, 5, 5, 5, 6, 16, 9, 11, 11, 11, 14, 10, 14, 14, 14, -1),
        *(12, -1, -1, 13, 14, 14, 14, 3, 3, -1, -1, 8, 2, 1, 8, 1, 2, -1, 7, 7),
    )
    assert len(ids) == 43
    assert len(RAW_NAMES) == 42
    assert [pandaset_classes.training_class(RAW_NAMES[raw]) for raw in range(1, 43)] == [*ids[1:]]
    assert pandaset_classes.box_class("Pylons") == BOX_CLASS_NAMES.index("traffic cone")
    assert pandaset_classes.box_class("Animals - Bird") == -1
    assert pandaset_classes.box_class("Road") == -1
    with pytest.raises(ValueError, match=r"'Pickup' is no class of PandaSet; .* 'Pickup T"):
        pandaset_classes.box_class("Pickup")


# --- the tiny world

WORLD = np.array(
    # x, y, z, i, t, d and raw class
    [
        (10, 20, 0, 7, -0.10, 0, 7),  # under the LiDAR
        (0, 20, 0.8, 9, -0.05, 0, 13),  # in the car ahead
        (0, 21, 0.1, 255, 0.01, 1, 13),  # in it, seen by the other LiDAR
        (4.0, 24, 1, 1, -0.02, 0, 31),  # the pedestrian, where the Pandar64 saw it
        (4.0, 24.7, 1, 2, 0.02, 1, 31),  # and where the PandarGT did
        (4.0, 24.8, 1, 3, -0.02, 0, 4),  # a reflection in the PandarGT's box
        (30, 20, 3, 4, 0, 0, 41),  # behind
    ]
)
CUBOIDS = {
    "uuid": ["car", "walker", "walker-gt", "bird"],
    "label": ["Car", "Pedestrian with Object", "Pedestrian with Object", "Animals - Bird"],
    "yaw": [np.pi / 2, 0.0, 0.0, 0.0],
    "stationary": [True, False, False, False],
    "camera_used": [-1, 2, 2, -1],
    "position.x": [0.0, 4.0, 4.0, -50.0],
    "position.y": [20.0, 24.0, 24.8, 0.0],
    "position.z": [0.8, 1.0, 1.0, 9.0],
    "dimensions.x": [2.2, 0.8, 0.8, 0.2],
    "dimensions.y": [4.4, 0.8, 0.8, 0.3],
    "dimensions.z": [1.6, 2.0, 2.0, 0.2],
    "attributes.object_motion": ["Parked", np.nan, np.nan, np.nan],
    "cuboids.sibling_id": ["-", "walker-gt", "walker", "-"],
    "cuboids.sensor_id": [-1, 0, 1, -1],
    "attributes.rider_status": [np.nan] * 4,
    "attributes.pedestrian_behavior": [np.nan, "Walking", "Walking", np.nan],
    "attributes.pedestrian_age": [np.nan, "Adult", "Adult", np.nan],
}
OBJECTS = ("uuid", "label", "cuboids.sibling_id")
PLAIN = {
    name: WORLD[:, k].astype(np.int64 if name == "d" else float) for k, name in enumerate("xyzitd")
}


def pose(position, rotation):
    heading = quaternion_from_rotation(rotation).tolist()
    return {
        "position": dict(zip("xyz", map(float, position), strict=True)),
        "heading": dict(zip("wxyz", heading, strict=True)),
    }


def cuboid_columns(**changes):
    columns = {**CUBOIDS, **changes}
    return {
        name: np.array(values, object if name in OBJECTS or name.startswith("attr") else None)
        for name, values in columns.items()
    }


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_table(file, columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    write_frame(file, columns)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Two scenes of two frames: the car drives along the world's -x at 20 m/s.

    The cameras look ahead and back from 1.8 m above the pose, and fire 50 ms early.
    """
    root = tmp_path_factory.mktemp("tiny") / "pandaset"
    rng = np.random.default_rng(0)
    back = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # world-from-camera
    ahead = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]])
    for name, latitude in (("002", 37.77), ("101", 37.38)):
        folder = root / name
        spots = [(10.0 - 2 * k, 20.0, 0.0) for k in range(3)]
        write_json(folder / "lidar/poses.json", [pose(p, rotation_z(np.pi / 2)) for p in spots])
        write_json(folder / "lidar/timestamps.json", [1000.0, 1000.1, 1000.2])
        write_json(folder / "meta/gps.json", [{"lat": latitude, "long": -122.4}] * 3)
        names = {str(raw): text for raw, text in RAW_NAMES.items()}
        write_json(folder / "annotations/semseg/classes.json", names)
        for camera, axes in (("front_camera", ahead), ("back_camera", back)):
            poses = [pose((x + 1, y, 1.8), axes) for x, y, _ in spots]
            write_json(folder / "camera" / camera / "poses.json", poses)
            intrinsics = {"fx": 40.0, "fy": 41.0, "cx": 32.0, "cy": 24}
            write_json(folder / "camera" / camera / "intrinsics.json", intrinsics)
            for frame in range(2):
                write_image(folder / "camera" / camera / f"{frame:02d}.jpg", IMAGE_SIZE, rng)
        for frame in range(2):
            write_table(folder / f"lidar/{frame:02d}.pkl.gz", PLAIN | {"t": PLAIN["t"] + 1000})
            classes = {"class": WORLD[:, 6].astype(np.int64)}
            write_table(folder / f"annotations/semseg/{frame:02d}.pkl.gz", classes)
            write_table(folder / f"annotations/cuboids/{frame:02d}.pkl.gz", cuboid_columns())
    return root


@pytest.fixture
def world(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "pandaset"))


def test_points_of_the_tiny_world(pristine):
    dataset = PandaSet(pristine)
    assert [scan.name for scan in dataset] == ["002/00", "002/01"]
    scan = dataset[0]
    # The world's -x is ahead (+y), its +y to the right (+x); the origin is 1.6 m up.
    expected = np.stack([WORLD[:, 1] - 20, 10 - WORLD[:, 0], WORLD[:, 2] - 1.6], axis=1)
    np.testing.assert_allclose(scan.xyz, expected, atol=1e-6)
    assert scan.xyz.dtype == scan.intensity.dtype == np.float32
    assert scan.intensity.tolist() == WORLD[:, 3].tolist()
    points = dataset.load_points(0)
    np.testing.assert_allclose(points[:, 4], WORLD[:, 4], atol=1e-6)
    assert points[:, 5].tolist() == WORLD[:, 5].tolist()
    np.testing.assert_allclose(dataset[1].xyz[:, 1], expected[:, 1] - 2, atol=1e-6)
    assert [scan.timestamp for scan in dataset] == [1000.0, 1000.1]
    assert dataset.scene_of(1) == "002"
    with pytest.raises(IndexError):
        dataset[2]
    assert dataset[-1].name == "002/01"


def test_poses_bring_points_together(pristine):
    for scan in PandaSet(pristine, split="all"):
        placed = scan.xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3]
        np.testing.assert_allclose(placed, WORLD[:, :3], atol=1e-5)


def test_labels_and_instances(pristine):
    scan = PandaSet(pristine)[0]
    names = ("road", "car", "car", "pedestrian", "pedestrian", None, "manmade")
    assert scan.labels.tolist() == [label(name) if name else -1 for name in names]
    assert scan.labels.dtype == scan.instance.dtype == np.int64
    # A point counts for the box of its own LiDAR, so that the reflection is nobody's.
    assert scan.instance.tolist() == [0, 1, 1, 2, 2, 0, 0]


def test_boxes(pristine):
    scan = PandaSet(pristine)[0]
    assert scan.boxes.track == ("car", "walker", "bird")
    assert [BOX_CLASS_NAMES[k] for k in scan.boxes.labels[:2]] == ["car", "pedestrian"]
    assert scan.boxes.labels[2] == -1
    car, walker, _ = scan.boxes.cuboid
    np.testing.assert_allclose(car, (0, 10, -0.8, 4.4, 2.2, 1.6, np.pi / 2), atol=1e-9)
    # It points along the world's +y, which is to the right.
    np.testing.assert_allclose(walker, (4, 6, -0.6, 0.8, 0.8, 2, 0), atol=1e-9)
    np.testing.assert_array_equal(PandaSet(pristine).load_boxes(0).cuboid, scan.boxes.cuboid)


def test_each_sensor_alone(pristine):
    spinning = PandaSet(pristine, sensors="pandar64")
    scan = spinning[0]
    assert scan.intensity.tolist() == [7, 9, 1, 3, 4]
    assert scan.instance.tolist() == [0, 1, 2, 0, 0]
    assert scan.boxes.track == ("car", "walker", "bird")
    assert len(scan.cameras) == 2
    assert spinning.load_labels(0).tolist() == scan.labels.tolist()
    ahead = PandaSet(pristine, sensors="pandargt")
    scan = ahead[0]
    assert scan.intensity.tolist() == [255, 2]
    assert scan.instance.tolist() == [1, 2]
    assert scan.boxes.track == ("car", "walker-gt", "bird")
    assert [camera.name for camera in scan.cameras] == ["front_camera"]
    assert spinning.intensity_mean == 18.23640649
    assert ahead.intensity_std == 16.76273235


def test_cameras_are_where_they_were_when_they_fired(pristine):
    scan = PandaSet(pristine)[1]
    assert [camera.name for camera in scan.cameras] == ["back_camera", "front_camera"]
    camera = scan.camera("front_camera")
    assert camera.image_size == IMAGE_SIZE
    # From the camera at x = 9 the car's middle is 9 m ahead, 1 m down; the other point 1 m right.
    pixel, depth = project_points(scan.xyz[1:3], camera.from_scan, camera.intrinsics)
    np.testing.assert_allclose(depth, (9, 9), atol=1e-5)
    expected = [(32, 24 + 41 / 9), (32 + 40 / 9, 24 + 41 * 1.7 / 9)]
    np.testing.assert_allclose(pixel, expected, atol=1e-4)
    pixel, depth = project_points(scan.xyz[6:], scan.camera("back_camera").from_scan, np.eye(3))
    np.testing.assert_allclose(depth, 21, atol=1e-5)
    np.testing.assert_allclose(pixel, [(0, -1.2 / 21)], atol=1e-6)


def test_splits_follow_the_latitude(pristine, world):
    assert PandaSet(pristine, split="train").scene_names == ("002",)
    assert PandaSet(pristine, split="val").scene_names == ("101",)
    both = PandaSet(pristine, split="all")
    assert [both.scene_of(index) for index in range(4)] == ["002", "002", "101", "101"]
    # Scenes without labels are in neither, unless nobody has any.
    shutil.rmtree(world / "101/annotations/semseg")
    with pytest.raises(DataError, match="no scan of split 'val'"):
        PandaSet(world, split="val")
    shutil.rmtree(world / "002/annotations")
    assert PandaSet(world, split="val").scene_names == ("101",)


def test_annotations_may_be_absent(world):
    shutil.rmtree(world / "002/annotations/semseg")
    scan = PandaSet(world, split="all")[0]
    assert (scan.labels, len(scan.boxes)) == (None, 3)
    shutil.rmtree(world / "002/annotations")
    dataset = PandaSet(world, split="all")
    assert (dataset[0].labels, dataset[0].boxes, dataset[0].instance) == (None, None, None)
    assert dataset.load_labels(0) is dataset.load_boxes(0) is None


def test_annotations_are_left_out_on_request(pristine):
    dataset = PandaSet(pristine, labels=False)
    scan = dataset[0]
    assert (scan.labels, scan.boxes, scan.instance) == (None, None, None)
    assert dataset.load_labels(0) is dataset.load_boxes(0) is None
    assert len(scan.cameras) == 2


def test_absent_image_means_no_camera(world):
    (world / "002/camera/back_camera/01.jpg").unlink()
    assert [len(scan.cameras) for scan in PandaSet(world)] == [2, 1]
    shutil.rmtree(world / "002/camera")
    assert [len(scan.cameras) for scan in PandaSet(world)] == [0, 0]


def test_ids_as_texts_and_ids_of_the_scene(world):
    """The documentation speaks of texts; what an id means is said by the scene itself."""
    raw = np.array([str(int(k)) for k in WORLD[:, 6]], object)
    write_frame(world / "002/annotations/semseg/00.pkl.gz", {"class": raw})
    assert PandaSet(world)[0].labels[0] == label("road")
    names = {str(k): name for k, name in RAW_NAMES.items()} | {"7": "Bus"}
    write_json(world / "002/annotations/semseg/classes.json", names)
    assert PandaSet(world)[0].labels[0] == label("bus")


def test_smallest_of_nested_boxes(world):
    sizes = {f"dimensions.{axis}": [30.0, 0.8, 0.8, 0.2] for axis in "xyz"}
    write_frame(world / "002/annotations/cuboids/00.pkl.gz", cuboid_columns(**sizes))
    assert PandaSet(world)[0].instance.tolist() == [1, 1, 1, 2, 2, 1, 0]


# --- damage


def test_other_roots(tmp_path, world):
    with pytest.raises(DataError, match="holds nuScenes, not PandaSet; read it as nuscenes"):
        PandaSet(write_nuscenes(tmp_path / "other"))
    with pytest.raises(DataError, match=r"/002 is not the root of PandaSet; pass .*/pandaset$"):
        PandaSet(world / "002")
    with pytest.raises(FileNotFoundError, match=r"panda does not exist; did you mean .*pandaset"):
        PandaSet(world.parent / "panda")


def test_unknown_split_and_sensors(pristine):
    with pytest.raises(ValueError, match=r"got 'vall'; did you mean 'val'\?"):
        PandaSet(pristine, split="vall")
    with pytest.raises(ValueError, match="sensors must be one of both, pandar64, pandargt"):
        PandaSet(pristine, sensors="pandar46")


def rewrite(name, **changes):
    """Damage of a table of the first frame; None drops a column."""
    tables = {
        "lidar": PLAIN,
        "annotations/semseg": {"class": WORLD[:, 6].astype(np.int64)},
        "annotations/cuboids": cuboid_columns(),
    }
    columns = {k: v for k, v in (tables[name] | changes).items() if v is not None}
    return lambda scene: write_frame(scene / name / "00.pkl.gz", columns)


def text(name, content):
    if not isinstance(content, str):
        content = json.dumps(content)
    return lambda scene: (scene / name).write_text(content)


def spoil(values, row, value):
    values = np.array(values)
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (rewrite("lidar", d=None), r"lidar/00\.pkl\.gz: has no column 'd'"),
        (rewrite("lidar", **{k: v[:0] for k, v in PLAIN.items()}), "scan holds no point"),
        (
            rewrite("lidar", y=spoil(PLAIN["y"], 3, np.nan)),
            "1 of 7 rows have NaN or infinite values, the first is row 3 in column 'y'",
        ),
        (rewrite("lidar", x=spoil(PLAIN["x"], 0, 1e30)), r"a point lies beyond 1e\+06 m"),
        (rewrite("lidar", d=spoil(PLAIN["d"], 2, 5)), "column 'd' must be 0 .* row 2 has 5;"),
        (rewrite("lidar", i=np.array(["a"] * 7, object)), "columns x, y, .* are not numbers"),
        (rewrite("lidar", i=np.ones(7, dtype=bool)), "column 'i' holds no numbers"),
        (rewrite("annotations/semseg", **{"class": None}), "has no column 'class'"),
        (
            rewrite("annotations/semseg", **{"class": np.ones(9, np.int64)}),
            r"semseg/00\.pkl\.gz: 9 labels for 7 points",
        ),
        (
            rewrite("annotations/semseg", **{"class": np.full(7, 43)}),
            "7 labels are no class of this dataset, the first at index 0 is 43",
        ),
        (
            rewrite("annotations/semseg", **{"class": np.full(7, -1)}),
            "class ids must be whole numbers from 0, got int64 from -1",
        ),
        (
            rewrite("annotations/semseg", **{"class": np.full(7, 7.5)}),
            r"class ids must be whole numbers from 0, got float64 from 7\.5",
        ),
        (
            rewrite("annotations/semseg", **{"class": np.array([7.0] * 7, object)}),
            "class ids must be whole numbers from 0, got object from 7",
        ),
        (
            rewrite("annotations/semseg", **{"class": np.array(["Car"] * 7, object)}),
            "class ids are no whole numbers",
        ),
        (rewrite("annotations/cuboids", yaw=None), r"cuboids/00\.pkl\.gz: has no column 'yaw'"),
        (
            rewrite("annotations/cuboids", label=np.array(["Car", "Kar", "Bus", "Bus"], object)),
            "'Kar' is no class of PandaSet; the nearest is 'Car'",
        ),
        (
            rewrite("annotations/cuboids", **{"dimensions.z": np.array([1.0, 0.0, 1.0, 1.0])}),
            "a cuboid has a side that is not above 0 m",
        ),
        (
            rewrite("annotations/cuboids", **{"cuboids.sensor_id": np.array([0, 1, 2, -1])}),
            "cuboids.sensor_id must be -1, 0 or 1",
        ),
        (
            rewrite("annotations/cuboids", uuid=np.array(["a", "b", 3, "d"], object)),
            "column 'uuid' must hold 4 texts",
        ),
        (
            rewrite("annotations/cuboids", yaw=np.array([0, np.inf, 0, 0])),
            "the first is row 1 in column 'yaw'",
        ),
        (lambda scene: (scene / "lidar/00.pkl.gz").write_bytes(b""), r"the file was cut off"),
        (
            lambda scene: (scene / "annotations/cuboids/00.pkl.gz").unlink(),
            r"cuboids/00\.pkl\.gz: table is missing",
        ),
        (
            lambda scene: (scene / "annotations/semseg/00.pkl.gz").unlink(),
            r"semseg/00\.pkl\.gz: table is missing",
        ),
        (text("camera/back_camera/00.jpg", "no image"), r"00\.jpg: not an image"),
    ],
)
def test_damaged_frames(world, damage, reason):
    damage(world / "002")
    dataset = PandaSet(world)
    with pytest.raises(DataError, match=reason):
        dataset[0]
    assert len(dataset[1]) == 7


def test_frame_without_points_of_a_sensor(world):
    rewrite("lidar", d=PLAIN["d"] * 0)(world / "002")
    with pytest.raises(DataError, match="has no point of pandargt; drop the scan or read both"):
        PandaSet(world, sensors="pandargt")[0]


POSES = [pose((0, 0, 0), np.eye(3))]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (text("lidar/poses.json", "["), r"lidar/poses\.json: not JSON"),
        (text("lidar/poses.json", "[" * 100_000), r"poses\.json: not JSON"),
        (text("lidar/poses.json", {"0": POSES}), r"poses\.json: not a list"),
        (text("lidar/poses.json", [{"position": 3}] * 3), "entry 0 has no position x, y, z"),
        (
            text("lidar/poses.json", [POSES[0] | {"heading": dict.fromkeys("wxyz", "1")}] * 3),
            "entry 0 has no position x, y, z and heading w, x, y, z in numbers",
        ),
        (
            text("lidar/poses.json", [POSES[0] | {"heading": dict.fromkeys("wxyz", 1)}] * 3),
            "a pose is not finite or its heading no unit quaternion",
        ),
        (
            text("lidar/poses.json", [POSES[0] | {"position": {"x": 1e999, "y": 0, "z": 0}}] * 3),
            "a pose is not finite",
        ),
        (lambda scene: (scene / "lidar/poses.json").unlink(), r"poses\.json: file is missing"),
        (text("lidar/timestamps.json", [1, "2", 3]), "not a list of finite times"),
        (text("lidar/timestamps.json", [1, float("nan"), 3]), "not a list of finite times"),
        (text("annotations/semseg/classes.json", {"7": "Rod"}), "'Rod' is no class of PandaSet"),
        (text("annotations/semseg/classes.json", {"x": "Road"}), "'x': 'Road' is no id with a"),
        (text("annotations/semseg/classes.json", {"999": "Road"}), "'999': 'Road' is no id"),
        (text("annotations/semseg/classes.json", []), "not a table of class names by id"),
        (
            lambda scene: (scene / "annotations/semseg/classes.json").unlink(),
            r"classes\.json: file is missing",
        ),
        (text("meta/gps.json", []), "first entry has no latitude 'lat' in degrees"),
        (text("meta/gps.json", [{"lat": "37.7"}]), "first entry has no latitude"),
        (text("meta/gps.json", [{"lat": 377.0}]), "first entry has no latitude"),
        (text("lidar/copy.pkl.gz", ""), r"copy\.pkl\.gz: name is not a frame number of 2 digits"),
    ],
)
def test_damaged_scenes(world, damage, reason):
    damage(world / "101")
    with pytest.raises(DataError, match=reason):
        PandaSet(world, split="val")
    defects = []
    with pytest.raises(DataError, match="has no scan of split 'val'"):
        PandaSet(world, split="val", on_defect=defects.append)
    assert len(defects) == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (text("camera/front_camera/intrinsics.json", {"fx": 40.0}), "needs numbers fx, fy, cx, cy"),
        (
            text("camera/front_camera/intrinsics.json", {"fx": -4, "fy": 4, "cx": 1, "cy": 1}),
            r"front_camera/intrinsics\.json: needs numbers",
        ),
        (text("camera/front_camera/intrinsics.json", 7), "needs numbers"),
        (text("camera/front_camera/poses.json", POSES), "1 entries, none for frame 01"),
        (
            lambda scene: (scene / "camera/front_camera/poses.json").unlink(),
            r"front_camera/poses\.json: file is missing",
        ),
    ],
)
def test_damaged_cameras_are_left_out(world, damage, reason):
    damage(world / "002")
    with pytest.raises(DataError, match=reason):
        PandaSet(world)
    defects = []
    dataset = PandaSet(world, on_defect=defects.append)
    assert len(defects) == 1
    assert [camera.name for camera in dataset.cameras(1)] == ["back_camera"]


@pytest.mark.parametrize("name", ["poses", "timestamps"])
def test_frames_without_pose_or_time_are_left_out(world, name):
    file = world / f"002/lidar/{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:1]))
    with pytest.raises(DataError, match=rf"{name}\.json: 1 entries, none for frame 01"):
        PandaSet(world)
    defects = []
    dataset = PandaSet(world, split="all", on_defect=defects.append)
    assert [scan.name for scan in dataset] == ["002/00", "101/00", "101/01"]
    assert len(defects) == 1
