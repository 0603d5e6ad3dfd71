import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
from pc_data.errors import DataError
from pc_data.readers.argoverse2 import SPLITS, Argoverse2
from pc_data.readers.argoverse2_logs import CATEGORIES, RING_CAMERAS, nearest
from pc_data.synthetic.argoverse2 import CAMERAS, VLP_32C, log_name, make_street_argoverse2
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points
from pyarrow import feather

from tests.real_data import REAL_DATA, needs_real_data

SEED = 6
TIME = 315_966_000_000_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("argoverse2") / "street"
    make_street_argoverse2(
        out, num_scenes=2, seed=SEED, frames_per_scene=2, image_size=(64, 48), val_fraction=0.5
    )
    return out


@pytest.fixture
def copy(world, tmp_path):
    return shutil.copytree(world, tmp_path / "street")


def log_folder(root):
    return root / "sensor" / "train" / log_name(SEED, 0)


def edit(file, change):
    """Rewrite a table through a function of its columns as lists."""
    table = feather.read_table(file)
    columns = table.to_pydict()
    change(columns)
    fields = [table.schema.field(name) for name in columns]
    table = pa.table({field.name: columns[field.name] for field in fields}, pa.schema(fields))
    feather.write_feather(table, str(file))


# --- the real sweep


@needs_real_data
def test_real_sweep():
    dataset = Argoverse2(REAL_DATA / "argoverse2", split="val")
    assert len(dataset) == 1
    scan = dataset[0]
    assert scan.name == "adcf7d18-0510-35b0-a2fa-b4cea13a6d76/315973157959879000"
    assert scan.timestamp == pytest.approx(315973157.959879)
    assert len(scan) == 100_660
    assert len(np.unique(dataset.load_points(0)[:, 4])) == 64
    assert (scan.intensity.min(), scan.intensity.max()) == (0, 255)
    assert (scan.cameras, scan.labels) == ((), None)
    assert len(scan.boxes) == len(set(scan.boxes.track)) == 47


@needs_real_data
def test_real_boxes_hold_as_many_points_as_annotated():
    dataset = Argoverse2(REAL_DATA / "argoverse2", split="val")
    scan = dataset[0]
    file = dataset.scan_file(0).parents[2] / "annotations.feather"
    rows = feather.read_table(file).to_pylist()
    rows = [row for row in rows if row["timestamp_ns"] == 315973157959879000]
    assert [CATEGORIES[label] for label in scan.boxes.labels] == [row["category"] for row in rows]
    _, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
    assert np.diff(splits).tolist() == [row["num_interior_pts"] for row in rows]


@needs_real_data
def test_real_points_lie_on_the_ground_of_the_city():
    dataset = Argoverse2(REAL_DATA / "argoverse2", split="val")
    scan = dataset[0]
    folder = dataset.scan_file(0).parents[2] / "map"
    heights = np.load(next(folder.glob("*ground_height*.npy"))).astype(float)
    similar = json.loads(next(folder.glob("*img_Sim2_city.json")).read_text())
    city = scan.xyz.astype(float) @ scan.pose[:3, :3].T + scan.pose[:3, 3]
    turn = np.array(similar["R"]).reshape(2, 2)
    pixel = np.floor((city[:, :2] @ turn.T + similar["t"]) * similar["s"]).astype(int)
    size = np.array(heights.shape)[::-1]
    inside = ((pixel >= 0) & (pixel < size)).all(1)
    above = city[inside, 2] - heights[pixel[inside, 1], pixel[inside, 0]]
    quantiles = np.nanquantile(above, [0.01, 0.1, 0.5])
    np.testing.assert_allclose(quantiles, [-0.03, 0.03, 1.92], atol=0.02)


# --- the writer


def test_sensor():
    assert len(VLP_32C.elevation) == 32
    assert (np.diff(VLP_32C.elevation) > 0.3).all()
    assert (VLP_32C.elevation[0], VLP_32C.elevation[-1]) == (-25, 15)


def test_layout_is_the_official_one(world):
    folder = log_folder(world)
    assert {path.name for path in folder.iterdir()} == {
        "annotations.feather",
        "calibration",
        "city_SE3_egovehicle.feather",
        "sensors",
    }
    assert {path.name for path in (folder / "sensors/cameras").iterdir()} == set(RING_CAMERAS)
    table = feather.read_table(folder / f"sensors/lidar/{TIME}.feather")
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "x": "halffloat",
        "y": "halffloat",
        "z": "halffloat",
        "intensity": "uint8",
        "laser_number": "uint8",
        "offset_ns": "int32",
    }


