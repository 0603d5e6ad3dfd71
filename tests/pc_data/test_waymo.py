import pickle
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pc_data.errors import DataError
from pc_data.readers import arrow
from pc_data.readers.arrow import open_table
from pc_data.readers.waymo import BOX_CLASS_NAMES, CLASS_NAMES, SPLITS, Waymo
from pc_data.readers.waymo_ranges import (
    Laser,
    column_azimuths,
    find_echoes,
    locate,
    row_inclinations,
)
from pc_data.readers.waymo_regroup import regroup_waymo
from pc_data.synthetic.scene import Scene
from pc_data.synthetic.style import TRAIN
from pc_data.synthetic.waymo import make_street_waymo
from pc_data.synthetic.waymo_sensors import extrinsics, look_around
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points

SEED = 3
SHAPES = {1: (64, 400), 2: (20, 60), 3: (20, 60), 4: (20, 60), 5: (20, 60)}
TIME = "key.frame_timestamp_micros"
RETURN1 = "[LiDARComponent].range_image_return1"
POSE = "[VehiclePoseComponent].world_from_vehicle.transform"
LABEL = "[LiDARSegmentationLabelComponent].range_image_return1"
BEAMS = "[LiDARCalibrationComponent].beam_inclination.values"
PIXELS = "[LiDARPoseComponent].range_image_return1"
BOX = "[LiDARBoxComponent]"
LENS = "[CameraCalibrationComponent]"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("waymo") / "street"
    make_street_waymo(
        out,
        num_scenes=2,
        seed=SEED,
        frames_per_scene=2,
        image_size=(64, 48),
        top_shape=SHAPES[1],
        short_shape=SHAPES[2],
        label_every=2,
    )
    return out


@pytest.fixture
def copy(world, tmp_path):
    return shutil.copytree(world, tmp_path / "street")


def table_file(root, component, split="training"):
    (file,) = (root / split / component).glob("*.parquet")
    return file


def edit(file, change):
    """Rewrite a table through a function of its columns as lists."""
    table = pq.read_table(file)
    columns = table.to_pydict()
    change(columns)
    fields = [table.schema.field(name) for name in columns if name in table.schema.names]
    pq.write_table(pa.table({f.name: columns[f.name] for f in fields}, pa.schema(fields)), file)


# --- the writer


def test_layout_is_the_official_one(world):
    names = "camera_calibration camera_image lidar lidar_box lidar_calibration "
    names += "lidar_camera_projection lidar_pose lidar_segmentation vehicle_pose"
    for split in ("training", "validation"):
        assert sorted(path.name for path in (world / split).iterdir()) == names.split()
    assert sorted(path.name for path in world.iterdir()) == ["training", "validation"]
    schema = pq.read_schema(table_file(world, "lidar"))
    assert str(schema.field("key.laser_name").type) == "int8"
    assert str(schema.field(TIME).type) == "int64"
    assert schema.field(f"{RETURN1}.values").type.value_type == pa.float32()
    schema = pq.read_schema(table_file(world, "lidar_segmentation"))
    assert schema.field(f"{LABEL}.values").type.value_type == pa.int32()


def test_same_seed_same_bytes(tmp_path):
    for name in ("one", "two"):
        make_street_waymo(
            tmp_path / name,
            num_scenes=1,
            seed=1,
            frames_per_scene=1,
            image_size=(32, 24),
            top_shape=(8, 60),
            short_shape=(4, 20),
        )
    files = sorted((tmp_path / "one").rglob("*.parquet"))
    assert len(files) == 9
    for file in files:
        again = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"image_size": (8, 8)}, "image_size must be at least"),
        ({"top_shape": (1, 100)}, r"top_shape must have at least 2 rows and columns, got \(1"),
        ({"short_shape": (4, 0)}, "short_shape must have at least 2"),
        ({"label_every": 0}, "label_every must be at least 1, got 0"),
    ],
)
def test_requests_that_are_refused(tmp_path, option, reason):
    with pytest.raises(ValueError, match=reason):
        make_street_waymo(tmp_path / "out", num_scenes=1, seed=0, **option)


# --- range images


