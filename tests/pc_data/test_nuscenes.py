import json
import pickle

import numpy as np
import pytest
from pc_data.check import check_dataset
from pc_data.errors import DataError
from pc_data.readers import nuscenes_rows
from pc_data.readers import nuscenes_splits as splits
from pc_data.readers.nuscenes import CLASS_NAMES, NuScenes, split_scenes
from pc_geometry import project_points

from tests.pc_data.tiny_worlds import (
    NUM_POINTS,
    edit_rows,
    write_json,
    write_nuscenes,
    write_semantic_kitti,
)
from tests.real_data import REAL_DATA, needs_real_data


@pytest.fixture
def world(tmp_path):
    return write_nuscenes(tmp_path / "nuscenes")


def lidar_file(root, sample="scene-0061-0"):
    return root / f"samples/LIDAR_TOP/data-{sample}-LIDAR_TOP-True.pcd.bin"


def label_file(root, sample="scene-0061-0"):
    return root / f"lidarseg/v1.0-trainval/data-{sample}-LIDAR_TOP-True_lidarseg.bin"


# --- splits


def test_splits_have_the_official_sizes():
    names = (splits.TRAIN, splits.VAL, splits.TEST, splits.MINI_TRAIN, splits.MINI_VAL)
    assert [len(set(split)) for split in names] == [700, 150, 150, 8, 2]
    assert [len(split) for split in names] == [700, 150, 150, 8, 2]


def test_splits_are_disjoint_and_sorted_and_mini_is_drawn_from_both():
    train, val, test = map(set, (splits.TRAIN, splits.VAL, splits.TEST))
    assert not train & val
    assert not train & test
    assert not val & test
    assert set(splits.MINI_TRAIN) - train == {"scene-0553", "scene-0796"} <= val
    assert set(splits.MINI_VAL) <= val
    assert list(splits.TRAIN) == sorted(splits.TRAIN)


def test_known_scenes_are_where_they_belong():
    assert {"scene-0001", "scene-0061", "scene-1110"} <= set(splits.TRAIN)
    assert {"scene-0003", "scene-0103", "scene-1073"} <= set(splits.VAL)
    assert {"scene-0077", "scene-1043"} <= set(splits.TEST)
    everything = {*splits.TRAIN, *splits.VAL, *splits.TEST}
    assert "scene-0005" in everything
    assert "scene-0040" not in everything


def test_slidr_splits_part_the_training_scenes():
    assert (len(splits.SLIDR_TRAIN), len(set(splits.SLIDR_VAL))) == (600, 100)
    assert {*splits.SLIDR_TRAIN, *splits.SLIDR_VAL} == set(splits.TRAIN)
    assert (splits.SLIDR_VAL[0], splits.SLIDR_VAL[-1]) == ("scene-0008", "scene-1107")


# --- the real keyframe


@needs_real_data
def test_real_keyframe():
    dataset = NuScenes(REAL_DATA / "nuscenes", version="v1.0-mini")
    assert len(dataset) == 1
    scan = dataset[0]
    assert scan.name == "ca9a282c9e77460f8360f564131a8af5"
    assert scan.xyz.shape == (34688, 3)
    assert scan.xyz.dtype == scan.intensity.dtype == np.float32
    assert scan.xyz.flags.c_contiguous
    assert scan.labels is None
    assert scan.timestamp == pytest.approx(1532402927.647951, abs=1e-6)
    assert (scan.intensity.min(), scan.intensity.max()) == (0, 255)
    assert dataset.scene_names == ("scene-0061",)
    # Standing on the road: the LiDAR is 1.84 m above it in the world.
    assert scan.pose[2, 3] == pytest.approx(1.84, abs=0.05)


@needs_real_data
def test_real_projection_counts_are_those_of_the_devkit():
    # The devkit keeps u and v above 1, so the border here is 1 pixel narrower than our rule's.
    expected = {
        "CAM_FRONT": 3053,
        "CAM_FRONT_LEFT": 3696,
        "CAM_FRONT_RIGHT": 3076,
        "CAM_BACK": 4820,
        "CAM_BACK_LEFT": 4089,
        "CAM_BACK_RIGHT": 3369,
    }
    scan = NuScenes(REAL_DATA / "nuscenes", version="v1.0-mini")[0]
    counts = {}
    for camera in scan.cameras:
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        u, v = pixel.T
        width, height = camera.image_size
        inside = (depth > 1) & (u > 1) & (u < width - 1) & (v > 1) & (v < height - 1)
        counts[camera.name] = int(inside.sum())
        assert camera.load_image().shape == (900, 1600, 3)
    assert counts == expected