def test_same_seed_same_bytes(world, tmp_path):
    again = tmp_path / "again"
    make_street_argoverse2(
        again, num_scenes=2, seed=SEED, frames_per_scene=2, image_size=(64, 48), val_fraction=0.5
    )
    for file in sorted(path for path in world.rglob("*") if path.is_file()):
        assert (again / file.relative_to(world)).read_bytes() == file.read_bytes()


# --- scans


def test_scan(world):
    dataset = Argoverse2(world, split="all")
    assert len(dataset) == 4
    assert len(dataset.scene_names) == 2
    scan = dataset[1]
    assert scan.name == f"{log_name(SEED, 0)}/{TIME + 500_000_000}"
    assert scan.timestamp == 315966000.5
    assert len(scan) > 60_000
    assert 0 <= scan.intensity.min() < scan.intensity.max() <= 255
    points = dataset.load_points(1)
    np.testing.assert_array_equal(points[:, :3], scan.xyz)
    assert set(np.unique(points[:, 4])) == set(range(64))
    # Both LiDARs, one of them upside down, see the ground under the axle.
    for half in (points[:, 4] < 32, points[:, 4] >= 32):
        near = half & (np.linalg.norm(points[:, :2], axis=1) < 12)
        assert np.quantile(points[near, 2], 0.05) == pytest.approx(-0.33, abs=0.25)
    assert (scan.labels, scan.instance, dataset.load_labels(1)) == (None, None, None)
    with pytest.raises(IndexError):
        dataset[4]
    assert dataset[-1].name == dataset[3].name


def test_still_points_of_two_frames_coincide_in_the_city(world):
    from scipy.spatial import cKDTree

    first, second = Argoverse2(world)[0], Argoverse2(world)[1]
    still = (np.abs(first.xyz[:, 2] - 1.5) < 1) & (np.abs(first.xyz[:, 1]) > 6)
    moved = [
        scan.xyz.astype(float) @ scan.pose[:3, :3].T + scan.pose[:3, 3] for scan in (first, second)
    ]
    apart = cKDTree(second.xyz).query(first.xyz[still])[0]
    together = cKDTree(moved[1]).query(moved[0][still])[0]
    assert np.median(together) < 0.2
    assert np.median(together) < 0.8 * np.median(apart)


def test_boxes(world):
    dataset = Argoverse2(world)
    scan = dataset[0]
    assert len(scan.boxes) == len(set(scan.boxes.track)) > 10
    assert set(scan.boxes.track) & set(dataset[1].boxes.track)
    rows = feather.read_table(log_folder(world) / "annotations.feather").to_pylist()
    rows = [row for row in rows if row["timestamp_ns"] == TIME]
    assert [CATEGORIES[label] for label in scan.boxes.labels] == [row["category"] for row in rows]
    _, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
    told = np.array([row["num_interior_pts"] for row in rows])
    assert (np.abs(np.diff(splits) - told) <= 3 + 0.3 * told).all()  # the road tilts the true boxes
    assert Argoverse2(world, labels=False)[0].boxes is None


def test_cameras(world):
    scan = Argoverse2(world)[0]
    assert tuple(camera.name for camera in scan.cameras) == RING_CAMERAS
    assert scan.camera("ring_front_center").load_image().shape == (64, 48, 3)
    assert scan.camera("ring_side_left").load_image().shape == (48, 64, 3)
    for camera in scan.cameras:
        yaw = np.radians(CAMERAS[camera.name].yaw)
        spot = camera.from_scan @ [30 * np.cos(yaw), 30 * np.sin(yaw), 1.4, 1]
        assert spot[2] > 27
        assert np.abs(spot[:2]).max() < 2
        assert (camera.from_scan @ [0, 0, 9, 1])[1] < -6  # y is down


