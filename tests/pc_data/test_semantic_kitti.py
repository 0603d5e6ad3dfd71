import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.semantic_kitti import CLASS_NAMES, SPLITS, SemanticKITTI
from pc_geometry import project_points
from pc_geometry.cameras import visible_points

from tests.pc_data.tiny_worlds import NUM_POINTS, write_nuscenes, write_semantic_kitti
from tests.real_data import REAL_DATA, needs_real_data


@pytest.fixture
def world(tmp_path):
    return write_semantic_kitti(tmp_path / "kitti")


def sequence(root, name="00"):
    return root / "dataset/sequences" / name


# --- the real scans


@needs_real_data
def test_real_scans():
    dataset = SemanticKITTI(REAL_DATA / "semantickitti", split="all")
    assert [scan.name for scan in dataset] == ["00/000000", "00/000001", "01/000000", "08/000000"]
    assert [len(scan) for scan in dataset] == [124668, 124605, 122829, 123389]
    assert [len(scan.cameras) for scan in dataset] == [1, 0, 0, 1]
    assert dataset.scene_names == ("00", "01", "08")
    assert dataset[0].cameras[0].image_size == (1241, 376)
    assert dataset[3].cameras[0].image_size == (1226, 370)
    assert 0 <= dataset[0].intensity.min() < dataset[0].intensity.max() <= 0.99


@needs_real_data
def test_real_label_counts():
    scan = SemanticKITTI(REAL_DATA / "semantickitti", split="val")[0]
    counts = {name: int((scan.labels == k).sum()) for k, name in enumerate(CLASS_NAMES)}
    assert counts["terrain"] == 30925
    assert counts["sidewalk"] == 30092
    assert counts["car"] == 990 + 544  # moving and parked
    assert counts["person"] == 138 + 23
    assert counts["bicycle"] == 20
    assert (scan.labels == -1).sum() == 4458 + 1652 + 809 + 5
    scan = SemanticKITTI(REAL_DATA / "semantickitti")[0]
    assert (scan.labels == CLASS_NAMES.index("road")).sum() == 34228 + 1053  # with lane marking
    assert len(np.unique(scan.instance)) == 15


@needs_real_data
def test_real_poses_align_two_scans():
    first, second = (SemanticKITTI(REAL_DATA / "semantickitti")[index] for index in range(2))
    assert np.linalg.norm(second.pose[:3, 3] - first.pose[:3, 3]) == pytest.approx(0.67, abs=0.01)
    assert second.pose[0, 3] > 0.6  # forward is +x of the Velodyne
    assert second.timestamp - first.timestamp == pytest.approx(0.1037, abs=1e-3)


@needs_real_data
def test_real_projection_lands_on_red_car():
    """The red car of 08/000000: its points fall on pixels redder than the scene's."""
    scan = SemanticKITTI(REAL_DATA / "semantickitti", split="val")[0]
    camera = scan.cameras[0]
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    seen = visible_points(pixel, depth, camera.image_size, min_depth=0.0) & (scan.xyz[:, 0] > 1)
    assert seen.sum() == 19904
    u, v = pixel[seen].astype(int).T
    red = camera.load_image()[v, u].astype(int) @ (2, -1, -1)
    car = (scan.labels[seen] == CLASS_NAMES.index("car")) & (u < 400)
    assert car.sum() > 100
    assert np.median(red[car]) > 60 > np.median(red[~car]) + 40


# --- the tiny world


def test_labels_are_left_out_on_request(world):
    scan = SemanticKITTI(world, labels=False)[0]
    assert scan.labels is None
    assert scan.instance is None


