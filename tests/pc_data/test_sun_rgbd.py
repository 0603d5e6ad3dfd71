import io
import shutil

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.sun_rgbd import BOX_CLASS_NAMES, SunRGBD, read_boxes, read_calibration
from pc_data.synthetic.sun_rgbd import make_room_sun_rgbd
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes

from tests.real_data import REAL_DATA, needs_real_data

SETTINGS = {"num_scenes": 2, "seed": 5, "num_frames": 2, "image_size": (128, 96)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("sunrgbd") / "sunrgbd"
    make_room_sun_rgbd(out, **SETTINGS)
    return out


@pytest.fixture
def copy(world, tmp_path):
    return shutil.copytree(world, tmp_path / "sunrgbd")


def first(root, folder, suffix=".txt"):
    return root / "sunrgbd_trainval" / folder / f"000001{suffix}"


def pixel_colors(scan):
    """Colour of the pixel that each point falls on."""
    camera = scan.cameras[0]
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    assert (depth > 0).all()
    column, row = np.floor(pixel).astype(int).T
    assert min(column.min(), row.min()) >= 0
    return camera.load_image()[row, column] / 255


# --- the writer


def test_layout_is_that_of_votenet(world):
    folder = world / "sunrgbd_trainval"
    assert (folder / "train_data_idx.txt").read_text() == "1\n2\n"
    assert (folder / "val_data_idx.txt").read_text() == "3\n4\n"
    for name, suffix in (("calib", "txt"), ("image", "jpg"), ("label", "txt"), ("lidar", "npz")):
        files = sorted(path.name for path in (folder / name).iterdir())
        assert files == [f"{number:06d}.{suffix}" for number in (1, 2, 3, 4)]


def test_same_seed_same_bytes(world, tmp_path):
    make_room_sun_rgbd(tmp_path / "again", **SETTINGS)
    for file in sorted(path for path in world.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / file.relative_to(world)).read_bytes() == file.read_bytes()


def test_fewer_points(world, tmp_path):
    make_room_sun_rgbd(tmp_path / "few", **SETTINGS, num_points=100)
    whole = {tuple(row) for row in SunRGBD(world).load_points(0)}
    few = {tuple(row) for row in SunRGBD(tmp_path / "few").load_points(0)}
    assert len(few) == 100
    assert few < whole


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_points": 0}, "num_points must be at least 1"),
        ({"val_fraction": 1.0}, "val_fraction must be in"),
        ({"image_size": (8, 8)}, "image_size must be at least 16 x 16"),
    ],
)
def test_writer_refuses(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_room_sun_rgbd(tmp_path / "out", **(SETTINGS | wrong))
    assert not (tmp_path / "out").exists()


# --- scans


@pytest.mark.parametrize(
    ("split", "numbers"), [("train", (1, 2)), ("val", (3, 4)), ("all", (1, 2, 3, 4))]
)
def test_splits(world, split, numbers):
    dataset = SunRGBD(world, split=split)
    assert dataset.scene_names == tuple(f"{number:06d}" for number in numbers)
    assert [scan.name for scan in dataset] == list(dataset.scene_names)


def test_scan(world):
    scan = SunRGBD(world)[0]
    assert scan.labels is None
    assert (scan.xyz[:, 1] > 0.3).mean() > 0.9  # ahead
    assert scan.xyz[:, 2].min() < -0.8  # the camera is held above the floor
    low = scan.xyz[scan.xyz[:, 2] < scan.xyz[:, 2].min() + 0.05]
    assert len(low) > 10


def test_points_have_the_colour_of_their_pixel(world):
    for scan in SunRGBD(world, split="all"):
        apart = np.abs(pixel_colors(scan) - scan.color)
        assert np.median(apart) < 0.03  # what JPEG leaves
        camera = scan.cameras[0]
        pixel, _ = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        np.testing.assert_allclose(pixel % 1, 0.5, atol=0.05)


def test_boxes_hold_their_objects(world):
    for version in ("v1", "v2"):
        for scan in SunRGBD(world, split="all", version=version):
            _, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
            assert (np.diff(splits) > 0).mean() > 0.8
    fewer = sum(len(scan.boxes) for scan in SunRGBD(world, split="all"))
    more = sum(len(scan.boxes) for scan in SunRGBD(world, split="all", version="v2"))
    assert 0 < fewer < more


def test_front_of_a_desk_looks_away_from_its_wall(world):
    """A box's length is its depth, its heading that of its front: desks are wider than deep."""
    found = 0
    for scan in SunRGBD(world, split="all", version="v2"):
        wide = np.isin(scan.boxes.labels, [BOX_CLASS_NAMES.index(n) for n in ("desk", "sofa")])
        found += np.count_nonzero(wide)
        assert (scan.boxes.cuboid[wide, 4] > scan.boxes.cuboid[wide, 3]).all()
    assert found


def test_classes_are_votenets():
    assert len(BOX_CLASS_NAMES) == 10
    assert (BOX_CLASS_NAMES[0], BOX_CLASS_NAMES[7], BOX_CLASS_NAMES[9]) == (
        "bed",
        "night_stand",
        "bathtub",
    )


def test_without_labels_or_image(copy):
    first(copy, "image", ".jpg").unlink()
    dataset = SunRGBD(copy, labels=False)
    assert dataset[0].boxes is None
    assert dataset[0].cameras == ()
    assert len(dataset[1].cameras) == 1


def test_unknown_version(world):
    with pytest.raises(ValueError, match="version must be one of v1, v2, got '3'"):
        SunRGBD(world, version="3")


@pytest.mark.parametrize(
    "place",
    [
        "points/{}.bin",
        "sunrgbd_pc_bbox_votes_50k_v1_train/{}_pc.npz",
        "sunrgbd_pc_bbox_votes_50k_v1_val/{}_pc.npz",
    ],
)
def test_points_elsewhere(copy, place):
    """As MMDetection3D and VoteNet store them, the latter as float64."""
    before = SunRGBD(copy).load_points(0)
    for name in ("000001", "000002"):
        old = copy / "sunrgbd_trainval/lidar" / f"{name}.npz"
        points = np.load(old)["pc"]
        old.unlink()
        file = copy / place.format(name)
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".bin":
            points.tofile(file)
        else:
            np.savez_compressed(file, pc=points.astype(np.float64))
    dataset = SunRGBD(copy)
    assert dataset.scan_file(0) == copy / place.format("000001")
    np.testing.assert_array_equal(dataset.load_points(0), before)


def test_order_is_that_of_the_list(copy):
    file = copy / "sunrgbd_trainval/train_data_idx.txt"
    file.write_text("2\n1\n77\n")
    assert SunRGBD(copy).scene_names == ("000002", "000001")  # 77 was not fetched


# --- by hand


def test_boxes_by_hand(tmp_path):
    file = tmp_path / "000001.txt"
    file.write_text(
        "night_stand 5.7e+02 2.7e+02 9 9 1 2 3 0.2 0.5 0.3 0 2\n"
        "coffee cup 1 2 3 4 1 2 3 1 1 1 1 -1\n"
    )
    boxes = read_boxes(file)
    np.testing.assert_allclose(
        boxes.cuboid,
        [[1, 2, 3, 1, 0.4, 0.6, np.pi / 2], [1, 2, 3, 2, 2, 2, -np.pi / 4]],
    )
    assert boxes.labels.tolist() == [7, -1]


def test_no_boxes(tmp_path):
    file = tmp_path / "000001.txt"
    file.touch()
    assert read_boxes(file).cuboid.shape == (0, 7)


def test_calibration_by_hand(tmp_path):
    """A camera that looks 30 degrees down; pixel 1 of MATLAB is 0.5 here."""
    c, s = np.cos(np.pi / 6), 0.5
    file = tmp_path / "000001.txt"
    file.write_text(f"1 0 0 0 {c} {-s} 0 {s} {c}\n500 0 0 0 510 0 320.5 240.5 1\n")
    intrinsics, from_scan = read_calibration(file)
    np.testing.assert_array_equal(intrinsics, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_allclose(from_scan @ [0, c, -s, 1], [0, 0, 1, 1], atol=1e-12)  # ahead
    np.testing.assert_allclose(from_scan @ [1, 0, 0, 1], [1, 0, 0, 1], atol=1e-12)  # right
    assert (from_scan @ [0, 0, 1, 1])[1] < 0  # what is up is up in the image


# --- the real sample


@needs_real_data
def test_real_points_have_exactly_the_colour_of_their_pixel():
    scan = SunRGBD(REAL_DATA / "sunrgbd", split="all")[0]
    assert len(scan) == 50_000
    assert scan.cameras[0].image_size == (730, 530)
    np.testing.assert_allclose(pixel_colors(scan), scan.color, atol=1e-6)


@needs_real_data
def test_real_boxes():
    for version, labels in (("v1", [0, 7, -1, -1, 6]), ("v2", [0, 7, -1, -1, 6, -1])):
        scan = SunRGBD(REAL_DATA / "sunrgbd", split="all", version=version)[0]
        assert scan.boxes.labels.tolist() == labels
        _, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
        counts = np.diff(splits)
        assert counts[[0, 2, 4]].tolist() == pytest.approx([3071, 6873, 12893], abs=5)
        swapped = scan.boxes.cuboid[:, [0, 1, 2, 4, 3, 5, 6]]
        _, splits = points_in_boxes(scan.xyz, swapped)
        assert np.diff(splits).sum() < 0.7 * counts.sum()


@needs_real_data
def test_real_sample_has_no_lists():
    with pytest.raises(DataError, match=r"train_data_idx.txt: list of the split is missing"):
        SunRGBD(REAL_DATA / "sunrgbd")


# --- damage


def npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def bad_points(value, column):
    points = np.full((5, 6), 0.5, dtype=np.float32)
    points[3, column] = value
    return npz(pc=points)


CALIB = b"1 0 0 0 1 0 0 0 1\n500 0 0 0 510 0 320.5 240.5 1\n"
LABEL = b"bed 1 2 3 4 1 2 3 1 1 1 1 0\n"
DAMAGE = [
    ("lidar", b"", "not a NumPy archive"),
    ("lidar", npz(pc=np.zeros((0, 6), np.float32)), "holds no points"),
    ("lidar", npz(pc=np.zeros((5, 4), np.float32)), "rows have 4 values"),
    ("lidar", npz(pc=np.zeros((5, 6), np.int64)), "no array pc"),
    ("lidar", npz(other=np.zeros((5, 3), np.float32)), r"000001.npz: "),
    ("lidar", bad_points(np.nan, 0), "1 of 5 points are not finite .* index 3"),
    ("lidar", bad_points(np.inf, 5), "1 of 5 points are not finite"),
    ("lidar", bad_points(255.0, 4), "colour outside 0..1"),
    ("calib", b"", "not two lines of 9 numbers"),
    ("calib", CALIB[:-1], "its last line has no end; it was cut off"),
    ("calib", CALIB[:18] + b"\n", "not two lines of 9 numbers"),
    ("calib", CALIB.replace(b"500", b"-5"), "second line is no camera matrix"),
    ("calib", CALIB.replace(b"510", b"nan"), "second line is no camera matrix"),
    ("calib", b"2" + CALIB[1:], "first line is no rotation"),
    ("calib", b"1e300" + CALIB[1:], "first line is no rotation"),
    ("label_v1", LABEL[:-1], "its last line has no end; it was cut off"),
    ("label_v1", LABEL[4:], "line 1 is no class with 12 numbers"),
    ("label_v1", LABEL + b"bed 1 2\n", "line 2 is no class with 12 numbers"),
    ("label_v1", b"bed 1 2 3 4 1 nan 3 1 1 1 1 0\n", "line 1 is no class with 12 numbers"),
    ("label_v1", b"bed 1 2 3 4 1 2 3 0 1 1 1 0\n", "side that is not above 0 or no heading"),
    ("label_v1", b"bed 1 2 3 4 1 2 3 1 1 1 0 0\n", "side that is not above 0 or no heading"),
    ("image", b"hello", "not an image"),
]


@pytest.mark.parametrize(("folder", "content", "message"), DAMAGE)
def test_damage(copy, folder, content, message):
    suffix = {"lidar": ".npz", "image": ".jpg"}.get(folder, ".txt")
    first(copy, folder, suffix).write_bytes(content)
    dataset = SunRGBD(copy)
    with pytest.raises(DataError, match=message) as error:
        dataset[0]
    assert str(copy) in str(error.value)


def test_missing_labels(copy):
    first(copy, "label_v1").unlink()
    with pytest.raises(DataError, match=r"label_v1/000001.txt: file is missing; extract it again"):
        SunRGBD(copy).load_boxes(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1\n../2\n", r"holds '\.\./2'"), ("1\n1\n", "twice"), ("1\n01\n", "twice"), ("x", "'x'")],
)
def test_damaged_list(copy, text, message):
    (copy / "sunrgbd_trainval/train_data_idx.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        SunRGBD(copy)
    assert len(SunRGBD(copy, split="all")) == 4


def test_empty_split(copy):
    (copy / "sunrgbd_trainval/val_data_idx.txt").write_text("")
    with pytest.raises(DataError, match="no image of split 'val'"):
        SunRGBD(copy, split="val")


def test_defects(copy):
    first(copy, "lidar", ".npz").unlink()
    (copy / "sunrgbd_trainval/calib/000002.txt").unlink()
    with pytest.raises(DataError, match="no points of image 000001; prepare them"):
        SunRGBD(copy, split="all")
    defects = []
    dataset = SunRGBD(copy, split="all", on_defect=defects.append)
    assert dataset.scene_names == ("000003", "000004")
    assert len(defects) == 2
    assert "calibration is missing" in defects[1]
