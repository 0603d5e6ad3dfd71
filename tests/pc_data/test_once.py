import json
import shutil

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.once import BOX_CLASS_NAMES, CAMERAS, SPLITS, Once
from pc_data.synthetic.once import PANDAR_40P, make_street_once
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("once") / "street"
    make_street_once(out, num_scenes=2, seed=4, frames_per_scene=2, image_size=(64, 48))
    return out


@pytest.fixture
def copy(world, tmp_path):
    return shutil.copytree(world, tmp_path / "street")


def table_file(root, name="000000"):
    return root / "data" / name / f"{name}.json"


def edit(root, change):
    """Change the table of the training sequence."""
    file = table_file(root)
    table = json.loads(file.read_bytes())
    change(table)
    file.write_text(json.dumps(table))


# --- the writer


def test_sensor():
    """The beams of a Pandar40P: 40 of them, a third of a degree apart from -6 to 2 degrees."""
    beams = PANDAR_40P.elevation
    assert len(beams) == 40
    assert (np.diff(beams) > 0).all()
    assert (beams[0], beams[-1]) == (-25, 15)
    np.testing.assert_allclose(np.diff(beams[(beams >= -6) & (beams <= 2)]), 1 / 3)


def test_layout_is_the_official_one(world):
    assert (world / "ImageSets/train.txt").read_text() == "000000\n"
    assert (world / "ImageSets/val.txt").read_text() == "000001\n"
    folder = world / "data/000000"
    assert {path.name for path in folder.iterdir()} == {"000000.json", "lidar_roof", *CAMERAS}
    table = json.loads(table_file(world).read_bytes())
    frames = [frame["frame_id"] for frame in table["frames"]]
    assert [f"{frame}.bin" for frame in frames] == sorted(
        path.name for path in (folder / "lidar_roof").iterdir()
    )
    assert set(table["calib"]) == set(CAMERAS)
    assert set(table["calib"]["cam01"]) == {"cam_to_velo", "cam_intrinsic", "distortion"}
    assert len(table["frames"][0]["pose"]) == 7


def test_same_seed_same_bytes(world, tmp_path):
    make_street_once(
        tmp_path / "again", num_scenes=2, seed=4, frames_per_scene=2, image_size=(64, 48)
    )
    for file in sorted(path for path in world.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / file.relative_to(world)).read_bytes() == file.read_bytes()


def test_images_too_small(tmp_path):
    with pytest.raises(ValueError, match="image_size must be at least 16 x 16"):
        make_street_once(tmp_path / "out", num_scenes=1, seed=0, image_size=(8, 8))


# --- scans


def test_scan(world):
    dataset = Once(world, split="all")
    assert len(dataset) == 4
    assert dataset.scene_names == ("000000", "000001")
    scan = dataset[1]
    assert scan.name == "000000/1616000000500"
    assert scan.timestamp == 1616000000.5
    raw = np.fromfile(dataset.scan_file(1), "<f4").reshape(-1, 4)
    np.testing.assert_array_equal(scan.xyz, raw[:, :3])
    np.testing.assert_array_equal(scan.intensity, raw[:, 3])
    assert len(scan) > 30_000
    assert 0 <= scan.intensity.min() < scan.intensity.max() <= 255
    assert (scan.labels, scan.instance, dataset.load_labels(1)) == (None, None, None)
    assert dataset.scene_of(2) == "000001"
    with pytest.raises(IndexError):
        dataset[4]
    assert dataset[-1].name == dataset[3].name


def test_frame_is_left_back_up(world):
    """The car drives forward, which is -y; the ground lies about 1.9 m below the LiDAR."""
    first, second = Once(world)[0], Once(world)[1]
    step = np.linalg.inv(first.pose) @ second.pose[:, 3]
    assert step[1] < -0.5
    assert abs(step[0]) < 0.3 * abs(step[1])
    near = np.linalg.norm(first.xyz[:, :2], axis=1) < 8
    assert np.quantile(first.xyz[near, 2], 0.05) == pytest.approx(-1.92, abs=0.3)


def test_still_points_of_two_frames_coincide_in_the_world(world):
    from scipy.spatial import cKDTree

    first, second = Once(world)[0], Once(world)[1]
    still = (np.abs(first.xyz[:, 2]) < 1) & (np.abs(first.xyz[:, 0]) > 6)  # mostly houses, trees
    moved = [
        scan.xyz.astype(float) @ scan.pose[:3, :3].T + scan.pose[:3, 3] for scan in (first, second)
    ]
    apart = cKDTree(second.xyz).query(first.xyz[still])[0]
    together = cKDTree(moved[1]).query(moved[0][still])[0]
    assert np.median(together) < 0.2
    assert np.median(together) < 0.8 * np.median(apart)