def test_points_of_a_range_image_by_hand():
    """Four columns look at 135, 45, -45 and -135 degrees; row 0 is the upper beam."""
    laser = Laser(np.eye(4), (-0.2, 0.2), np.zeros(0))
    np.testing.assert_allclose(np.degrees(column_azimuths(laser, 4)), [135, 45, -45, -135])
    np.testing.assert_allclose(row_inclinations(laser, 2), [0.1, -0.1])
    image = np.full((2, 4, 4), -1.0, np.float32)
    image[0, 1] = 2, 0.5, 0.25, -1
    image[1, 3] = 10, 0.5, 0.25, -1
    echoes = find_echoes(image, laser=1, number=1, file=Path("lidar"))
    assert echoes.pixel.tolist() == [1, 7]
    flat = np.sqrt(0.5) * np.cos(0.1)
    expected = [[2 * flat, 2 * flat, 2 * np.sin(0.1)], [-10 * flat, -10 * flat, -10 * np.sin(0.1)]]
    np.testing.assert_allclose(locate(echoes, laser), expected, atol=1e-12)


def test_columns_belong_to_the_vehicle_and_beams_are_listed_lowest_first():
    """A LiDAR that is mounted a quarter to the left: the same columns, in the vehicle's frame."""
    turned = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    laser = Laser(turned, (0.0, 0.0), np.array([-0.3, 0.0]))
    np.testing.assert_allclose(row_inclinations(laser, 2), [0.0, -0.3])
    image = np.full((2, 4, 4), -1.0, np.float32)
    image[0, 1, 0] = np.sqrt(2)
    points = locate(find_echoes(image, laser=1, number=1, file=Path("lidar")), laser)
    np.testing.assert_allclose(points, [[1 + 1, 1 + 2, 3]], atol=1e-7)


