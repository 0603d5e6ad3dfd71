import hashlib

import laspy
import numpy as np
import pytest
import yaml
from pc_data.files.clouds import read_cloud
from pc_data.readers.folder import Folder
from pc_data.synthetic.categories import Category
from pc_data.synthetic.folder import _CLASSES, _IGNORED, make_street_folder
from scipy.spatial import cKDTree

FORMATS = ("ply", "pcd", "npy", "bin", "las")
_SMALL = {"num_scenes": 2, "seed": 7, "frames_per_scene": 2}


def _tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    out = tmp_path_factory.mktemp("folders")
    for name in FORMATS:
        make_street_folder(out / name, format=name, **_SMALL)
    return out


@pytest.mark.parametrize("name", FORMATS)
def test_folder_and_schema(worlds, name):
    root = worlds / name
    scans = sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*.{name}"))
    places = ("train/scene_0000", "val/scene_0001")
    assert scans == [f"{place}/{frame:03d}.{name}" for place in places for frame in range(2)]
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    assert {"classes", "ignore", "intensity", "splits"} <= set(content)
    assert len(Folder(root)) == 4
    for split, scene in (("train", "train/scene_0000"), ("val", "val/scene_0001")):
        dataset = Folder(root, split=split)
        assert (len(dataset), dataset.scene_names) == (2, (scene,))
        assert dataset.class_names == tuple(_CLASSES)
        assert dataset.label_file(0) is None or name == "bin"
    intensity = np.concatenate([scan.intensity for scan in Folder(root, split="train")])
    assert intensity.mean(dtype=np.float64) == pytest.approx(dataset.intensity_mean, abs=1e-4)
    assert intensity.std(dtype=np.float64) == pytest.approx(dataset.intensity_std, abs=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_scan(worlds, name):
    expected, found = Folder(worlds / "ply")[3], Folder(worlds / name)[3]
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.instance, expected.instance)
    if name == "las":
        np.testing.assert_allclose(found.intensity / 257, expected.intensity, atol=0.51)
        apart = np.linalg.norm(np.diff(found.xyz, axis=0), axis=1)
        same = np.linalg.norm(np.diff(expected.xyz, axis=0), axis=1)
        np.testing.assert_allclose(apart, same, atol=4e-3)  # turned, in whole millimetres
        assert found.pose[0, 3] > 440_000
    else:
        np.testing.assert_array_equal(found.xyz, expected.xyz)
        np.testing.assert_array_equal(found.intensity, expected.intensity)
        assert found.pose is None


def test_classes_are_those_of_the_categories(worlds):
    raw = read_cloud(worlds / "pcd/train/scene_0000/000.pcd").labels
    labels = Folder(worlds / "pcd").load_labels(0)
    for number, members in enumerate(_CLASSES.values()):
        np.testing.assert_array_equal(labels == number, np.isin(raw, members))
    np.testing.assert_array_equal(labels == -1, np.isin(raw, _IGNORED))
    every = [category for members in _CLASSES.values() for category in members]
    assert sorted([*every, *_IGNORED]) == list(Category)


def test_scans_look_like_scans(worlds):
    for scan in Folder(worlds / "npy"):
        assert 20_000 < len(scan) < 32 * 1084
        assert 0 <= scan.intensity.min() < scan.intensity.max() <= 255
        shares = np.bincount(scan.labels + 1, minlength=12) / len(scan)
        assert shares[1] > 0.1  # road
        assert (shares[[2, 4, 7]] > 0.005).all()  # sidewalk, building, vegetation
        near = (scan.labels == 0) & (np.linalg.norm(scan.xyz[:, :2], axis=1) < 8)
        assert abs(np.median(scan.xyz[near, 2]) + 1.84) < 0.15


def _median_gap(scans):
    names = tuple(_CLASSES)
    clouds = []
    for scan in scans:
        still = np.isin(scan.labels, [names.index("building"), names.index("pole")])
        place = scan.pose[:3, 3] if scan.pose is not None else 0.0
        clouds.append(scan.xyz[still].astype(np.float64) + place)
    return np.median(cKDTree(clouds[0]).query(clouds[1])[0])


def test_map_coordinates_bring_still_points_together(worlds):
    together = _median_gap(Folder(worlds / "las", split="train"))
    apart = _median_gap(Folder(worlds / "ply", split="train"))
    assert together < 0.2
    assert together < 0.7 * apart


def test_laspy_agrees_with_our_header(worlds):
    las = laspy.read(worlds / "las/val/scene_0001/001.las")
    xyz = las.xyz
    np.testing.assert_allclose(xyz.min(0), las.header.mins, atol=1e-9)
    np.testing.assert_allclose(xyz.max(0), las.header.maxs, atol=1e-9)
    assert las.header.number_of_points_by_return[0] == len(las.points)
    assert set(np.unique(las.return_number)) == set(np.unique(las.number_of_returns)) == {1}


def test_same_seed_same_bytes_and_other_seed_other_bytes(worlds, tmp_path):
    for name in ("las", "bin"):
        make_street_folder(tmp_path / name, format=name, **_SMALL)
        assert _tree_hash(tmp_path / name) == _tree_hash(worlds / name)
    make_street_folder(tmp_path / "other", format="bin", **(_SMALL | {"seed": 8}))
    assert _tree_hash(tmp_path / "other") != _tree_hash(worlds / "bin")


def test_one_scene_is_for_training(tmp_path):
    make_street_folder(tmp_path / "one", num_scenes=1, seed=0, frames_per_scene=1)
    assert Folder(tmp_path / "one").splits == ("train", "all")


def test_requests_that_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        make_street_folder(tmp_path, num_scenes=1, seed=0)
    with pytest.raises(ValueError, match="one of ply, pcd, npy, bin, las, got 'xyz'"):
        make_street_folder(tmp_path / "x", num_scenes=1, seed=0, format="xyz")
    with pytest.raises(ValueError, match="num_scenes must be at least 1"):
        make_street_folder(tmp_path / "x", num_scenes=0, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