@needs_real_data
def test_real_points_inside_the_annotated_boxes():
    """World-from-scan is right: the boxes are given in world coordinates."""
    root = REAL_DATA / "nuscenes"
    scan = NuScenes(root, version="v1.0-mini")[0]
    world = scan.xyz.astype(np.float64) @ scan.pose[:3, :3].T + scan.pose[:3, 3]
    rows = json.loads((root / "v1.0-mini/sample_annotation.json").read_text())
    for row in rows:
        w, _, _, z = row["rotation"]
        yaw = 2 * np.arctan2(z, w)
        cos, sin = np.cos(yaw), np.sin(yaw)
        local = (world - row["translation"]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        width, length, height = row["size"]
        inside = (np.abs(local) <= np.array([length, width, height]) / 2).all(1)
        assert inside.sum() == row["num_lidar_pts"]


# --- the tiny world


def test_scan_of_the_tiny_world(world):
    dataset = NuScenes(world)
    assert len(dataset) == 2
    assert [scan.name for scan in dataset] == ["scene-0061-0", "scene-0061-1"]  # by time
    scan = dataset[0]
    raw = np.fromfile(lidar_file(world), dtype="<f4").reshape(-1, 5)
    np.testing.assert_array_equal(scan.xyz, raw[:, :3])
    np.testing.assert_array_equal(scan.intensity, raw[:, 3])
    assert scan.instance is None
    assert dataset[-1].name == "scene-0061-1"
    with pytest.raises(IndexError):
        dataset[2]


def test_labels_follow_the_lidarseg_map(world):
    groups = {  # class name: raw ids, written out once more from the challenge's definition
        "pedestrian": (2, 3, 4, 6),
        "barrier": (9,),
        "traffic_cone": (12,),
        "bicycle": (14,),
        "bus": (15, 16),
        "car": (17,),
        "construction_vehicle": (18,),
        "motorcycle": (21,),
        "trailer": (22,),
        "truck": (23,),
        "driveable_surface": (24,),
        "other_flat": (25,),
        "sidewalk": (26,),
        "terrain": (27,),
        "manmade": (28,),
        "vegetation": (30,),
    }
    raw = np.arange(NUM_POINTS, dtype=np.uint8) % 32
    raw.tofile(label_file(world))
    labels = NuScenes(world)[0].labels
    assert labels.dtype == np.int64
    expected = {raw_id: CLASS_NAMES.index(name) for name, ids in groups.items() for raw_id in ids}
    assert labels.tolist() == [expected.get(raw_id, -1) for raw_id in raw.tolist()]


def test_camera_chain_accounts_for_the_motion_between_sensors(world):
    front, back = NuScenes(world)[0].cameras
    assert (front.name, back.name) == ("CAM_FRONT", "CAM_BACK")
    # LiDAR at x = 1 on the vehicle; camera at x = 1.5, and 0.5 m further when it fires.
    point = np.float32([[10, 0, 0]])
    pixel, depth = project_points(point, front.from_scan, front.intrinsics)
    assert depth[0] == pytest.approx(10 - 0.5 - 0.5)
    np.testing.assert_allclose(pixel[0], (32, 24), atol=1e-4)
    left = project_points(np.float32([[10, 2, 1]]), front.from_scan, front.intrinsics)[0][0]
    assert left[0] < 32
    assert left[1] < 24
    assert project_points(point, back.from_scan, back.intrinsics)[1][0] < 0
    assert front.from_scan.dtype == np.float64


def test_pose_is_world_from_scan(world):
    np.testing.assert_allclose(NuScenes(world)[0].pose[:3, 3], (101, 200, 1.8))


def test_splits_choose_scenes(world):
    assert NuScenes(world, split="val").scene_names == ("scene-0103",)
    both = NuScenes(world, split="all")
    assert both.scene_names == ("scene-0061", "scene-0103")
    assert [both.scene_of(index) for index in range(4)] == ["scene-0061"] * 2 + ["scene-0103"] * 2
    assert len(NuScenes(world, split="mini_train")) == 2


def test_slidr_splits_choose_scenes(world):
    assert NuScenes(world, split="slidr_train").scene_names == ("scene-0061",)
    with pytest.raises(DataError, match="no keyframe of split 'slidr_val'"):
        NuScenes(world, split="slidr_val")


def test_every_split_is_known(world):
    for split in NuScenes.splits:
        names = split_scenes(split, version="v1.0-trainval")
        assert names is None if split == "all" else len(names) == len(set(names)) > 1


def test_mini_version_uses_the_mini_splits(tmp_path):
    world = write_nuscenes(tmp_path, version="v1.0-mini")
    assert NuScenes(world, version="v1.0-mini").scene_names == ("scene-0061",)
    assert NuScenes(world, version="v1.0-mini", split="val").scene_names == ("scene-0103",)


def test_without_lidarseg_there_are_no_labels(tmp_path):
    dataset = NuScenes(write_nuscenes(tmp_path, lidarseg=False))
    assert dataset[0].labels is None
    assert dataset.label_file(0) is None


def test_labels_are_left_out_on_request(world):
    assert NuScenes(world, labels=False)[0].labels is None


def test_a_missing_camera_row_drops_the_camera(world):
    table = world / "v1.0-trainval/sample_data.json"
    rows = json.loads(table.read_text())
    write_json(table, [row for row in rows if "CAM_BACK" not in row["token"]])
    assert [camera.name for camera in NuScenes(world)[0].cameras] == ["CAM_FRONT"]


def test_pickled_dataset_reads_the_same(world):
    dataset = NuScenes(world)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    np.testing.assert_array_equal(copy[1].xyz, dataset[1].xyz)


def test_rows_are_decoded_across_chunk_borders(world, monkeypatch):
    expected = [scan.name for scan in NuScenes(world, split="all")]
    monkeypatch.setattr(nuscenes_rows, "_CHUNK", 600)  # longer than a row, shorter than two
    assert [scan.name for scan in NuScenes(world, split="all")] == expected


# --- damage


def test_missing_root(world):
    with pytest.raises(FileNotFoundError, match=r"nuscenez does not exist; did you mean .*es\?"):
        NuScenes(world.parent / "nuscenez")


def test_root_of_another_dataset(tmp_path):
    root = write_semantic_kitti(tmp_path)
    with pytest.raises(DataError, match="holds SemanticKITTI, not nuScenes; read it as sem"):
        NuScenes(root)


def test_root_one_level_off(world):
    with pytest.raises(DataError, match=rf"is not the root of nuScenes; pass {world}$"):
        NuScenes(world / "v1.0-trainval")
    with pytest.raises(DataError, match=rf"is not the root of nuScenes; pass {world}$"):
        NuScenes(world.parent)


def test_empty_root(tmp_path):
    with pytest.raises(DataError, match=r"does not look like nuScenes: it holds nothing; pass"):
        NuScenes(tmp_path)


def test_unknown_version(world):
    with pytest.raises(DataError, match=r"no version 'v1.0-mini'; it has v1.0-trainval"):
        NuScenes(world, version="v1.0-mini")


def test_unknown_split(world):
    with pytest.raises(ValueError, match=r"got 'vla'; did you mean 'val'\?"):
        NuScenes(world, split="vla")


def test_empty_split(world):
    with pytest.raises(DataError, match="no keyframe of split 'test'"):
        NuScenes(world, split="test")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[{]", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        ('{"a": 1}', "not a JSON list"),
        ('[{"token"', "not a JSON list"),
        ('[{"token": ' + "9" * 5000 + "}]", "not a JSON list"),
        ("[][]", "not a JSON list .*something follows"),
    ],
)
def test_table_that_is_not_json(world, content, reason):
    (world / "v1.0-trainval/ego_pose.json").write_text(content)
    with pytest.raises(DataError, match=rf"ego_pose\.json: {reason}"):
        NuScenes(world)