def test_pixel_poses_against_matrices():
    """World-from-vehicle of each pixel is Rz(yaw) Ry(pitch) Rx(roll) and a shift."""
    rng = np.random.default_rng(0)
    image = rng.uniform(1, 50, (3, 5, 4)).astype(np.float32)
    laser = Laser(np.eye(4), (-0.3, 0.1), np.zeros(0))
    echoes = find_echoes(image, laser=1, number=1, file=Path("lidar"))
    poses = rng.uniform(-2, 2, (15, 6))
    frame = np.eye(4)
    frame[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    frame[:3, 3] = 5, -3, 1
    found = locate(echoes, laser, pixel_pose=poses, pose=frame)
    for point, (roll, pitch, yaw, *shift), came in zip(
        locate(echoes, laser), poses, found, strict=True
    ):
        x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
        y = np.array(
            [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
        )
        z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        expected = np.linalg.inv(frame) @ [*(z @ y @ x @ point + shift), 1]
        np.testing.assert_allclose(came, expected[:3], atol=1e-9)


@pytest.mark.parametrize(("frame", "index"), [(0, 0), (1, 1)])
def test_points_are_the_simulated_ones(world, frame, index):
    scene = Scene(TRAIN, seed=(SEED, 0, 0), duration=0.5)
    mounts = extrinsics(SEED, 0)["lidar"]
    views = [
        look_around(
            scene,
            number,
            mount=mounts[number - 1],
            shape=shape,
            time=0.5 * frame,
            seed=(SEED, 0, frame, number),
        )
        for number, shape in SHAPES.items()
    ]
    expected = np.concatenate([view.xyz[k] for k in range(2) for view in views])
    assert len(views[0].xyz[1]) > 100  # second returns
    scan = Waymo(world)[index]
    assert len(scan) == len(expected) > 20_000
    assert np.linalg.norm(scan.xyz - expected, axis=1).max() < 0.01
    top = Waymo(world, lidars="top")[index]
    parts = np.concatenate([view.xyz[0] for view in views[:1]] + [views[0].xyz[1]])
    assert np.linalg.norm(top.xyz - parts, axis=1).max() < 0.01


# --- scans


def test_classes_are_those_of_the_challenge():
    official = "CAR TRUCK BUS OTHER_VEHICLE MOTORCYCLIST BICYCLIST PEDESTRIAN SIGN TRAFFIC_LIGHT "
    official += "POLE CONSTRUCTION_CONE BICYCLE MOTORCYCLE BUILDING VEGETATION TREE_TRUNK CURB "
    official += "ROAD LANE_MARKER OTHER_GROUND WALKABLE SIDEWALK"  # raw ids 1 to 22
    assert official.lower().split() == list(CLASS_NAMES)
    assert Waymo.num_classes == 22
    assert BOX_CLASS_NAMES == ("vehicle", "pedestrian", "sign", "cyclist")  # raw types 1 to 4


def test_scan(world):
    dataset = Waymo(world, split="all")
    assert len(dataset) == 4
    assert len(dataset.scene_names) == 2
    scan = dataset[0]
    assert scan.name == f"{dataset.scene_of(0)}/1550000000000000"
    assert scan.timestamp == 1.55e9
    assert dataset[1].timestamp - scan.timestamp == pytest.approx(0.5)
    assert dataset.scan_file(0) == table_file(world, "lidar")
    points = dataset.load_points(0)
    assert points.shape == (len(scan), 5)
    np.testing.assert_array_equal(points[:, :3], scan.xyz)
    np.testing.assert_array_equal(points[:, 3], scan.intensity)
    assert 0 <= points[:, 3].min() < points[:, 3].max() <= 20
    assert np.linalg.norm(scan.xyz[:, :2], axis=1).max() < 80
    with pytest.raises(IndexError):
        dataset[4]
    assert dataset[-1].name == dataset[3].name


def test_labels_belong_to_the_roof_and_to_some_frames(world):
    dataset = Waymo(world)
    assert dataset.labelled().tolist() == [0]
    both = Waymo(world, split="all")
    has_labels = [both.load_labels(index) is not None for index in range(len(both))]
    assert both.labelled().tolist() == np.flatnonzero(has_labels).tolist()
    assert len(set(map(both.scene_of, both.labelled()))) == 2
    assert dataset.load_labels(1) is None
    assert (dataset[1].labels, dataset[1].instance) == (None, None)
    scan = dataset[0]
    np.testing.assert_array_equal(scan.labels, dataset.load_labels(0))
    rows = pq.read_table(table_file(world, "lidar_segmentation")).to_pylist()
    assert [row["key.laser_name"] for row in rows] == [1]
    ranges = pq.read_table(table_file(world, "lidar")).to_pylist()[0]
    met = np.array(ranges[f"{RETURN1}.values"]).reshape(*SHAPES[1], 4)[..., 0] > 0
    name = "[LiDARSegmentationLabelComponent].range_image_return1.values"
    instance, raw = np.array(rows[0][name]).reshape(*SHAPES[1], 2)[met].T
    np.testing.assert_array_equal(scan.labels[: met.sum()], raw - 1)
    np.testing.assert_array_equal(scan.instance[: met.sum()], instance)
    top = Waymo(world, lidars="top")[0]
    assert (top.labels >= 0).mean() > 0.95
    assert (scan.labels >= 0).sum() == (top.labels >= 0).sum()
    bare = Waymo(world, labels=False)[0]
    assert (bare.labels, bare.instance, bare.boxes) == (None, None, None)


def test_boxes_agree_with_labels(world):
    scan = Waymo(world, lidars="top")[0]
    assert len(scan.boxes) == len(set(scan.boxes.track)) > 10
    assert {0, 1} <= set(scan.boxes.labels.tolist())
    kinds = {
        "vehicle": {"car", "truck", "bus", "other_vehicle", "motorcyclist", "motorcycle"},
        "pedestrian": {"pedestrian"},
        "cyclist": {"bicyclist"},
    }
    for kind, classes in kinds.items():
        chosen = scan.boxes.labels == BOX_CLASS_NAMES.index(kind)
        inside, _ = points_in_boxes(scan.xyz, scan.boxes.cuboid[chosen])
        same = np.isin(scan.labels[inside], [CLASS_NAMES.index(name) for name in classes])
        assert same.sum() > 10
        assert same.mean() > 0.7


def test_still_points_of_two_frames_coincide_in_the_world(world):
    from scipy.spatial import cKDTree

    first, second = (Waymo(world, lidars="top")[index] for index in range(2))
    still = np.isin(first.labels, [CLASS_NAMES.index(k) for k in ("building", "pole")])
    moved = [
        scan.xyz.astype(float) @ scan.pose[:3, :3].T + scan.pose[:3, 3] for scan in (first, second)
    ]
    apart = cKDTree(second.xyz).query(first.xyz[still])[0]
    together = cKDTree(moved[1]).query(moved[0][still])[0]
    assert np.median(together) < 0.8 * np.median(apart)


def test_cameras(world):
    dataset = Waymo(world)
    scan = dataset[0]
    names = ["FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT"]
    assert [camera.name for camera in scan.cameras] == names
    assert scan.camera("FRONT").load_image().shape == (48, 64, 3)
    assert scan.camera("SIDE_LEFT").load_image().shape == (33, 64, 3)
    ahead = {"FRONT": (1, 0), "FRONT_LEFT": (1, 1), "SIDE_RIGHT": (0, -1)}
    for name, (x, y) in ahead.items():
        spot = scan.camera(name).from_scan @ [20 * x, 20 * y, 2, 1]
        assert spot[2] > 15
        assert np.abs(spot[:2]).max() < 3
    up = scan.camera("FRONT").from_scan @ [20, 0, 8, 1]
    assert up[1] < -3  # y is down


def test_projections_agree_with_the_cameras(world):
    dataset = Waymo(world)
    scan, given = dataset[1], dataset.camera_projections(1)
    assert given.camera.shape == (len(scan), 2)
    for number, camera in enumerate(scan.cameras, start=1):
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        chosen = given.camera[:, 0] == number
        assert chosen.sum() > 50
        apart = np.abs(pixel[chosen] - given.pixel[chosen, 0])
        assert np.median(apart) < 0.6  # whole pixels are stored
        seen = visible_points(pixel, depth, camera.image_size, min_depth=0.2)
        assert (given.camera == number).any(1)[seen].all()
        assert seen.sum() > 0.9 * (given.camera == number).sum()  # the last pixel is not `seen`


def test_boxes_land_where_the_dataset_sees_their_points(world):
    dataset = Waymo(world, lidars="top")
    scan, given = dataset[0], dataset.camera_projections(0)
    vehicle = scan.boxes.cuboid[scan.boxes.labels == 0]
    inside, splits = points_in_boxes(scan.xyz, vehicle)
    hits = []
    for number, camera in enumerate(scan.cameras, start=1):
        centre, depth = project_points(
            vehicle[:, :3].astype(np.float32), camera.from_scan, camera.intrinsics
        )
        for box in np.flatnonzero(visible_points(centre, depth, camera.image_size, min_depth=1.0)):
            mine = inside[splits[box] : splits[box + 1]]
            pixel = given.pixel[mine[given.camera[mine, 0] == number], 0]
            if len(pixel) > 20:
                low, high = pixel.min(0) - 3, pixel.max(0) + 3
                hits.append(((low <= centre[box]) & (centre[box] <= high)).all())
    assert len(hits) >= 2
    assert np.mean(hits) > 0.8  # others hide a part of some


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_row_groups_may_have_any_size(world, copy, rows):
    for component in ("lidar", "lidar_pose", "camera_image", "lidar_segmentation"):
        file = table_file(copy, component)
        pq.write_table(pq.read_table(file), file, row_group_size=rows)
    for index in range(2):
        first, second = Waymo(world)[index], Waymo(copy)[index]
        np.testing.assert_array_equal(first.xyz, second.xyz)
        np.testing.assert_array_equal(first.cameras[2].load_image(), second.cameras[2].load_image())


def test_regrouped_frames(copy, tmp_path):
    for component in ("lidar", "lidar_pose", "camera_image"):
        file = table_file(copy, component)
        pq.write_table(pq.read_table(file), file)
    assert pq.read_metadata(table_file(copy, "lidar")).num_row_groups == 1
    out, steps = tmp_path / "again", []
    files = list(copy.rglob("*.parquet"))
    assert regroup_waymo(copy, out, progress=lambda *step: steps.append(step)) == len(files)
    assert steps[-1] == (len(files), len(files))
    assert sorted(path.relative_to(out) for path in out.rglob("*.*")) == sorted(
        path.relative_to(copy) for path in files
    )
    for file in files:
        assert pq.read_table(out / file.relative_to(copy)).equals(pq.read_table(file))
    assert pq.read_metadata(table_file(out, "lidar")).num_row_groups == 2
    np.testing.assert_array_equal(Waymo(out)[1].xyz, Waymo(copy)[1].xyz)
    table_file(out, "lidar").unlink()
    assert regroup_waymo(copy, out) == 1


def test_regrouping_refuses(copy, tmp_path):
    with pytest.raises(ValueError, match="out must lie outside"):
        regroup_waymo(copy, copy / "again")
    table_file(copy, "lidar").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        regroup_waymo(copy, tmp_path / "again")
    assert not list((tmp_path / "again").rglob("*.partial*"))
    assert not list((tmp_path / "again/training").glob("lidar/*"))


def test_rows_may_be_in_any_order(world, copy):
    file = table_file(copy, "lidar")
    table = pq.read_table(file)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), file)
    np.testing.assert_array_equal(Waymo(world)[1].xyz, Waymo(copy)[1].xyz)


