import shutil

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.pointcept import PointceptScenes
from pc_data.readers.scannet import ScanNet
from pc_data.synthetic.scannet import make_room_pointcept, make_room_scannet

_SMALL = {"num_scenes": 2, "seed": 8, "voxel_size": 0.06}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("pointcept") / "scannet"
    make_room_pointcept(out, **_SMALL)
    return out


@pytest.fixture
def world(made, tmp_path):
    for file in made.rglob("*.npy"):
        target = tmp_path / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path


def room_file(root, name):
    return root / f"train/scene0000_00/{name}.npy"


def test_layout(made):
    names = sorted(path.name for path in (made / "val/scene0001_00").iterdir())
    kinds = ("color", "coord", "instance", "normal", "segment20", "segment200")
    assert names == [f"{name}.npy" for name in kinds]
    kinds = {name: np.load(room_file(made, name)).dtype.name for name in kinds}
    assert kinds == {
        "color": "uint8",
        "coord": "float32",
        "instance": "int64",
        "normal": "float32",
        "segment20": "int64",
        "segment200": "int64",
    }


def test_same_rooms_as_in_the_release_layout(made, tmp_path):
    make_room_scannet(tmp_path / "raw", num_frames=0, **_SMALL)
    for form in ("20", "200"):
        for split in ("train", "val", "all"):
            prepared = PointceptScenes(made, split=split, classes=form)
            raw = ScanNet(tmp_path / "raw", split=split, classes=form)
            assert prepared.scene_names == raw.scene_names
            assert prepared.class_names == raw.class_names
            for ours, theirs in zip(prepared, raw, strict=True):
                np.testing.assert_array_equal(ours.xyz, theirs.xyz)
                np.testing.assert_array_equal(ours.color, theirs.color)
                np.testing.assert_array_equal(ours.labels, theirs.labels)
                np.testing.assert_array_equal(ours.instance, theirs.instance)
                np.testing.assert_allclose(ours.normal, theirs.normal, atol=1e-6)


def test_parts_of_a_scan(made):
    dataset = PointceptScenes(made, split="all")
    assert dataset.scene_of(1) == dataset[-1].name == "scene0001_00"
    np.testing.assert_array_equal(dataset.load_labels(0), dataset[0].labels)
    points = dataset.load_points(0)
    np.testing.assert_array_equal(points, np.c_[dataset[0].xyz, dataset[0].color])
    assert (dataset.load_boxes(0), dataset.cameras(0)) == (None, ())
    assert dataset.scan_file(0) == room_file(made, "coord")
    with pytest.raises(IndexError):
        dataset[2]
    scan = PointceptScenes(made, labels=False)[0]
    assert (scan.labels, scan.instance) == (None, None)
    assert scan.instance is None


def test_rooms_without_labels(world):
    for name in ("segment20", "segment200", "instance", "normal", "color"):
        room_file(world, name).unlink()
    scan = PointceptScenes(world)[0]
    assert (scan.labels, scan.instance, scan.normal, scan.color) == (None, None, None, None)
    assert len(scan) > 1000


def test_a_column_of_labels(world):
    """Earlier versions stored [n 1]."""
    file = room_file(world, "segment20")
    labels = np.load(file)
    np.save(file, labels[:, None])
    np.testing.assert_array_equal(PointceptScenes(world)[0].labels, labels)


def test_wrong_arguments(made, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean 'train'\?"):
        PointceptScenes(made, split="trian")
    with pytest.raises(ValueError, match="classes must be one of 20, 200, got '21'"):
        PointceptScenes(made, classes="21")
    with pytest.raises(DataError, match="no room of split 'test'"):
        PointceptScenes(made, split="test")
    with pytest.raises(DataError, match="does not look like Pointcept ScanNet"):
        PointceptScenes(tmp_path)


def test_room_without_points(world):
    room_file(world, "coord").unlink()
    with pytest.raises(DataError, match=r"scene0000_00: no coord\.npy"):
        PointceptScenes(world, split="all")
    defects = []
    dataset = PointceptScenes(world, split="all", on_defect=defects.append)
    assert dataset.scene_names == ("scene0001_00",)
    assert len(defects) == 1


def test_room_of_two_splits(world):
    copy = world / "val" / "scene0000_00"
    shutil.copytree(room_file(world, "coord").parent, copy)
    defects = []
    dataset = PointceptScenes(world, split="all", on_defect=defects.append)
    assert sorted(dataset.scene_names) == ["scene0000_00", "scene0001_00"]
    assert defects == [
        f"{copy}: the same room is in {world / 'train' / copy.name}; remove one of them"
    ]


class _Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("name", "edit", "reason"),
    [
        ("coord", lambda a: a[:0], r"float32 \[0, 3\], not floats"),
        ("coord", lambda a: a[:, :2], r"\d+, 2\], not floats"),
        ("coord", lambda a: a.astype(int), "holds int64"),
        ("coord", lambda a: np.where(a > 1, np.nan, a), "holds NaN or infinite values"),
        ("color", lambda a: a[:-1], r"color\.npy: holds uint8 .* but must be numbers"),
        ("color", lambda a: a.astype("U3"), "holds <U3"),
        ("color", lambda a: a.astype(int) + 256, r"colours go from \d+ to \d+ but must go from 0"),
        ("color", lambda a: a.astype(int) - 256, r"colours go from -\d+"),
        ("color", lambda a: a / 255, r"colours go from 0\S* to \S+ but must go from 0 to 255"),
        ("color", lambda a: a * np.nan, "holds NaN or infinite values"),
        ("coord", lambda a: a.astype(float) + 1e300, "holds NaN or infinite values"),
        ("normal", lambda a: a[:, :1], r"normal\.npy: holds float32"),
        ("normal", lambda a: a.astype(float) + 1e300, "holds NaN or infinite values"),
        ("normal", lambda a: a * np.inf, "holds NaN or infinite values"),
        ("segment20", lambda a: a[:-1], r"segment20\.npy: holds int64 .* must be whole numbers"),
        ("segment20", lambda a: a.astype(float), "must be whole numbers"),
        ("segment20", lambda a: a + 20, r"classes go from 19 to \d+, must be in \[-1, 20\)"),
        ("segment20", lambda a: a - 1, "classes go from -2"),
        ("instance", lambda a: a[1:], r"instance\.npy: holds int64"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_damaged_arrays(world, name, edit, reason):
    file = room_file(world, name)
    np.save(file, edit(np.load(file)))
    with pytest.raises(DataError, match=reason):
        PointceptScenes(world)[0]


@pytest.mark.parametrize("name", ["coord", "color", "segment20"])
def test_cut_off_and_hostile_files(world, name):
    file = room_file(world, name)
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:40], b"", b"no array", whole[:10] + b"\xff" + whole[11:]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.npy: not an array of numbers, or cut off"):
            PointceptScenes(world)[0]
    np.save(file, np.array([_Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not an array of numbers"):
        PointceptScenes(world)[0]
    claim = whole.replace(b"'shape': (", b"'shape': (99999", 1).replace(b"     \n", b"\n", 1)
    file.write_bytes(claim)
    with pytest.raises(DataError, match="not an array of numbers, or cut off"):
        PointceptScenes(world)[0]
