import pickle
import shutil

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.nuscenes import CLASS_NAMES, NuScenes
from pc_data.readers.nuscenes_c import NuScenesC

from tests.lanes import unchecked_only
from tests.pc_data.tiny_nuscenes import add_panoptic, annotate
from tests.pc_data.tiny_worlds import NUM_POINTS, write_nuscenes, write_semantic_kitti


@pytest.fixture
def clean(tmp_path):
    return write_nuscenes(tmp_path / "nuscenes")


@pytest.fixture
def corrupted(clean):
    """Two conditions; every other point is lost, and a third of the rest is fog."""
    root = clean.parent / "nuScenes-C"
    for condition in ("fog/light", "snow/heavy"):
        for file in (clean / "samples/LIDAR_TOP").glob("*0103*"):
            rows = np.fromfile(file, dtype="<f4").reshape(-1, 5)[::2]
            save(root / condition / file.relative_to(clean), rows + np.eye(5)[0])
        for file in (clean / "lidarseg/v1.0-trainval").glob("*0103*"):
            raw = np.full(NUM_POINTS // 2, 17, np.uint8)
            raw[::3] = 41 if condition == "fog/light" else 42
            save(root / condition / file.relative_to(clean), raw)
    return root


def save(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    array.astype("<f4" if array.ndim == 2 else "u1").tofile(file)


def open_fog(corrupted, **changes):
    arguments = {"nuscenes_root": corrupted.parent / "nuscenes", "corruption": "fog"}
    return NuScenesC(corrupted, **arguments | {"severity": "light"} | changes)


def test_points_and_labels_are_the_corrupted_ones(clean, corrupted):
    dataset, plain = open_fog(corrupted), NuScenes(clean, split="val")
    assert len(dataset) == len(plain) == 2
    scan, expected = dataset[0], plain[0]
    assert scan.name == expected.name == "scene-0103-0"
    np.testing.assert_allclose(scan.xyz, expected.xyz[::2] + np.float32([1, 0, 0]))
    np.testing.assert_array_equal(scan.intensity, expected.intensity[::2])
    car = CLASS_NAMES.index("car")
    assert scan.labels.tolist() == [-1 if k % 3 == 0 else car for k in range(NUM_POINTS // 2)]
    assert dataset.scan_file(0).is_relative_to(corrupted / "fog/light/samples/LIDAR_TOP")
    assert dataset.label_file(0).is_relative_to(corrupted / "fog/light/lidarseg/v1.0-trainval")


def test_all_else_comes_from_nuscenes(clean, corrupted):
    annotate(clean, ("scene-0103-0", "vehicle.car", {}))
    add_panoptic(clean)  # labels of other points: not to be read
    scan = open_fog(corrupted, boxes=True)[0]
    expected = NuScenes(clean, split="val", boxes=True)[0]
    assert scan.cameras[0].load_image().shape == (48, 64, 3)
    assert [camera.image_file for camera in scan.cameras] == [
        camera.image_file for camera in expected.cameras
    ]
    np.testing.assert_array_equal(scan.pose, expected.pose)
    np.testing.assert_array_equal(scan.boxes.cuboid, expected.boxes.cuboid)
    assert scan.timestamp == expected.timestamp
    assert scan.instance is None
    assert expected.instance is not None


def test_severity_and_corruption_choose_the_folder(corrupted):
    dataset = open_fog(corrupted, corruption="snow", severity="heavy")
    assert (dataset.corruption, dataset.severity) == ("snow", "heavy")
    assert dataset.root == corrupted
    assert dataset.nuscenes_root == corrupted.parent / "nuscenes"
    assert (dataset[0].labels == -1).sum() == 9


def test_all_means_val_because_nothing_else_is_corrupted(corrupted):
    assert NuScenesC.splits == ("val", "all")
    dataset = open_fog(corrupted, split="all")
    assert dataset.split == "all"
    assert dataset.scene_names == ("scene-0103",)
    with pytest.raises(ValueError, match="split must be one of val, all, got 'train'"):
        open_fog(corrupted, split="train")


def test_without_labels(corrupted):
    assert open_fog(corrupted, labels=False)[0].labels is None


def test_pickled_dataset_reads_the_same(corrupted):
    dataset = open_fog(corrupted)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    np.testing.assert_array_equal(copy[1].xyz, dataset[1].xyz)


# --- damage


@unchecked_only
def test_unknown_condition(corrupted):
    with pytest.raises(ValueError, match=r"corruption must be one of fog, .*; did you mean 'snow'"):
        open_fog(corrupted, corruption="snowy")
    with pytest.raises(ValueError, match=r"one of light, moderate, heavy, got 'heavier'; did you"):
        open_fog(corrupted, severity="heavier")


def test_condition_that_is_not_there(corrupted):
    with pytest.raises(DataError, match=r"fog/heavy has no samples/LIDAR_TOP; .* holds fog, snow"):
        open_fog(corrupted, severity="heavy")


def test_missing_root(clean):
    with pytest.raises(FileNotFoundError, match=r"root of nuScenes-C: .*nowhere is no folder"):
        open_fog(clean.parent / "nowhere")


def test_nuscenes_of_another_kind(corrupted, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root of nuScenes: .* does not exist"):
        open_fog(corrupted, nuscenes_root=tmp_path / "nowhere")
    kitti = write_semantic_kitti(tmp_path / "kitti")
    with pytest.raises(DataError, match="holds SemanticKITTI, not nuScenes"):
        open_fog(corrupted, nuscenes_root=kitti)


def test_missing_scan(corrupted):
    shutil.rmtree(corrupted / "fog/light/samples/LIDAR_TOP")
    (corrupted / "fog/light/samples/LIDAR_TOP").mkdir()
    with pytest.raises(DataError, match=r"nuScenes-C/fog/light/.*: scan file is missing"):
        open_fog(corrupted)[0]


def test_labels_of_the_clean_scan(clean, corrupted):
    dataset = open_fog(corrupted)
    shutil.copy(NuScenes(clean, split="val").label_file(0), dataset.label_file(0))
    with pytest.raises(DataError, match=r"lidarseg\.bin: 50 labels for 25 points"):
        dataset[0]


@pytest.mark.parametrize("raw", [32, 40, 44, 255])
def test_labels_that_are_no_class(corrupted, raw):
    dataset = open_fog(corrupted)
    np.full(NUM_POINTS // 2, raw, np.uint8).tofile(dataset.label_file(0))
    with pytest.raises(DataError, match=rf"25 labels are no class .* index 0 is {raw}"):
        dataset[0]


def test_added_classes_belong_to_the_corruptions_alone(clean):
    dataset = NuScenes(clean)
    np.full(NUM_POINTS, 41, np.uint8).tofile(dataset.label_file(0))
    with pytest.raises(DataError, match="50 labels are no class"):
        dataset[0]
