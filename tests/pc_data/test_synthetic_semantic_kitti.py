import hashlib

import numpy as np
import pytest
from pc_data.synthetic import make_street_semantic_kitti
from pc_data.synthetic.categories import KITTI_ID
from pc_data.synthetic.semantic_kitti import _LIDAR, _drive
from pc_data.synthetic.sensors import render
from PIL import Image

_SMALL = {"num_scenes": 2, "frames_per_scene": 2, "image_size": (124, 38)}


def _tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "kitti"
    make_street_semantic_kitti(out, seed=5, **_SMALL)
    return out


def _calibration(folder):
    rows = (line.split(": ") for line in (folder / "calib.txt").read_text().splitlines())
    return {key: np.array(values.split(), dtype=float).reshape(3, 4) for key, values in rows}


def _square(rows):
    return np.vstack([rows, [0, 0, 0, 1]])


def test_layout_is_the_official_one(root):
    sequences = root / "dataset" / "sequences"
    assert sorted(path.name for path in sequences.iterdir()) == ["00", "08"]
    for folder in sequences.iterdir():
        for kind, suffix in (("velodyne", "bin"), ("labels", "label"), ("image_2", "png")):
            names = sorted(path.name for path in (folder / kind).iterdir())
            assert names == [f"000000.{suffix}", f"000001.{suffix}"]
        assert set(_calibration(folder)) == {"P0", "P1", "P2", "P3", "Tr"}
        assert np.loadtxt(folder / "times.txt").tolist() == [0.0, 0.5]
        assert np.loadtxt(folder / "poses.txt").shape == (2, 12)
        with Image.open(folder / "image_2" / "000000.png") as image:
            assert image.size == (124, 38)


def test_same_seed_same_bytes_and_other_seed_other_bytes(root, tmp_path):
    make_street_semantic_kitti(tmp_path / "again", seed=5, **_SMALL)
    assert _tree_hash(tmp_path / "again") == _tree_hash(root)
    make_street_semantic_kitti(tmp_path / "other", seed=6, **_SMALL)
    assert _tree_hash(tmp_path / "other") != _tree_hash(root)


def test_scans_look_like_scans(root):
    known = set(KITTI_ID.ravel().tolist())
    for path in root.rglob("*.bin"):
        points = np.fromfile(path, "<f4").reshape(-1, 4)
        labels = np.fromfile(path.parents[1] / "labels" / f"{path.stem}.label", "<u4")
        assert len(points) == len(labels) > 80_000
        assert 0 <= points[:, 3].min() <= points[:, 3].max() < 1
        assert 0.15 < points[:, 3].mean() < 0.4
        assert 0.06 < points[:, 3].std() < 0.22
        assert set(np.unique(labels & 0xFFFF).tolist()) <= known
        assert {40, 48, 70} <= set(np.unique(labels & 0xFFFF).tolist())
        road = (labels & 0xFFFF == 40) & (np.linalg.norm(points[:, :2], axis=1) < 8)
        assert abs(np.median(points[road, 2]) + 1.73) < 0.15
        assert len(np.unique(labels >> 16)) > 10


def test_points_project_onto_pixels_of_their_class(root):
    folder = root / "dataset" / "sequences" / "00"
    calibration = _calibration(folder)
    points = np.fromfile(folder / "velodyne" / "000001.bin", "<f4").reshape(-1, 4)[:, :3]
    labels = np.fromfile(folder / "labels" / "000001.label", "<u4") & 0xFFFF
    drive = _drive(0, seed=5, num_train=1, num_frames=2, image_size=(124, 38))
    scene = drive.scene
    lidar = scene.ego_pose(0.5)
    lidar[:3, 3] += lidar[:3, :3] @ np.array(_LIDAR)
    rigid = _square(np.linalg.inv(calibration["P2"][:, :3]) @ calibration["P2"])
    picture, classes = render(
        scene.world(0.5),
        scene.look,
        scene.paving,
        scene.light,
        pose=lidar @ np.linalg.inv(rigid @ _square(calibration["Tr"])),
        intrinsics=calibration["P2"][:, :3],
        image_size=(124, 38),
    )
    with Image.open(folder / "image_2" / "000001.png") as image:
        assert (np.abs(np.asarray(image, dtype=int) - picture) > 12).mean() < 0.02
    homogeneous = np.column_stack([points, np.ones(len(points))])
    u, v, w = calibration["P2"] @ _square(calibration["Tr"]) @ homogeneous.T
    u, v = u / np.where(w > 0, w, np.nan), v / np.where(w > 0, w, np.nan)
    keep = (w > 1) & (u >= 0) & (u < 124) & (v >= 0) & (v < 38)
    shown = classes[v[keep].astype(int), u[keep].astype(int)]
    agree = (KITTI_ID[shown] == labels[keep][:, None]).any(1)
    assert keep.sum() > 5000
    assert agree.mean() > 0.85


def test_poses_bring_still_points_together(root):
    folder = root / "dataset" / "sequences" / "00"
    calibration = _calibration(folder)
    poses = [_square(row.reshape(3, 4)) for row in np.loadtxt(folder / "poses.txt")]
    to_camera = _square(calibration["Tr"])
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-6)
    clouds = []
    for k, pose in enumerate(poses):
        points = np.fromfile(folder / "velodyne" / f"{k:06d}.bin", "<f4").reshape(-1, 4)
        labels = np.fromfile(folder / "labels" / f"{k:06d}.label", "<u4") & 0xFFFF
        still = points[np.isin(labels, (50, 51, 52, 80)), :3].astype(float)
        move = np.linalg.inv(to_camera) @ pose @ to_camera
        clouds.append((still, still @ move[:3, :3].T + move[:3, 3]))
    from scipy.spatial import cKDTree

    apart = cKDTree(clouds[0][0]).query(clouds[1][0])[0]
    together = cKDTree(clouds[0][1]).query(clouds[1][1])[0]
    assert np.median(together) < 0.12
    assert np.median(together) < 0.7 * np.median(apart)


def test_a_used_folder_and_a_failure(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        make_street_semantic_kitti(tmp_path, num_scenes=1, seed=0)
    limits = "num_scenes must leave at most 810 training and 81 validation scenes"
    with pytest.raises(ValueError, match=rf"{limits} \(16-bit instances\), got 811 and 1"):
        make_street_semantic_kitti(tmp_path / "x", num_scenes=812, seed=0, val_fraction=0.0)
    with pytest.raises(ValueError, match=rf"{limits} .*, got 246 and 82"):
        make_street_semantic_kitti(tmp_path / "x", num_scenes=328, seed=0)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_street_semantic_kitti(tmp_path / "x", seed=0, progress=stop, **_SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