def test_table_that_is_not_text(world):
    (world / "v1.0-trainval/sample.json").write_bytes(b"[\xff\xfe")
    with pytest.raises(DataError, match=r"sample\.json: not a JSON list"):
        NuScenes(world)


def test_missing_table(world):
    (world / "v1.0-trainval/sensor.json").unlink()
    with pytest.raises(DataError, match=r"sensor\.json: table is missing"):
        NuScenes(world)


def test_row_without_a_field(world):
    write_json(world / "v1.0-trainval/scene.json", [{"token": "a"}])
    with pytest.raises(DataError, match=r"scene\.json: row 0 has no field 'name'"):
        NuScenes(world)


OUTSIDE = ["../x", "/x", "//x", "///x", "\\x", "\\\\x", "a/../../b", "", "C:\\x", "..\\x", "."]


def test_names_that_stay_inside():
    for name in ("x", "a/b.png", "a//b", "a\\b", "./a", "..a/b.."):
        assert nuscenes_rows.is_inside(name)
    assert not any(map(nuscenes_rows.is_inside, OUTSIDE))


@pytest.mark.parametrize("name", OUTSIDE)
def test_file_outside_the_root(world, name):
    edit_rows(world / "v1.0-trainval/sample_data.json", filename=name)
    with pytest.raises(DataError, match=r"sample_data\.json: row .* outside the dataset's root"):
        NuScenes(world)