def test_scan_of_the_tiny_world(world):
    dataset = SemanticKITTI(world)
    assert [scan.name for scan in dataset] == ["00/000000", "00/000001"]
    scan = dataset[1]
    raw = np.fromfile(sequence(world) / "velodyne/000001.bin", dtype="<f4").reshape(-1, 4)
    np.testing.assert_array_equal(scan.xyz, raw[:, :3])
    np.testing.assert_array_equal(scan.intensity, raw[:, 3])
    assert scan.timestamp == 0.1
    # The camera moved 2 m along its z, which is the Velodyne's x.
    np.testing.assert_allclose(scan.pose[:3, 3], (2, 0, 0), atol=1e-12)
    with pytest.raises(IndexError):
        dataset[2]
    assert dataset[-1].name == scan.name


def test_labels_and_instances(world):
    raw = np.zeros(NUM_POINTS, dtype=np.uint32)
    raw[:6] = [10, 252 | 3 << 16, 99, 259, 81 | 65535 << 16, 60]
    raw.tofile(sequence(world) / "labels/000000.label")
    scan = SemanticKITTI(world)[0]
    names = ["car", "car", None, "other-vehicle", "traffic-sign", "road"]
    assert scan.labels[:6].tolist() == [CLASS_NAMES.index(n) if n else -1 for n in names]
    assert scan.instance[:6].tolist() == [0, 3, 0, 0, 65535, 0]


def test_camera_is_p2_times_tr(world):
    scan = SemanticKITTI(world)[0]
    (camera,) = scan.cameras
    p2 = np.array([[40, 0, 32, 4], [0, 40, 24, 0], [0, 0, 1, 0]])
    tr = np.array([[0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, -0.3], [0, 0, 0, 1]])
    ahead = scan.xyz[:, 0] > 1
    expected = (p2 @ tr @ np.c_[scan.xyz, np.ones(len(scan))].T)[:, ahead].T
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    np.testing.assert_allclose(depth[ahead], expected[:, 2], rtol=1e-5)
    np.testing.assert_allclose(pixel[ahead], expected[:, :2] / expected[:, 2:], rtol=1e-4)


def test_absent_image_means_no_camera(world):
    assert [len(scan.cameras) for scan in SemanticKITTI(world)] == [1, 0]


def test_splits_are_those_of_the_benchmark(world):
    assert "08" not in SPLITS["train"]
    assert len(SPLITS["train"]) == 10
    assert len(SPLITS["test"]) == 11
    assert SemanticKITTI(world, split="val").scene_names == ("08",)
    both = SemanticKITTI(world, split="all")
    assert [both.scene_of(index) for index in range(4)] == ["00", "00", "08", "08"]


def test_root_may_be_the_dataset_folder(world):
    assert len(SemanticKITTI(world / "dataset")) == 2


def test_optional_files_may_be_absent(world):
    folder = sequence(world)
    for file in ("poses.txt", "times.txt"):
        (folder / file).unlink()
    (folder / "labels").rename(folder / "elsewhere")
    scan = SemanticKITTI(world)[0]
    assert (scan.pose, scan.timestamp, scan.labels, scan.instance) == (None, 0.0, None, None)


# --- damage


def test_root_of_another_dataset(tmp_path):
    root = write_nuscenes(tmp_path)
    with pytest.raises(DataError, match="holds nuScenes, not SemanticKITTI; read it as nuscenes"):
        SemanticKITTI(root)


def test_root_of_a_dataset_that_is_not_read(tmp_path):
    (tmp_path / "training/velodyne").mkdir(parents=True)
    with pytest.raises(DataError, match="holds KITTI object, not SemanticKITTI; pass a folder"):
        SemanticKITTI(tmp_path)


def test_missing_root(world):
    with pytest.raises(FileNotFoundError, match=r"kitty does not exist; did you mean .*/kitti\?"):
        SemanticKITTI(world.parent / "kitty")


def test_unknown_split(world):
    with pytest.raises(ValueError, match=r"got 'trian'; did you mean 'train'\?"):
        SemanticKITTI(world, split="trian")


def test_empty_split(world):
    with pytest.raises(DataError, match="no scan of split 'test'"):
        SemanticKITTI(world, split="test")