def test_boxes_land_on_their_points(world):
    scan = Argoverse2(world)[0]
    inside, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
    hits = []
    for camera in scan.cameras:
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        seen = visible_points(pixel, depth, camera.image_size, min_depth=1.0)
        centre, ahead = project_points(
            scan.boxes.cuboid[:, :3].astype(np.float32), camera.from_scan, camera.intrinsics
        )
        for box in np.flatnonzero(visible_points(centre, ahead, camera.image_size, min_depth=1.0)):
            mine = inside[splits[box] : splits[box + 1]]
            mine = mine[seen[mine]]
            if len(mine) > 20:
                low, high = pixel[mine].min(0) - 3, pixel[mine].max(0) + 3
                hits.append(((low <= centre[box]) & (centre[box] <= high)).all())
    assert len(hits) >= 3
    assert np.mean(hits) > 0.8  # others hide a part of some


def test_nearest():
    times = np.array([10, 20, 40])
    assert [nearest(times, time) for time in (0, 10, 14, 15, 16, 39, 99)] == [
        *(10, 10, 10, 10, 20),
        *(40, 40),
    ]


def test_the_nearest_image_is_taken(copy):
    folder = log_folder(copy) / "sensors/cameras/ring_front_left"
    (own,) = folder.glob(f"{TIME - 9_100_000}.jpg")
    dataset = Argoverse2(copy)
    assert dataset.cameras(0)[1].image_file == own
    own.unlink()  # the next one is half a second away
    assert [camera.name for camera in dataset.cameras(0)] == [
        name for name in RING_CAMERAS if name != "ring_front_left"
    ]


def test_what_may_be_absent(copy):
    shutil.rmtree(log_folder(copy) / "sensors/cameras")
    shutil.rmtree(log_folder(copy) / "calibration")
    (log_folder(copy) / "annotations.feather").unlink()
    scan = Argoverse2(copy)[0]
    assert (scan.cameras, scan.boxes) == ((), None)


def test_a_sweep_without_annotations(copy):
    def change(columns):
        columns["timestamp_ns"] = [TIME] * len(columns["timestamp_ns"])

    edit(log_folder(copy) / "annotations.feather", change)
    assert len(Argoverse2(copy)[1].boxes) == 0


def test_a_reader_can_be_pickled(world):
    again = pickle.loads(pickle.dumps(Argoverse2(world)))  # noqa: S301
    np.testing.assert_array_equal(again[1].xyz, Argoverse2(world)[1].xyz)


def test_splits_and_roots(world, tmp_path):
    assert set(SPLITS) == {"train", "val", "test", "all"}
    both = Argoverse2(world, split="all").scene_names
    assert Argoverse2(world / "sensor", split="val").scene_names == both[1:]
    with pytest.raises(DataError, match="no sweep of split 'test'"):
        Argoverse2(world, split="test")
    with pytest.raises(ValueError, match="did you mean 'train'"):
        Argoverse2(world, split="trian")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Argoverse2(world / "absent")
    (tmp_path / "sequences/00").mkdir(parents=True)
    with pytest.raises(DataError, match="holds SemanticKITTI, not Argoverse 2"):
        Argoverse2(tmp_path)


# --- damage


def cell(column, row, value):
    def change(columns):
        columns[column][row] = value

    return change


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("city_SE3_egovehicle", cell("qw", 0, 7.0), "quaternion is not of length 1"),
        ("city_SE3_egovehicle", cell("tx_m", 0, np.nan), "'tx_m' has NaN or infinite"),
        ("city_SE3_egovehicle", cell("tx_m", 0, None), "1 entries are absent"),
        ("city_SE3_egovehicle", lambda columns: columns.pop("qz"), "no column 'qz'"),
        ("annotations", cell("category", 0, "UFO"), "category 'UFO' is unknown"),
        ("annotations", cell("category", 0, None), "other things than texts"),
        ("annotations", cell("length_m", 0, 0.0), "side is not above 0"),
        ("annotations", cell("qz", 0, 9.0), "quaternion is not of length 1"),
        ("calibration/intrinsics", cell("fx_px", 0, 0.0), "focal length or size"),
        ("calibration/intrinsics", cell("sensor_name", 0, "roof"), "'roof' has no place"),
        ("calibration/intrinsics", lambda columns: columns.pop("cx_px"), "no column 'cx_px'"),
        ("calibration/egovehicle_SE3_sensor", cell("ty_m", 0, np.inf), "NaN or infinite"),
        (f"sensors/lidar/{TIME}", cell("x", 5, np.nan), "'x' has NaN or infinite"),
        (f"sensors/lidar/{TIME}", lambda columns: columns.pop("intensity"), "no column 'intens"),
        (f"sensors/lidar/{TIME}", lambda columns: [c.clear() for c in columns.values()], "no poin"),
    ],
)
def test_damaged_tables(copy, file, change, reason):
    edit(log_folder(copy) / f"{file}.feather", change)
    with pytest.raises(DataError, match=rf"{file}\.feather: .*{reason}"):
        Argoverse2(copy)[0]