@pytest.mark.parametrize("name", ["../x", "//tmp/x"])
def test_label_file_outside_the_root(world, name):
    edit_rows(world / "v1.0-trainval/lidarseg.json", filename=name)
    with pytest.raises(DataError, match=rf"lidarseg\.json: file '{name}' lies outside"):
        NuScenes(world)


def test_labels_of_an_unknown_scan(world):
    edit_rows(world / "v1.0-trainval/lidarseg.json", sample_data_token="x")
    assert NuScenes(world)[0].labels is None  # they may be of another split
    with pytest.raises(DataError, match=r"lidarseg\.json: labels of x, which is no usable LIDAR"):
        NuScenes(world, split="all")


def test_dangling_sensor(world):
    edit_rows(world / "v1.0-trainval/sample_data.json", calibrated_sensor_token="x")
    with pytest.raises(DataError, match=r"names the sensor x, which calibrated_sensor\.json lacks"):
        NuScenes(world)


def test_dangling_pose(world):
    write_json(world / "v1.0-trainval/ego_pose.json", [])
    with pytest.raises(DataError, match=r"ego_pose\.json: 6 poses that sample_data\.json names"):
        NuScenes(world)


@pytest.mark.parametrize(
    "rotation", [[0, 0, 0, 0], [1, 0, 0], [float("nan"), 0, 0, 1], "x", [10**400, 0, 0, 1]]
)
def test_rotation_that_is_none(world, rotation):
    edit_rows(world / "v1.0-trainval/ego_pose.json", rotation=rotation)
    with pytest.raises(DataError, match="no rigid motion"):
        NuScenes(world)
    edit_rows(world / "v1.0-trainval/calibrated_sensor.json", rotation=rotation)
    with pytest.raises(DataError, match=r"calibrated_sensor\.json: row .* no rotation"):
        NuScenes(world)


def test_camera_without_a_matrix(world):
    edit_rows(world / "v1.0-trainval/calibrated_sensor.json", camera_intrinsic=[])
    with pytest.raises(DataError, match="no finite 3x3 camera matrix"):
        NuScenes(world)


@pytest.mark.parametrize("first", [float("nan"), 10**400, 0, -40.0])
def test_camera_matrix_without_focal_lengths(world, first):
    matrix = [[first, 0, 0], [0, 1, 0], [0, 0, 1]]
    edit_rows(world / "v1.0-trainval/calibrated_sensor.json", camera_intrinsic=matrix)
    with pytest.raises(DataError, match="no finite 3x3 camera matrix with focal lengths above 0"):
        NuScenes(world)


@pytest.mark.parametrize("matrix", [5.0, [3.0, 3.0, 3.0], [[1], [2], [3]]])
def test_camera_matrix_of_another_shape(world, matrix):
    edit_rows(world / "v1.0-trainval/calibrated_sensor.json", camera_intrinsic=matrix)
    with pytest.raises(DataError, match="no finite 3x3 camera matrix"):
        NuScenes(world)