def test_a_reader_and_its_cameras_can_be_pickled(world):
    dataset = Waymo(world)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    np.testing.assert_array_equal(again[0].xyz, dataset[0].xyz)
    camera = pickle.loads(pickle.dumps(dataset.cameras(0)[1]))  # noqa: S301
    np.testing.assert_array_equal(camera.load_image(), dataset.cameras(0)[1].load_image())


def test_what_may_be_absent(copy):
    for component in ("lidar_box", "camera_image", "camera_calibration", "lidar_segmentation"):
        shutil.rmtree(copy / "training" / component)
    dataset = Waymo(copy)
    scan = dataset[0]
    assert (scan.boxes, scan.cameras, scan.labels) == (None, (), None)
    assert dataset.labelled().size == 0
    assert dataset.label_file(0) is None


def test_a_laser_without_second_returns(world, copy):
    def change(columns):
        for part in ("values", "shape"):
            columns[f"[LiDARComponent].range_image_return2.{part}"] = [None] * len(
                columns["key.laser_name"]
            )

    edit(table_file(copy, "lidar"), change)
    first, second = Waymo(world)[0], Waymo(copy)[0]
    np.testing.assert_array_equal(first.xyz[: len(second)], second.xyz)
    assert 0 < len(first) - len(second) < 0.3 * len(first)
    np.testing.assert_array_equal(first.labels[: len(second)], second.labels)