def test_boxes(world):
    dataset = Once(world)
    boxes = dataset.load_boxes(0)
    assert len(boxes) > 10
    table = json.loads(table_file(world).read_bytes())["frames"][0]["annos"]
    assert [BOX_CLASS_NAMES[label] for label in boxes.labels] == table["names"]
    np.testing.assert_array_equal(boxes.cuboid, table["boxes_3d"])
    assert set(boxes.track) == {""}
    _, splits = points_in_boxes(dataset[0].xyz, boxes.cuboid)
    counts = np.diff(splits)
    assert (np.abs(counts - table["num_points_in_gt"]) <= 3 + 0.2 * counts).all()
    assert Once(world, labels=False)[0].boxes is None
    assert dataset.labelled().tolist() == [0, 1]


def test_cameras_see_where_they_look(world):
    scan = Once(world)[0]
    assert tuple(camera.name for camera in scan.cameras) == CAMERAS
    assert scan.camera("cam05").load_image().shape == (48, 64, 3)
    spots = {  # x left, y backwards
        "cam01": (0, -20),
        "cam03": (0, -20),
        "cam05": (16, 11),
        "cam06": (16, -11),
        "cam07": (-16, -11),
        "cam08": (-16, 11),
        "cam09": (0, 20),
    }
    for name, (x, y) in spots.items():
        spot = scan.camera(name).from_scan @ [x, y, -0.3, 1]
        assert spot[2] > 17
        assert np.abs(spot[:2]).max() < 1.5
    assert (scan.camera("cam09").from_scan @ [0, 20, 5, 1])[1] < -4  # y is down


def test_boxes_land_on_their_points(world):
    scan = Once(world)[0]
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
            if seen[mine].sum() > 20:
                mine = mine[seen[mine]]
                low, high = pixel[mine].min(0) - 3, pixel[mine].max(0) + 3
                hits.append(((low <= centre[box]) & (centre[box] <= high)).all())
    assert len(hits) >= 3
    assert np.mean(hits) > 0.8  # others hide a part of some


def test_what_may_be_absent(copy):
    shutil.rmtree(copy / "data/000000/cam03")
    (copy / "data/000000/cam05/1616000000000.jpg").unlink()

    def change(table):
        del table["frames"][0]["annos"]
        table["frames"][1]["annos"] = {"names": [], "boxes_3d": []}
        table["frames"][1]["pose"] = [0] * 7
        table["frames"].reverse()
        del table["calib"]["cam09"]

    edit(copy, change)
    dataset = Once(copy)
    assert [camera.name for camera in dataset[0].cameras] == ["cam01", "cam06", "cam07", "cam08"]
    assert dataset[0].boxes is None
    assert dataset[0].pose is not None
    assert len(dataset[1].boxes) == 0
    assert dataset[1].pose is None
    assert dataset.labelled().tolist() == [1]


def test_splits(copy):
    assert Once(copy, split="val").scene_names == ("000001",)
    assert set(SPLITS) == {"train", "val", "test", "raw_small", "raw_medium", "raw_large", "all"}
    with pytest.raises(DataError, match="no frame of split 'test'"):
        Once(copy, split="test")
    with pytest.raises(DataError, match=r"raw_large\.txt: list of sequences is missing"):
        Once(copy, split="raw_large")
    (copy / "ImageSets/raw_small.txt").write_text("000001\n000000\n000777\n")  # one not fetched
    assert Once(copy, split="raw_small").scene_names == ("000000", "000001")
    (copy / "ImageSets/test.txt").rename(copy / "ImageSets/test_set.txt")
    (copy / "ImageSets/test_set.txt").write_text("000001")
    assert Once(copy, split="test").scene_names == ("000001",)
    with pytest.raises(ValueError, match=r"got 'raw_smal'; did you mean 'raw_small'"):
        Once(copy, split="raw_smal")


def test_roots(world, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"did you mean .*/street"):
        Once(world.parent / "streat")
    with pytest.raises(DataError, match="is not the root of ONCE; pass"):
        Once(world / "data")
    (tmp_path / "sequences/00").mkdir(parents=True)
    with pytest.raises(DataError, match="holds SemanticKITTI, not ONCE"):
        Once(tmp_path)