def test_truncated_scan(world):
    file = sequence(world) / "velodyne/000000.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"000000\.bin: scan has 799 bytes, .* multiple of 16"):
        SemanticKITTI(world)[0]


def test_labels_of_another_length(world):
    file = sequence(world) / "labels/000000.label"
    np.zeros(NUM_POINTS + 2, dtype="<u4").tofile(file)
    with pytest.raises(DataError, match=r"000000\.label: 52 labels for 50 points"):
        SemanticKITTI(world)[0]


def test_labels_that_are_no_class(world):
    file = sequence(world) / "labels/000000.label"
    np.full(NUM_POINTS, 2, dtype="<u4").tofile(file)
    with pytest.raises(DataError, match=r"000000\.label: 50 labels are no class .* is 2;"):
        SemanticKITTI(world)[0]
    np.full(NUM_POINTS, 9999, dtype="<u4").tofile(file)
    with pytest.raises(DataError, match=r"is 9999;"):
        SemanticKITTI(world)[0]


def test_scan_whose_name_is_no_number(world):
    (sequence(world) / "velodyne/copy.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"copy\.bin: name is not a frame number"):
        SemanticKITTI(world)


K = "50 0 32 0 0 50 24 0 0 0 1 0"
EYE = "1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("P2: 1 2 3\n", "no line 'P2:' with 12 numbers"),
        ("P2: " + "0 " * 12, "no line 'Tr:' with 12 numbers"),
        ("P2: a b", "line 'P2' holds no numbers"),
        ("P2: " + "0 " * 12 + "\nTr: " + "0 " * 12, "P2 has a focal length that is not above 0"),
        (f"P2: -{K}\nTr: {EYE}", "P2 has a focal length that is not above 0"),
        (f"P2: 1 2 3 4 5 6 7 8 10 10 11 12\nTr: {EYE}", "P2 .* is no camera matrix"),
        (f"P2: {K}\nTr: 3.0{EYE[1:]}", "Tr is no rigid motion"),
        (f"P2: {K}\nTr: -{EYE}", "Tr is no rigid motion"),
    ],
)
def test_damaged_calibration(world, content, reason):
    (sequence(world) / "calib.txt").write_text(content)
    with pytest.raises(DataError, match=rf"calib\.txt: {reason}"):
        SemanticKITTI(world)


def test_missing_calibration_beside_images(world):
    (sequence(world) / "calib.txt").unlink()
    with pytest.raises(DataError, match=r"calib\.txt: file is missing"):
        SemanticKITTI(world)
    defects = []
    dataset = SemanticKITTI(world, split="all", on_defect=defects.append)
    assert dataset.scene_names == ("08",)
    assert len(defects) == 1


@pytest.mark.parametrize("file", ["poses.txt", "times.txt"])
def test_damaged_poses_and_times(world, file):
    (sequence(world) / file).write_text("")
    with pytest.raises(DataError, match=rf"{file}: 0 rows .* needs 2"):
        SemanticKITTI(world)
    (sequence(world) / file).write_text("1 2 x")
    with pytest.raises(DataError, match=rf"{file}: not rows of"):
        SemanticKITTI(world)
    (sequence(world) / file).write_text("nan " * 24)
    with pytest.raises(DataError, match=rf"{file}: holds NaN or infinite numbers"):
        SemanticKITTI(world)


@pytest.mark.parametrize("first", ["7.5", "-1", "1e300"])
def test_poses_that_are_no_motions(world, first):
    (sequence(world) / "poses.txt").write_text(f"{EYE}\n{first}{EYE[1:]}\n")
    with pytest.raises(DataError, match=r"poses\.txt: a pose is no rigid motion; .* or remove it"):
        SemanticKITTI(world)
    (sequence(world) / "poses.txt").unlink()
    assert SemanticKITTI(world)[0].pose is None


def test_image_whose_header_is_damaged(world):
    (sequence(world) / "image_2/000000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000000\.png: not an image"):
        SemanticKITTI(world)[0]