def test_text_that_is_none(copy):
    file = log_folder(copy) / "annotations.feather"
    table = feather.read_table(file)
    place = table.column_names.index("category")
    broken = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
    feather.write_feather(table.set_column(place, "category", broken), str(file))
    with pytest.raises(DataError, match=r"annotations\.feather: .*UTF8"):
        Argoverse2(copy)[0]


def test_two_columns_of_a_name(copy):
    file = log_folder(copy) / "annotations.feather"
    table = feather.read_table(file)
    with pa.OSFile(str(file), "wb") as sink:
        twice = table.append_column("category", table["category"])
        with pa.ipc.new_file(sink, twice.schema) as writer:
            writer.write_table(twice)
    with pytest.raises(DataError, match=r"annotations\.feather: several columns 'category'"):
        Argoverse2(copy)[0]


@pytest.mark.parametrize(
    "file",
    [
        "city_SE3_egovehicle",
        "annotations",
        "calibration/egovehicle_SE3_sensor",
        f"sensors/lidar/{TIME}",
    ],
)
@pytest.mark.parametrize("content", [b"", b"ARROW1", b"<html>404</html>" * 50, None])
def test_files_that_are_no_tables(copy, file, content):
    path = log_folder(copy) / f"{file}.feather"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(DataError, match=rf"{file}\.feather: not a Feather file .*fetch it again"):
        Argoverse2(copy)[0]


def test_missing_tables(copy):
    dataset = Argoverse2(copy)
    dataset.scan_file(0).unlink()
    with pytest.raises(DataError, match="table is missing"):
        dataset[0]
    (log_folder(copy) / "calibration/egovehicle_SE3_sensor.feather").unlink()
    (log_folder(copy) / "calibration/intrinsics.feather").unlink()
    with pytest.raises(DataError, match="table is missing"):
        dataset.cameras(0)
    (log_folder(copy) / "city_SE3_egovehicle.feather").unlink()
    with pytest.raises(DataError, match=r"city_SE3_egovehicle\.feather: table is missing"):
        Argoverse2(copy)


def test_names_that_are_no_time(copy):
    folder = log_folder(copy) / "sensors"
    (folder / "cameras/ring_rear_left/copy.jpg").touch()
    with pytest.raises(DataError, match=r"copy\.jpg: name is no time in nanoseconds"):
        Argoverse2(copy)[0]
    (folder / "lidar/00.feather").touch()
    with pytest.raises(DataError, match=r"00\.feather: name is no time"):
        Argoverse2(copy)


def test_camera_without_calibration(copy):
    def change(columns):
        for column in columns.values():
            del column[2]

    edit(log_folder(copy) / "calibration/intrinsics.feather", change)
    with pytest.raises(DataError, match="ring_front_right has images but no calibration"):
        Argoverse2(copy)[0]


def test_sweep_without_a_pose_is_a_defect(copy):
    edit(log_folder(copy) / "city_SE3_egovehicle.feather", cell("timestamp_ns", 3, 1))
    rows = feather.read_table(log_folder(copy) / "city_SE3_egovehicle.feather")
    if TIME in rows["timestamp_ns"].to_pylist():
        place = rows["timestamp_ns"].to_pylist().index(TIME)
        edit(log_folder(copy) / "city_SE3_egovehicle.feather", cell("timestamp_ns", place, 2))
    with pytest.raises(DataError, match=f"no pose at {TIME}"):
        Argoverse2(copy)
    defects = []
    assert len(Argoverse2(copy, split="all", on_defect=defects.append)) == 2
    assert len(defects) == 1


def test_damaged_image(copy):
    camera = Argoverse2(copy).cameras(0)[0]
    camera.image_file.write_bytes(camera.image_file.read_bytes()[:300])
    with pytest.raises(DataError, match="image does not decode"):
        camera.load_image()