def test_splits(world):
    assert SPLITS["val"] == ("validation",)
    assert Waymo(world, split="val").scene_names == Waymo(world, split="all").scene_names[1:]
    with pytest.raises(DataError, match=r"no frame of split 'test' \(testing/lidar/\*\.parquet\)"):
        Waymo(world, split="test")
    with pytest.raises(ValueError, match=r"got 'vla'; did you mean 'val'"):
        Waymo(world, split="vla")
    with pytest.raises(ValueError, match="lidars must be 'all' or 'top', got 'roof'"):
        Waymo(world, lidars="roof")


def test_roots(world, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Waymo(world / "absent")
    (tmp_path / "dataset/sequences/00").mkdir(parents=True)
    with pytest.raises(DataError, match="holds SemanticKITTI, not Waymo v2"):
        Waymo(tmp_path)


def test_pyarrow_is_an_extra(world, monkeypatch):
    def absent(name):
        raise ImportError(name) if name.startswith("pyarrow") else import_module(name)

    monkeypatch.setattr(arrow, "import_module", absent)
    arrow._open_version.cache_clear()
    with pytest.raises(ImportError, match=r"install the extra pc-data\[parquet\]"):
        Waymo(world)


# --- damage


def cell(column, row, value):
    """Set one entry; a function gets the old one."""

    def change(columns):
        old = columns[column][row]
        columns[column][row] = value(old) if callable(value) else value

    return change


def poked(place, value):
    """Replace one number of a list."""

    def change(values):
        values = list(values)
        values[place] = value
        return values

    return change


@pytest.mark.parametrize(
    ("component", "change", "reason"),
    [
        ("vehicle_pose", cell(POSE, 0, poked(0, 2.0)), "holds no rigid transforms"),
        ("vehicle_pose", cell(POSE, 0, poked(3, np.nan)), "NaN or infinite"),
        ("vehicle_pose", cell(POSE, 0, None), "1 entries are absent"),
        ("vehicle_pose", cell(TIME, 1, 1_550_000_000_000_000), "time stamp occurs twice"),
        ("vehicle_pose", cell("key.segment_context_name", 0, "other"), "holds .*other.*, not"),
        ("vehicle_pose", lambda columns: columns.pop(POSE), "no column .*transform'"),
        ("lidar", cell(f"{RETURN1}.shape", 0, [64, 401, 4]), r"102400 values for shape \(64, 401"),
        ("lidar", cell(f"{RETURN1}.shape", 0, [2**20, 2**20, 4]), "values for shape"),
        ("lidar", cell(f"{RETURN1}.shape", 0, [64, 800, 2]), "holds no image"),
        ("lidar", cell(f"{RETURN1}.shape", 0, [-64, -400, 4]), "values for shape"),
        ("lidar", cell(f"{RETURN1}.values", 0, poked(0, np.nan)), "laser 1 holds NaN"),
        ("lidar", cell(f"{RETURN1}.values", 0, poked(0, np.inf)), "NaN or infinite"),
        ("lidar", cell(f"{RETURN1}.values", 2, None), "no range image of laser SIDE_LEFT"),
        ("lidar", cell("key.laser_name", 1, 1), r"lasers \[1, 1, 3, 4, 5\]"),
        ("lidar", cell("key.laser_name", 1, 9), r"lasers \[1, 9, 3, 4, 5\]"),
        ("lidar", cell(TIME, 0, 0), "no range image of laser TOP"),
        ("lidar", lambda columns: columns.pop(f"{RETURN1}.values"), "no column"),
        ("lidar_pose", cell(f"{PIXELS}.values", 0, lambda old: [np.nan] * len(old)), "NaN or"),
        ("lidar_pose", cell(f"{PIXELS}.shape", 0, [400, 64, 6]), r"image of \(400, 64\) pixels"),
        ("lidar_pose", cell(TIME, 0, 0), "no poses of laser TOP"),
        ("lidar_calibration", cell(BEAMS, 0, poked(3, 7.0)), "do not rise"),
        ("lidar_calibration", cell("key.laser_name", 0, 7), r"calibrates lasers \[7, 2, 3"),
        ("lidar_segmentation", cell(f"{LABEL}.values", 0, lambda old: [23] * len(old)), "no class"),
        ("lidar_segmentation", cell(f"{LABEL}.values", 0, lambda old: [-1] * len(old)), "no class"),
        ("lidar_segmentation", cell(f"{LABEL}.shape", 0, [400, 64, 2]), "for a range image"),
        ("lidar_box", cell(f"{BOX}.type", 0, 9), "type is not 0 to 4"),
        ("lidar_box", cell(f"{BOX}.box.center.x", 0, None), "entries are absent"),
        ("lidar_box", cell(f"{BOX}.box.size.z", 0, 0.0), "side is not above 0"),
        ("lidar_box", cell(f"{BOX}.box.heading", 0, np.nan), "NaN or infinite"),
        ("lidar_box", cell("key.laser_object_id", 0, None), "other things than texts"),
        ("camera_calibration", cell(f"{LENS}.intrinsic.f_u", 0, 0.0), "focal length"),
        ("camera_calibration", cell(f"{LENS}.extrinsic.transform", 0, poked(15, 0)), "no rigid"),
        ("camera_calibration", cell("key.camera_name", 4, 1), "a camera occurs twice"),
        ("camera_image", cell("key.camera_name", 0, 2), "camera 2 at .* occurs twice"),
    ],
)
def test_damaged_tables(copy, component, change, reason):
    file = table_file(copy, component)
    edit(file, change)
    with pytest.raises(DataError, match=rf"{component}/{file.stem}\.parquet: .*{reason}"):
        Waymo(copy)[0]


@pytest.mark.parametrize("values", [[["a"]] * 5, [3.0] * 5, [[[1.0]]] * 5, [[None]] * 5])
def test_beams_of_another_type(copy, values):
    file = table_file(copy, "lidar_calibration")
    table = pq.read_table(file)
    place = table.column_names.index(BEAMS)
    pq.write_table(table.set_column(place, BEAMS, pa.array(values)), file)
    with pytest.raises(DataError, match="beam inclinations of laser 1 do not rise"):
        Waymo(copy)[0]


def test_beams_of_another_image(copy):
    edit(table_file(copy, "lidar_calibration"), cell(BEAMS, 0, [0.0, 0.1]))
    with pytest.raises(DataError, match=r"lidar/.*: 64 rows for 2 beams of laser TOP"):
        Waymo(copy)[0]


@pytest.mark.parametrize("component", ["lidar", "lidar_pose", "vehicle_pose", "lidar_calibration"])
def test_missing_table(copy, component):
    file = table_file(copy, component)
    dataset = Waymo(copy)
    file.unlink()
    with pytest.raises(DataError, match=r"table is missing|no frame of split"):
        Waymo(copy)[0]
    if component != "vehicle_pose":
        with pytest.raises(DataError, match=r"\.parquet: table is missing; restore it"):
            dataset[0]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<html>404</html>" * 100])
def test_files_that_are_no_tables(copy, content):
    table_file(copy, "lidar").write_bytes(content)
    with pytest.raises(DataError, match=r"lidar/.*parquet: not a Parquet file .*fetch it again"):
        Waymo(copy)[0]


def test_truncated_table(copy):
    file = table_file(copy, "lidar")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match="not a Parquet file"):
        Waymo(copy)[0]


