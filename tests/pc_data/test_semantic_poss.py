"""SemanticPOSS: a tiny world written by hand, and the synthetic one."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.kitti_sequences import sequences_folder
from pc_data.readers.semantic_kitti import SemanticKITTI
from pc_data.readers.semantic_poss import CLASS_NAMES, SPLITS, SemanticPOSS
from pc_data.synthetic.categories import Category
from pc_data.synthetic.semantic_poss import PANDORA, RAW_ID, make_street_semantic_poss
from scipy.spatial import cKDTree

from tests.pc_data.tiny_worlds import NUM_POINTS, write_nuscenes, write_scan, write_semantic_kitti
from tests.real_data import REAL_DATA, needs_real_data

# --- the tiny world


@pytest.fixture
def world(tmp_path):
    """Two scans of each sequence, with `tag/` but without poses, times and calibration."""
    rng = np.random.default_rng(0)
    root = tmp_path / "poss"
    for name in SPLITS["all"]:
        folder = root / "dataset/sequences" / name
        for child in ("velodyne", "labels", "tag"):
            (folder / child).mkdir(parents=True)
        for frame in range(2):
            write_scan(folder / f"velodyne/{frame:06d}.bin", columns=4, rng=rng, intensity=255)
            raw = rng.choice([0, 4, 7, 9, 22], NUM_POINTS).astype("<u4")
            (raw | 3 << 16).astype("<u4").tofile(folder / f"labels/{frame:06d}.label")
    return root


def sequence(root, name="00"):
    return root / "dataset/sequences" / name


def test_classes_are_those_of_the_table(world):
    names = {
        **dict.fromkeys((4, 5), "person"),
        6: "rider",
        7: "car",
        8: "trunk",
        9: "plants",
        **dict.fromkeys((10, 11, 12), "traffic sign"),
        13: "pole",
        14: "garbage can",
        15: "building",
        16: "cone/stone",
        17: "fence",
        21: "bike",
        22: "ground",
    }
    raw = np.zeros(NUM_POINTS, dtype="<u4")
    raw[:23] = np.arange(23) | np.arange(23) << 20
    raw.tofile(sequence(world) / "labels/000000.label")
    scan = SemanticPOSS(world)[0]
    found = [CLASS_NAMES[k] if k >= 0 else None for k in scan.labels[:23]]
    assert found == [names.get(raw) for raw in range(23)]
    assert scan.instance[:23].tolist() == [16 * k for k in range(23)]
    assert len(set(names.values())) == len(CLASS_NAMES) == 13


def test_scan_of_the_tiny_world(world):
    dataset = SemanticPOSS(world)
    assert len(dataset) == 10
    scan = dataset[1]
    raw = np.fromfile(sequence(world) / "velodyne/000001.bin", dtype="<f4").reshape(-1, 4)
    np.testing.assert_array_equal(scan.xyz, raw[:, :3])
    np.testing.assert_array_equal(scan.intensity, raw[:, 3])
    assert (scan.name, scan.pose, scan.timestamp) == ("00/000001", None, 0.0)
    assert (scan.boxes, scan.cameras) == (None, ())
    assert dataset.load_boxes(0) is None
    assert dataset[-1].name == "05/000001"
    with pytest.raises(IndexError):
        dataset[10]


def test_splits(world):
    assert SemanticPOSS(world).scene_names == ("00", "01", "02", "04", "05")
    assert SemanticPOSS(world, split="val").scene_names == ("03",)
    both = SemanticPOSS(world, split="all")
    assert [both.scene_of(index) for index in range(12)] == sorted([*SPLITS["all"]] * 2)
    with pytest.raises(ValueError, match=r"got 'vall'; did you mean 'val'\?"):
        SemanticPOSS(world, split="vall")


def test_labels_are_left_out_on_request_and_where_there_are_none(world):
    dataset = SemanticPOSS(world, labels=False)
    assert (dataset[0].labels, dataset[0].instance, dataset.load_labels(0)) == (None, None, None)
    shutil.rmtree(sequence(world) / "labels")
    dataset = SemanticPOSS(world)
    assert (dataset[0].labels, dataset.label_file(0)) == (None, None)
    assert dataset[2].labels is not None


def test_poses_with_and_without_calibration(world):
    rows = ("1 0 0 0 0 1 0 0 0 0 1 0", "1 0 0 0 0 1 0 0 0 0 1 2")
    (sequence(world) / "poses.txt").write_text("\n".join(rows))
    np.testing.assert_allclose(SemanticPOSS(world)[1].pose[:3, 3], (0, 0, 2), atol=1e-12)
    # Poses of a camera that looks along the LiDAR's x.
    (sequence(world) / "calib.txt").write_text("Tr: 0 -1 0 0  0 0 -1 0.3  1 0 0 0\n")
    np.testing.assert_allclose(SemanticPOSS(world)[1].pose[:3, 3], (2, 0, 0), atol=1e-12)
    (sequence(world) / "calib.txt").write_bytes(b"\xff\xfe")
    assert SemanticPOSS(world)[1].pose is None
    (sequence(world) / "times.txt").write_text("0\n0.1\n")
    assert SemanticPOSS(world)[1].timestamp == 0.1


def test_root_may_be_the_dataset_folder_and_lack_tags(world):
    assert len(SemanticPOSS(world / "dataset")) == 10
    for folder in sequences_folder(world).glob("*/tag"):
        folder.rmdir()
    assert len(SemanticPOSS(world)) == 10


# --- damage


def test_other_roots(tmp_path, world):
    with pytest.raises(DataError, match="holds nuScenes, not SemanticPOSS; read it as nuscenes"):
        SemanticPOSS(write_nuscenes(tmp_path / "nuscenes"))
    with pytest.raises(FileNotFoundError, match=r"pos does not exist; did you mean .*/poss\?"):
        SemanticPOSS(world.parent / "pos")


def test_semantic_kitti_is_told_from_it(tmp_path):
    kitti = write_semantic_kitti(tmp_path / "kitti")
    with pytest.raises(DataError, match=r"holds SemanticKITTI, not SemanticPOSS, .*/08; read it"):
        SemanticPOSS(kitti)
    kitti = write_semantic_kitti(tmp_path / "one", sequences=("00",))
    with pytest.raises(DataError, match=r"not SemanticPOSS, which has no .*/00/image_2;"):
        SemanticPOSS(kitti)
    shutil.rmtree(kitti / "dataset/sequences/00/image_2")
    with pytest.raises(DataError, match="labels are no class of this dataset"):
        SemanticPOSS(kitti)[0]


def test_semantic_kitti_refuses_its_ids(world):
    for folder in sequences_folder(world).glob("*/tag"):
        folder.rmdir()
    with pytest.raises(DataError, match="labels are no class of this dataset"):
        SemanticKITTI(world)[0]


@needs_real_data
def test_real_semantic_kitti_is_told_from_it():
    with pytest.raises(DataError, match="holds SemanticKITTI, not SemanticPOSS"):
        SemanticPOSS(REAL_DATA / "semantickitti")


def cut(name):
    def damage(folder):
        file = folder / name
        file.write_bytes(file.read_bytes()[:-1])

    return damage


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


NAN = np.full((NUM_POINTS, 4), np.nan, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut("velodyne/000000.bin"), r"000000\.bin: scan has 799 bytes, .* multiple of 16"),
        (write("velodyne/000000.bin", b""), "scan has 0 bytes"),
        (write("velodyne/000000.bin", NAN), "50 of 50 points have NaN"),
        (cut("labels/000000.label"), r"000000\.label: 49\.75 labels for 50 points"),
        (write("labels/000000.label", bytes(4 * 52)), "52 labels for 50 points"),
        (
            write("labels/000000.label", np.full(NUM_POINTS, 23, "<u4").tobytes()),
            "50 labels are no class of this dataset, the first at index 0 is 23",
        ),
        (lambda folder: (folder / "labels/000000.label").unlink(), "label file is missing"),
    ],
)
def test_damaged_scans(world, damage, reason):
    damage(sequence(world))
    dataset = SemanticPOSS(world)
    with pytest.raises(DataError, match=reason):
        dataset[0]
    assert len(dataset[1]) == NUM_POINTS


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (write("velodyne/copy.bin", b""), r"copy\.bin: name is not a frame number of 6 digits"),
        (write("poses.txt", b"1 2 x"), r"poses\.txt: not rows of 12 numbers"),
        (write("poses.txt", b"1 0 0 0 0 1 0 0 0 0 1 0"), r"poses\.txt: 1 rows .* needs 2"),
        (write("times.txt", b"0 nan"), r"times\.txt: holds NaN or infinite numbers"),
        (write("poses.txt", b"3 0 0 0 0 1 0 0 0 0 1 0\n" * 2), r"poses\.txt: a pose is no rigid"),
        (write("calib.txt", b"Tr: 1 2 3"), r"calib\.txt: no line 'Tr:' with 12 numbers"),
        (write("calib.txt", b"Tr:" + b" 0" * 12), r"calib\.txt: Tr is no rigid motion"),
        (write("calib.txt", b"Tr: a b"), r"calib\.txt: line 'Tr' holds no numbers"),
        (write("calib.txt", b"Tr:" + b" nan" * 12), r"calib\.txt: no line 'Tr:' with 12 numbers"),
    ],
)
def test_damaged_sequences(world, damage, reason):
    damage(sequence(world, "03"))
    with pytest.raises(DataError, match=reason):
        SemanticPOSS(world, split="val")
    defects = []
    dataset = SemanticPOSS(world, split="all", on_defect=defects.append)
    assert "03" not in dataset.scene_names
    assert len(defects) == 1
    with pytest.raises(DataError, match="has no scan of split 'val'"):
        SemanticPOSS(world, split="val", on_defect=defects.append)


# --- the synthetic world


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "poss"
    make_street_semantic_poss(out, num_scenes=7, seed=5, frames_per_scene=2)
    return out


def tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(root).rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def test_street_fills_the_sequences(street):
    names = {
        path.name: len(list((path / "velodyne").iterdir()))
        for path in sequence(street, "").iterdir()
    }
    assert names == {"00": 2, "01": 2, "02": 2, "03": 4, "04": 2, "05": 2}
    assert SemanticPOSS(street, split="val").scene_names == ("03",)


def test_street_has_points_in_the_order_of_the_range_image(street):
    for file in sequence(street).glob("velodyne/*.bin"):
        tag = np.fromfile(file.parents[1] / "tag" / f"{file.stem}.tag", dtype=bool)
        points = np.fromfile(file, dtype="<f4").reshape(-1, 4).astype(float)
        assert tag.shape == (40 * 1800,)
        assert tag.sum() == len(points) > 40_000
        row, column = np.divmod(np.flatnonzero(tag), 1800)
        elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
        np.testing.assert_allclose(elevation, PANDORA.elevation[::-1][row], atol=0.01)
        azimuth = np.arctan2(points[:, 1], points[:, 0])
        turned = (np.pi - azimuth) % (2 * np.pi) / (2 * np.pi) * 1800
        off = (turned - column) % 1800  # of a column's start; the first may lie before it
        assert (np.ptp(off[(off > 0.001) & (off < 1799)])) < 0.01
        assert len(np.unique(row)) > 35


def test_street_looks_like_scans(street):
    for scan in SemanticPOSS(street, split="all"):
        assert 40_000 < len(scan) < 72_000
        near = np.linalg.norm(scan.xyz[:, :2], axis=1) < 10
        ground = scan.xyz[near & (scan.labels == CLASS_NAMES.index("ground"))]
        assert np.median(ground[:, 2]) == pytest.approx(-1.85, abs=0.3)
        shown = {CLASS_NAMES[k] for k in np.unique(scan.labels) if k >= 0}
        assert {"ground", "building", "plants", "car", "person"} <= shown
        own = scan.instance > 0
        assert {CLASS_NAMES[k] for k in np.unique(scan.labels[own]) if k >= 0}.isdisjoint(
            {"ground", "building", "plants", "trunk"}
        )
        assert len(np.unique(scan.instance)) > 10


def test_street_poses_bring_still_points_together(street):
    dataset = SemanticPOSS(street)
    first, second = dataset[0], dataset[1]
    assert second.timestamp - first.timestamp == 0.5
    assert second.pose[0, 3] > 1  # x is ahead
    own, placed = [], []
    for scan in (first, second):
        xyz = scan.xyz[scan.labels == CLASS_NAMES.index("building")].astype(float)
        own.append(xyz)
        placed.append(xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3])
    apart, together = (np.median(cKDTree(one).query(two)[0]) for one, two in (own, placed))
    assert together < 0.7 * apart


def test_streets_of_a_sequence_lie_apart(street):
    scans = list(SemanticPOSS(street, split="val"))
    assert np.linalg.norm(scans[2].pose[:3, 3] - scans[1].pose[:3, 3]) > 300
    assert set(scans[0].instance[scans[0].instance > 0]).isdisjoint(scans[2].instance)


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_street_semantic_poss(tmp_path / name, num_scenes=2, seed=seed, frames_per_scene=1)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b") != tree_hash(tmp_path / "c")


def test_every_category_has_an_official_id():
    assert set(RAW_ID.tolist()) <= {0, *range(4, 18), 21, 22}
    assert RAW_ID[Category.TRUNK] == 8


def test_requests_out_of_range(tmp_path):
    limits = "num_scenes must leave at most 405 training and 81 validation scenes"
    with pytest.raises(ValueError, match=rf"{limits} \(16-bit instances\), got 406 and 1"):
        make_street_semantic_poss(tmp_path / "x", num_scenes=407, seed=0, val_fraction=0.0)
    with pytest.raises(ValueError, match=rf"{limits} .*, got 246 and 82"):
        make_street_semantic_poss(tmp_path / "x", num_scenes=328, seed=0)
    with pytest.raises(ValueError, match="frames_per_scene must be at least 1"):
        make_street_semantic_poss(tmp_path / "x", num_scenes=1, seed=0, frames_per_scene=0)
    assert list(tmp_path.iterdir()) == []