@pytest.mark.parametrize(
    ("table", "changes", "expected"),
    [
        ("sample_data", {"filename": None}, "None as 'filename', expected str"),
        ("sample_data", {"filename": ["x"]}, r"\['x'\] as 'filename', expected str"),
        ("lidarseg", {"filename": None}, "None as 'filename', expected str"),
        ("sample_data", {"width": "7"}, "'7' as 'width', expected int"),
        ("sample_data", {"height": 1e9}, "1000000000.0 as 'height', expected int"),
        ("sample", {"token": [1]}, r"\[1\] as 'token', expected str"),
        ("sample_data", {"height": 10**30}, "gives no image size"),
        ("sample_data", {"timestamp": 10**30}, "gives the time 1000000000000000000"),
    ],
)
def test_row_with_another_type(world, table, changes, expected):
    edit_rows(world / f"v1.0-trainval/{table}.json", **changes)
    with pytest.raises(DataError, match=rf"{table}\.json: row .*{expected}"):
        NuScenes(world)
    assert not check_dataset(world).ok


def test_names_beyond_ascii(world):
    table = world / "v1.0-trainval/lidarseg.json"
    rows = json.loads(table.read_text())
    for row in rows:
        name = row["filename"].replace("scene", "szene-ö")
        (world / row["filename"]).rename(world / name)
        row["filename"] = name
    table.write_text(json.dumps(rows))
    assert NuScenes(world)[0].labels is not None


def test_camera_without_a_size(world):
    edit_rows(world / "v1.0-trainval/sample_data.json", width=0)
    with pytest.raises(DataError, match="gives no image size"):
        NuScenes(world)


def test_keyframe_without_a_scan(world):
    table = world / "v1.0-trainval/sample_data.json"
    rows = json.loads(table.read_text())
    write_json(table, [row for row in rows if "scene-0061-0-LIDAR" not in row["token"]])
    with pytest.raises(DataError, match="keyframe scene-0061-0 has no usable LIDAR_TOP row"):
        NuScenes(world)
    defects = []
    dataset = NuScenes(world, on_defect=defects.append)
    assert [scan.name for scan in dataset] == ["scene-0061-1"]
    assert len(defects) == 1


def test_truncated_scan(world):
    lidar_file(world).write_bytes(lidar_file(world).read_bytes()[:-3])
    with pytest.raises(DataError, match=r"pcd\.bin: scan has 997 bytes, not a positive multiple"):
        NuScenes(world)[0]


def test_empty_scan(world):
    lidar_file(world).write_bytes(b"")
    with pytest.raises(DataError, match="scan has 0 bytes"):
        NuScenes(world)[0]


def test_missing_scan(world):
    lidar_file(world).unlink()
    with pytest.raises(DataError, match=r"pcd\.bin: scan file is missing"):
        NuScenes(world)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scan_with_nan(world, value):
    rows = np.fromfile(lidar_file(world), dtype="<f4").reshape(-1, 5)
    rows[[7, 9], [0, 3]] = value
    rows.tofile(lidar_file(world))
    with pytest.raises(DataError, match=r"2 of 50 points have NaN .* first at index 7; fetch"):
        NuScenes(world)[0]


def test_labels_of_another_length(world):
    np.zeros(NUM_POINTS - 1, dtype=np.uint8).tofile(label_file(world))
    with pytest.raises(DataError, match=r"lidarseg\.bin: 49 labels for 50 points"):
        NuScenes(world)[0]


def test_missing_labels(world):
    label_file(world).unlink()
    with pytest.raises(DataError, match="label file is missing"):
        NuScenes(world)[0]


def test_labels_that_are_no_class(world):
    np.full(NUM_POINTS, 77, dtype=np.uint8).tofile(label_file(world))
    with pytest.raises(DataError, match=r"50 labels are no class .* index 0 is 77"):
        NuScenes(world)[0]


def test_image_that_does_not_decode(world):
    camera = NuScenes(world)[0].cameras[0]
    camera.image_file.write_bytes(b"no image")
    with pytest.raises(DataError, match="image does not decode"):
        camera.load_image()