# --- damage


def set_entry(*path, value):
    def change(table):
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value

    return change


FRAME = ("frames", 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_entry("frames", value={}), "no list of frames"),
        (set_entry("frames", value=[3]), "no list of frames"),
        (set_entry(*FRAME, "frame_id", value="../../etc/passwd"), "is no number"),
        (set_entry(*FRAME, "frame_id", value="007"), "is no number"),
        (set_entry(*FRAME, "frame_id", value=None), "is no number"),
        (set_entry(*FRAME, "frame_id", value="1616000000500"), "1616000000500 occurs twice"),
        (set_entry(*FRAME, "pose", value=[0, 0, 0, 1]), r"shape \(7,\), got \(4,\)"),
        (set_entry(*FRAME, "pose", value=[0, 0, 0, 1, float("nan"), 0, 0]), "finite numbers"),
        (set_entry(*FRAME, "pose", value="here"), "holds no numbers"),
        (set_entry(*FRAME, "pose", 4, value=10**400), "holds no numbers"),
        (set_entry(*FRAME, "pose", value=[0, 0, 0, 0.3, 0, 0, 0]), "no quaternion of length 1"),
        (set_entry(*FRAME, "annos", "names", value=["Car"]), "1 names for"),
        (set_entry(*FRAME, "annos", "names", value=["Cat"]), "is a 'Cat', not one of Car"),
        (set_entry(*FRAME, "annos", "names", value=3), "no names of the boxes"),
        (set_entry(*FRAME, "annos", value=[]), "no names of the boxes"),
        (set_entry(*FRAME, "annos", "boxes_3d", value=[[1, 2, 3]]), r"got \(1, 3\)"),
        (set_entry(*FRAME, "annos", "boxes_3d", value=[[1], [1, 2]]), "holds no numbers"),
        (set_entry(*FRAME, "annos", "boxes_3d", 0, 3, value=0), "a side that is not above 0"),
        (set_entry("calib", value=[]), "no calibration"),
        (set_entry("calib", "cam06", value=[]), "calibration of cam06 is no table"),
        (set_entry("calib", "cam06", "cam_to_velo", value=[[1, 0], [0, 1]]), "cam_to_velo of cam0"),
        (set_entry("calib", "cam06", "cam_to_velo", 0, 0, value=3), "cam06 is not rigid"),
        (set_entry("calib", "cam06", "cam_intrinsic", 0, 0, value=0), "focal length"),
    ],
)
def test_damaged_tables(copy, change, reason):
    edit(copy, change)
    with pytest.raises(DataError, match=rf"000000\.json: .*{reason}"):
        Once(copy)
    defects = []
    assert len(Once(copy, split="all", on_defect=defects.append)) == 2
    assert len(defects) == 1


@pytest.mark.parametrize("content", [b"", b'{"frames": [', b"\xff\xfe", b"[" * 100_000])
def test_files_that_are_no_tables(copy, content):
    table_file(copy).write_bytes(content)
    with pytest.raises(DataError, match=r"000000\.json: not JSON"):
        Once(copy)


def test_table_that_is_missing_or_a_list(copy):
    table_file(copy).write_text("[]")
    with pytest.raises(DataError, match="no table of a sequence"):
        Once(copy)
    table_file(copy).unlink()
    with pytest.raises(DataError, match="table is missing; extract the annotations"):
        Once(copy)


def test_lists_that_leave_the_root(copy):
    (copy / "ImageSets/train.txt").write_text("000000\n../../elsewhere\n")
    with pytest.raises(DataError, match=r"train\.txt: '../../elsewhere' is no sequence's number"):
        Once(copy)


def test_damaged_scans(copy):
    dataset = Once(copy)
    file = dataset.scan_file(0)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(DataError, match="not a positive multiple of 16"):
        dataset[0]
    points = np.frombuffer(content, "<f4").copy()
    points[5] = np.nan
    file.write_bytes(points.tobytes())
    with pytest.raises(DataError, match=r"1 of .* points have NaN"):
        dataset[0]
    file.unlink()
    with pytest.raises(DataError, match="scan file is missing"):
        dataset[0]


def test_damaged_image(copy):
    file = copy / "data/000000/cam01/1616000000000.jpg"
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(DataError, match=r"\.jpg: "):
        Once(copy)[0].cameras[0].load_image()
    file.write_bytes(b"no image")
    with pytest.raises(DataError, match="not an image"):
        Once(copy)[0]