def test_overwritten_pages(copy):
    file = table_file(copy, "lidar")
    content = bytearray(file.read_bytes())
    content[100:20_000] = bytes(19_900)
    file.write_bytes(content)
    with pytest.raises(DataError, match="table is damaged"):
        Waymo(copy)[0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda old: old[:200], r"image does not decode"),
        (b"", "image does not decode"),
        (None, "row 0 holds no image"),
    ],
)
def test_damaged_image(copy, value, reason):
    edit(table_file(copy, "camera_image"), cell("[CameraImageComponent].image", 0, value))
    camera = Waymo(copy).cameras(0)[0]
    with pytest.raises(DataError, match=rf"camera_image/\S+\.parquet: {reason}"):
        camera.load_image()


def test_table_that_lost_rows_under_an_open_reader(copy):
    file = table_file(copy, "camera_image")
    camera = Waymo(copy).cameras(1)[4]
    pq.write_table(pq.read_table(file).slice(0, 5), file)
    with pytest.raises(DataError, match="no row 9, the table has 5; open the dataset again"):
        camera.load_image()


def test_damaged_projection(copy):
    name = "[LiDARCameraProjectionComponent].range_image_return1.values"
    edit(table_file(copy, "lidar_camera_projection"), cell(name, 0, lambda old: [7] * len(old)))
    with pytest.raises(DataError, match="a camera is not 0 to 5"):
        Waymo(copy).camera_projections(0)


def test_defects_are_told_and_the_segment_left_out(copy):
    edit(table_file(copy, "vehicle_pose"), cell(POSE, 0, poked(0, 2.0)))
    defects = []
    dataset = Waymo(copy, split="all", on_defect=defects.append)
    assert len(dataset) == 2
    assert len(defects) == 1
    assert "no rigid transforms" in defects[0]
    assert dataset.scene_names == Waymo(copy, split="val").scene_names


def test_open_files_are_few(world):
    arrow._open_version.cache_clear()
    dataset = Waymo(world, split="all")
    for index in range(len(dataset)):
        dataset[index]
    assert arrow._open_version.cache_info().currsize <= 16
    file = table_file(world, "lidar")
    assert open_table(file) is open_table(file)
