"""What every reader promises, on its synthetic layout and on the real sample where there is one."""

import pickle

import numpy as np
import pytest
from pc_data.augment import crop_nearest, rotate_z, thin
from pc_data.batch import to_batch
from pc_data.datasets import DataConfig, open_dataset, reader_class
from pc_data.loading import Samples, StepLoader
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points

from tests.pc_data.layouts import LAYOUTS, REAL, make_world
from tests.real_data import REAL_DATA, needs_real_data

CASES = [pytest.param((name, False), id=name) for name in LAYOUTS] + [
    pytest.param((name, True), id=f"{name}-real", marks=needs_real_data) for name in REAL
]


@pytest.fixture(scope="module", params=CASES)
def opened(request, tmp_path_factory):
    """A reader, the arguments that open it, and whether it reads a real sample."""
    name, real = request.param
    if real:
        folder, version = REAL[name]
        config = DataConfig(root=REAL_DATA / folder, name=name, version=version, split="all")
    else:
        root = make_world(name, tmp_path_factory.mktemp(name) / "world")
        config = DataConfig(root=root, name=name, split="all")
    return open_dataset(config), config, real


def test_is_a_sequence(opened):
    dataset, config, _ = opened
    names = [dataset[index].name for index in range(len(dataset))]
    assert len(set(names)) == len(names) > 0
    assert dataset[-1].name == names[-1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert dataset.split == "all" in dataset.splits
    assert dataset.root == config.root


def test_scenes(opened):
    dataset, _, _ = opened
    scenes = [dataset.scene_of(index) for index in range(len(dataset))]
    assert set(scenes) == set(dataset.scene_names)


def test_arrays(opened):
    dataset, _, _ = opened
    for index in range(min(len(dataset), 3)):
        scan = dataset[index]
        n = len(scan)
        assert n > 0
        assert scan.xyz.dtype == np.float32
        assert scan.xyz.flags.c_contiguous
        assert np.isfinite(scan.xyz).all()
        assert np.abs(scan.xyz).max() < 1000
        for values, dtype in ((scan.intensity, np.float32), (scan.time, np.float32)):
            assert values is None or (values.dtype == dtype and values.shape == (n,))
            assert values is None or np.isfinite(values).all()
        if scan.color is not None:
            assert scan.color.dtype == np.float32
            assert scan.color.min() >= 0
            assert scan.color.max() <= 1
        if scan.normal is not None:
            np.testing.assert_allclose(np.linalg.norm(scan.normal, axis=1), 1, atol=1e-4)
        if scan.labels is not None:
            assert scan.labels.dtype == np.int64
            assert -1 <= scan.labels.min() <= scan.labels.max() < dataset.num_classes
        if scan.instance is not None:
            assert scan.instance.dtype == np.int64
            assert scan.instance.min() >= 0


def test_classes(opened):
    dataset, _, _ = opened
    assert dataset.num_classes == len(dataset.class_names) == len(set(dataset.class_names))
    assert len(dataset.box_class_names) == len(set(dataset.box_class_names))
    assert dataset.intensity_std > 0


def test_parts_agree_with_the_scan(opened):
    dataset, _, _ = opened
    scan = dataset[0]
    assert dataset.scan_file(0).exists()
    np.testing.assert_array_equal(dataset.load_points(0)[:, :3].astype(np.float32), scan.xyz)
    labels = dataset.load_labels(0)
    assert (labels is None) == (scan.labels is None)
    if labels is not None:
        np.testing.assert_array_equal(labels, scan.labels)
    assert [camera.name for camera in dataset.cameras(0)] == [c.name for c in scan.cameras]


def test_reading_twice_and_elsewhere_is_the_same(opened):
    dataset, _, _ = opened
    there = pickle.loads(pickle.dumps(dataset))[0]  # noqa: S301 - as a worker gets it
    for first, second in ((dataset[0], dataset[0]), (dataset[0], there)):
        assert first.name == second.name
        np.testing.assert_array_equal(first.xyz, second.xyz)
        for one, other in zip(first.cameras, second.cameras, strict=True):
            np.testing.assert_array_equal(one.from_scan, other.from_scan)


def test_without_labels(opened):
    _, config, _ = opened
    scan = open_dataset(config, labels=False)[0]
    assert scan.labels is None
    assert scan.instance is None


def test_splits(opened):
    dataset, config, real = opened
    if real:
        return
    names = {}
    for split in ("train", "val"):
        part = open_dataset(config, split=split)
        names[split] = {part[index].name for index in range(len(part))}
    assert names["train"]
    assert names["val"]
    assert names["train"].isdisjoint(names["val"])
    assert names["train"] | names["val"] <= {dataset[k].name for k in range(len(dataset))}
    with pytest.raises(
        ValueError, match=r"split must be one of .*, got 'trian'; did you mean 'trai"
    ):
        open_dataset(config, split="trian")


def test_cameras(opened):
    dataset, _, _ = opened
    for camera in dataset[0].cameras:
        width, height = camera.image_size
        assert camera.load_image().shape == (height, width, 3)
        assert np.isclose(camera.intrinsics[2], [0, 0, 1]).all()
        assert camera.intrinsics[0, 0] > 0
        np.testing.assert_allclose(
            camera.from_scan[:3, :3] @ camera.from_scan[:3, :3].T, np.eye(3), atol=1e-4
        )


def test_some_camera_sees_points(opened):
    dataset, _, _ = opened
    scan = dataset[0]
    seen = [
        visible_points(
            *project_points(scan.xyz, camera.from_scan, camera.intrinsics),
            camera.image_size,
            min_depth=dataset.min_depth,
        ).sum()
        for camera in scan.cameras
    ]
    assert not seen or max(seen) > 50


def test_boxes(opened):
    dataset, _, _ = opened
    boxes = dataset[0].boxes
    loaded = dataset.load_boxes(0)
    assert (boxes is None) == (loaded is None) or loaded is not None
    if loaded is None or not len(loaded):
        return
    assert loaded.cuboid.shape == (len(loaded), 7)
    assert np.isfinite(loaded.cuboid).all()
    assert (loaded.cuboid[:, 3:6] > 0).all()
    assert len(loaded.track) == len(loaded.labels) == len(loaded)
    assert -1 <= loaded.labels.min() <= loaded.labels.max() < len(dataset.box_class_names)
    inside, splits = points_in_boxes(dataset[0].xyz, loaded.cuboid)
    assert (np.diff(splits) > 0).mean() > 0.5
    assert len(inside) == splits[-1]


def test_pose(opened):
    dataset, _, _ = opened
    pose = dataset[0].pose
    if pose is not None:
        assert pose.dtype == np.float64
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-5)
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])


@pytest.mark.parametrize("name", LAYOUTS)
def test_empty_and_missing_folders(tmp_path, name):
    reader = reader_class(name)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        reader(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=str(tmp_path)):
        reader(tmp_path)


def _content(loader):
    return [(batch.names, batch.xyz.numpy().tobytes()) for batch in loader]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
def test_workers_and_interruptions_change_nothing(opened):
    dataset, _, _ = opened

    def sample(scan, rng):
        scan = rotate_z(crop_nearest(thin(scan, rng), rng, max_points=500), rng)
        return to_batch(scan, scan.xyz, num_neighbors=2)

    samples = Samples([(dataset, sample)], seed=1)
    settings = {"batch_size": min(2, len(samples)), "num_steps": 5}
    one = _content(StepLoader(samples, num_workers=1, **settings))
    assert len(one) == 5
    assert _content(StepLoader(samples, num_workers=4, **settings)) == one
    assert _content(StepLoader(samples, **settings)) == one
    resumed = StepLoader(samples, num_workers=4, **settings)
    resumed.load_state_dict({"next_step": 3})  # in the middle of an epoch
    assert _content(resumed) == one[3:]
