import json
import warnings

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.folder import Folder
from pc_data.readers.folder_files import holds_clouds
from pc_data.readers.folder_schema import read_schema

from tests.real_data import REAL_DATA, needs_real_data

NUM_POINTS = 30


def write_scan(file, *, labels=True, seed=0, scale=1.0, num_points=NUM_POINTS):
    rng = np.random.default_rng(seed)
    xyz = (scale * rng.uniform(-5, 5, (num_points, 3))).astype(np.float32)
    columns = dict(zip("xyz", xyz.T, strict=True))
    columns["intensity"] = rng.random(num_points, np.float32)
    if labels:
        columns["label"] = rng.integers(0, 3, num_points).astype(np.uint8)
        columns["instance"] = rng.integers(0, 9, num_points).astype(np.int32)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".bin":
        np.column_stack(list(columns.values())).astype("<f4").tofile(file)
    else:
        write_vertices(file, columns)
    return columns


def write_vertices(file, columns):
    """Like write_ply, without waiting for the disk."""
    names = {"float32": "float", "uint8": "uchar", "int32": "int"}
    lines = "".join(f"property {names[v.dtype.name]} {k}\n" for k, v in columns.items())
    count = len(columns["x"])
    rows = np.zeros(count, [(k, v.dtype) for k, v in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{lines}end_header\n"
    file.write_bytes(header.encode() + rows.tobytes())


def make(root, *names, schema="", **options):
    root.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        write_scan(root / name, seed=seed, **options)
    if schema:
        (root / "dataset.yaml").write_text(schema)
    return root


# --- without a schema


def test_a_folder_of_files_needs_nothing_else(tmp_path):
    make(tmp_path, "b/2.ply", "b/10.ply", "a.PLY".lower(), "c/d/1.ply")
    (tmp_path / "readme.txt").write_text("not a scan")
    make(tmp_path / ".hidden", "x.ply")
    dataset = Folder(tmp_path)
    assert [scan.name for scan in dataset] == ["a.ply", "b/10.ply", "b/2.ply", "c/d/1.ply"]
    assert dataset.scene_names == (*sorted(["b", "c/d", tmp_path.name]),)
    assert [dataset.scene_of(k) for k in range(4)] == [tmp_path.name, "b", "b", "c/d"]
    assert dataset.scan_file(-1) == tmp_path / "c/d/1.ply"
    assert dataset.splits == ("all",)
    assert (dataset.class_names, dataset.num_classes, dataset.box_class_names) == ((), 0, ())
    assert (dataset.intensity_mean, dataset.intensity_std) == (0.0, 1.0)
    assert (dataset.min_x, dataset.sensor_height) == (-np.inf, None)
    scan = dataset[0]
    assert len(scan) == NUM_POINTS
    assert (scan.labels, scan.instance, scan.boxes, scan.cameras) == (None, None, None, ())
    assert dataset.load_labels(0) is dataset.load_boxes(0) is None
    assert dataset.cameras(0) == ()
    np.testing.assert_array_equal(dataset.load_points(0), np.c_[scan.xyz, scan.intensity])
    with pytest.raises(IndexError):
        dataset[4]
    assert dataset[-1].name == "c/d/1.ply"


def test_no_object_is_kept_for_each_file(tmp_path):
    dataset = Folder(make(tmp_path, "a.ply", "ä/é.ply"))
    assert dataset._files.dtype.kind == "S"
    assert dataset[1].name == "ä/é.ply"


@pytest.mark.parametrize("split", ["train", "val"])
def test_splits_must_be_stated(tmp_path, split):
    make(tmp_path, "a.ply")
    with pytest.raises(ValueError, match=rf"{split}.*none is.*dataset.yaml or pass split='all'"):
        Folder(tmp_path, split=split)
    with pytest.raises(ValueError, match="did you mean 'all'"):
        Folder(tmp_path, split="al")


def test_folders_that_hold_nothing(tmp_path):
    (tmp_path / "clouds").mkdir()
    with pytest.raises(FileNotFoundError, match=r"does not exist; did you mean .*clouds\?"):
        Folder(tmp_path / "cloud")
    with pytest.raises(DataError, match=r"holds no point clouds \(\.ply, \.pcd"):
        Folder(tmp_path / "clouds")
    make(tmp_path, "a.ply")
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        Folder(tmp_path / "a.ply")
    assert holds_clouds(tmp_path)
    assert not holds_clouds(tmp_path / "clouds")


def test_links_are_followed_but_never_in_circles(tmp_path):
    make(tmp_path / "far", "1.ply")
    root = make(tmp_path / "near", "2.ply")
    (root / "more").symlink_to(tmp_path / "far")
    (root / "self").symlink_to(root)
    assert [scan.name for scan in Folder(root)] == ["2.ply", "more/1.ply"]


def test_binary_files_need_their_columns(tmp_path):
    make(tmp_path, "a.bin", "b.bin")
    with pytest.raises(DataError, match=r"a.bin: .*\(2 such files\); write columns: \[x, y, z"):
        Folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text("columns: [x, y, z, intensity, label, _]\nclasses: 3*")
    with pytest.raises(DataError, match="classes must be a list of names"):
        Folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text("columns: [x, y, z, i, label, _]\nclasses: [a, b, c]")
    dataset = Folder(tmp_path)
    assert dataset.load_points(1).shape == (NUM_POINTS, 4)
    assert set(np.unique(dataset.load_labels(1))) == {0, 1, 2}
    assert dataset[0].instance is None


# --- with one

SCHEMA = """
classes:
  road: [2]
  "on": [0]
ignore: 1
intensity: {mean: 0.5, std: 0.3}
sensor_height: 1.7
splits:
  train: ["a/**", b/0.ply]
  val: "c/*.ply"
"""


@pytest.fixture
def world(tmp_path):
    return make(tmp_path, "a/0.ply", "a/x/1.ply", "b/0.ply", "b/1.ply", "c/0.ply", schema=SCHEMA)


def test_splits_classes_and_numbers(world):
    dataset = Folder(world, split="train")
    assert [scan.name for scan in dataset] == ["a/0.ply", "a/x/1.ply", "b/0.ply"]
    assert [scan.name for scan in Folder(world, split="val")] == ["c/0.ply"]
    assert len(Folder(world)) == 5
    assert dataset.splits == ("train", "val", "all")
    assert dataset.class_names == ("road", "on")
    assert (dataset.intensity_mean, dataset.intensity_std) == (0.5, 0.3)
    assert dataset.sensor_height == 1.7
    raw = write_scan(world / "a/0.ply")
    scan = dataset[0]
    expected = np.array([1, -1, 0])[raw["label"]]
    np.testing.assert_array_equal(scan.labels, expected)
    np.testing.assert_array_equal(dataset.load_labels(0), expected)
    np.testing.assert_array_equal(scan.instance, raw["instance"])
    assert scan.labels.dtype == np.int64
    with pytest.raises(ValueError, match=r"'test' is not stated for .* \(train, val is\)"):
        Folder(world, split="test")


def test_labels_are_left_out_on_request(world):
    (world / "a/0.ply").unlink()
    write_scan(world / "a/0.ply", labels=False)
    dataset = Folder(world, split="train", labels=False)
    assert (dataset[0].labels, dataset[0].instance, dataset.load_labels(0)) == (None, None, None)


def test_json_says_the_same(world):
    content = {
        "classes": {"road": [2], "on": [0]},
        "ignore": [1],
        "splits": {"train": ["a/**", "b/0.ply"], "val": ["c/*.ply"]},
    }
    before = Folder(world, split="train")[0].labels
    (world / "dataset.yaml").unlink()
    (world / "dataset.json").write_text(json.dumps(content, indent="\t"))
    np.testing.assert_array_equal(Folder(world, split="train")[0].labels, before)


def test_split_files_are_lists(world):
    (world / "train.txt").write_text("# ours\nb/1.ply\n\n./a/0.ply\n")
    (world / "dataset.yaml").write_text("splits: {train: train.txt}")
    assert [scan.name for scan in Folder(world, split="train")] == ["a/0.ply", "b/1.ply"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**", ["a/0", "a/x/1", "b/0", "b/1", "c/0"]),
        ("**/1.ply", ["a/x/1", "b/1"]),
        ("*/0.ply", ["a/0", "b/0", "c/0"]),
        ("a/*", ["a/0"]),
        ("[!a]/?.ply", ["b/0", "b/1", "c/0"]),
        ("[ab]/**/[0-1].ply", ["a/0", "a/x/1", "b/0", "b/1"]),
        ("**/x/**", ["a/x/1"]),
    ],
)
def test_patterns(world, pattern, names):
    (world / "dataset.yaml").write_text(json.dumps({"splits": {"test": [pattern]}}))
    assert [scan.name for scan in Folder(world, split="test")] == [f"{name}.ply" for name in names]


def test_patterns_agree_with_pathlib(world):
    for pattern in ("**/*.ply", "*/*.ply", "a/**/*.ply", "?/[01].ply", "**/0.ply"):
        (world / "dataset.yaml").write_text(json.dumps({"scans": pattern}))
        found = [scan.name for scan in Folder(world)]
        assert found == sorted(path.relative_to(world).as_posix() for path in world.glob(pattern))


def test_a_file_of_two_splits(world):
    (world / "dataset.yaml").write_text("splits: {train: '**', val: c/0.ply}")
    with pytest.raises(DataError, match=r"c/0\.ply is in both splits\.train and splits\.val"):
        Folder(world, split="train")
    told = []
    dataset = Folder(world, split="train", on_defect=told.append)
    assert len(dataset) == 4
    assert len(told) == 1
    with pytest.raises(DataError, match="no scan is left in split 'val'"):
        Folder(world, split="val", on_defect=told.append)


def test_unit_and_axis(tmp_path):
    raw = make(tmp_path, "a.ply", schema="unit: cm\nup: y\n") and write_scan(tmp_path / "a.ply")
    xyz = 0.01 * np.column_stack([raw["x"], -raw["z"], raw["y"]])
    np.testing.assert_allclose(Folder(tmp_path)[0].xyz, xyz, rtol=1e-6)
    (tmp_path / "dataset.yaml").write_text("unit: 0.5")
    np.testing.assert_allclose(Folder(tmp_path)[0].xyz[:, 0], 0.5 * raw["x"], rtol=1e-6)


def test_millimetres_are_suspected_once(tmp_path):
    make(tmp_path, "a.ply", "b.ply", scale=1000.0)
    dataset = Folder(tmp_path)
    with pytest.warns(UserWarning, match=r"a.ply: is .* m long .*unit: mm in dataset.yaml"):
        dataset[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset[1]
        (tmp_path / "dataset.yaml").write_text("unit: mm")
        assert np.abs(Folder(tmp_path)[0].xyz).max() < 5


def test_arrays_of_a_folder_are_one_scan(tmp_path):
    """As Pointcept stores a scene: an array for each part."""
    schema = {"classes": ["wall", "floor"], "splits": {"train": "train/*/coord.npy"}}
    (tmp_path / "dataset.yaml").write_text(json.dumps(schema))
    rng = np.random.default_rng(0)
    for name in ("train/scene0", "train/scene1", "val/scene2"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        np.save(folder / "coord.npy", rng.normal(size=(9, 3)).astype(np.float32))
        np.save(folder / "color.npy", rng.integers(0, 256, (9, 3), dtype=np.uint8))
        np.save(folder / "segment.npy", (np.arange(9) % 3 - 1)[:, None])
        np.save(folder / "pose.npy", np.eye(4))
    dataset = Folder(tmp_path, split="train")
    assert dataset.scene_names == ("train/scene0", "train/scene1")
    assert len(Folder(tmp_path)) == 3
    scan = dataset[1]
    np.testing.assert_array_equal(scan.xyz, np.load(tmp_path / "train/scene1/coord.npy"))
    color = np.load(tmp_path / "train/scene1/color.npy") / 255
    np.testing.assert_allclose(scan.color, color, rtol=1e-6)
    assert scan.labels.tolist() == [-1, 0, 1] * 3
    (tmp_path / "train/scene1/._color.npy").write_bytes(b"hidden, as macOS leaves them")
    np.testing.assert_array_equal(dataset[1].color, scan.color)
    np.save(tmp_path / "train/scene1/color.npy", np.zeros((8, 3), np.uint8))
    with pytest.raises(DataError, match=r"color.npy: \[8, 3\] for the points of coord.npy"):
        dataset[1]


# --- labels in files of their own


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("labels/{stem}.label", "labels/0.label"),
        ("{folder}/{stem}.label", "site/scans/0.label"),
        ("{folder}/../labels/{stem}.label", "site/labels/0.label"),
        ("labels/{folder}/{stem}_gt.label", "labels/site/scans/0_gt.label"),
    ],
)
def test_label_files(tmp_path, pattern, place):
    labels = {"files": pattern, "dtype": "uint16"}
    schema = {"classes": ["a", "b"], "ignore": [7], "labels": labels, "splits": {"train": "**"}}
    make(tmp_path, "site/scans/0.ply", schema=json.dumps(schema))
    dataset = Folder(tmp_path, split="train")
    assert dataset.label_file(0) == tmp_path / place
    with pytest.raises(DataError, match=rf"0.ply: no labels at .*{place}; add them"):
        dataset.load_labels(0)
    assert Folder(tmp_path)[0].labels is None  # of `all`, a scan may be unlabelled
    raw = np.random.default_rng(0).choice([0, 1, 7], NUM_POINTS).astype("<u2")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    raw.tofile(tmp_path / place)
    np.testing.assert_array_equal(dataset[0].labels, np.where(raw == 7, -1, raw.astype(int)))


def test_label_arrays_are_no_scans(tmp_path):
    schema = {
        "classes": ["a", "b"],
        "labels": {"files": "{folder}/{stem}_class.npy"},
        "instances": {"files": "{folder}/{stem}_object.npy"},
        "columns": ["x", "y", "z", "i", "_", "_"],
    }
    root = make(tmp_path, "s/1.bin", "s/2.bin", schema=json.dumps(schema))
    raw = np.array([[-1], [0], [1]])[np.arange(NUM_POINTS) % 3]
    for name in "12":
        np.save(root / f"s/{name}_class.npy", raw)
        np.save(root / f"s/{name}_object.npy", raw.astype(np.float32) + 1)
    dataset = Folder(root)
    assert [scan.name for scan in dataset] == ["s/1.bin", "s/2.bin"]
    np.testing.assert_array_equal(dataset[0].labels, raw[:, 0])
    np.testing.assert_array_equal(dataset[0].instance, raw[:, 0] + 1)


@pytest.mark.parametrize("dtype", ["uint32", "int32"])
def test_class_in_the_lower_bits(tmp_path, dtype):
    labels = {"files": "labels/{stem}.label", "dtype": dtype, "class_bits": 16}
    schema = {"classes": {"car": [10, 252]}, "ignore": 0, "labels": labels}
    make(tmp_path, "v/0.ply", schema=json.dumps(schema))
    raw = np.zeros(NUM_POINTS, "<u4")
    raw[:3] = [10, 252 | 65535 << 16, 10 | 4 << 16]
    (tmp_path / "labels").mkdir()
    raw.tofile(tmp_path / "labels/0.label")
    scan = Folder(tmp_path)[0]
    assert scan.labels[:4].tolist() == [0, 0, 0, -1]
    assert scan.instance[:4].tolist() == [0, 65535, 4, 0]


def test_labels_of_missing_returns_are_left_out_too(tmp_path):
    schema = {"classes": ["a", "b", "c"], "labels": {"files": "{stem}.label", "dtype": "uint8"}}
    make(tmp_path, schema=json.dumps(schema))
    xyz = np.float32([[0, 0, 0], [np.nan] * 3, [1, 1, 1]])
    write_vertices(tmp_path / "a.ply", dict(zip("xyz", xyz.T, strict=True)))
    np.uint8([0, 1, 2]).tofile(tmp_path / "a.label")
    dataset = Folder(tmp_path)
    assert dataset.load_labels(0).tolist() == [0, 2]
    assert len(dataset.load_points(0)) == 2


def test_a_column_by_another_name(tmp_path):
    make(tmp_path, "a.ply", schema="classes: [a, b, c]\nlabels: {column: kind}\nsplits: {val: '*'}")
    with pytest.raises(DataError, match=r"no labels in a column kind, it has: x, y, z, intensity"):
        Folder(tmp_path, split="val")[0]
    assert Folder(tmp_path)[0].labels is None
    columns = write_scan(tmp_path / "b.ply")
    write_vertices(tmp_path / "a.ply", columns | {"kind": columns["label"] * 0 + 1})
    (tmp_path / "b.ply").unlink()
    assert set(Folder(tmp_path, split="val")[0].labels) == {1}


# --- damage


def test_a_scan_of_train_must_be_labelled(world):
    write_scan(world / "a/0.ply", labels=False)
    with pytest.raises(
        DataError, match=r"a/0.ply: no labels in a column label or .* take the scan out of splits.t"
    ):
        Folder(world, split="train")[0]
    scan = Folder(world)[0]
    assert (scan.name, scan.labels) == ("a/0.ply", None)


def test_unknown_raw_ids(world):
    (world / "dataset.yaml").write_text("classes: {road: 0}\nignore: [1]")
    with pytest.raises(DataError, match=r"neither in classes nor in ignore .* is 2; add the id"):
        Folder(world).load_labels(0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(NUM_POINTS - 1), f"{NUM_POINTS - 1} labels for {NUM_POINTS} points"),
        (bytes(NUM_POINTS + 1), f"{NUM_POINTS + 1} labels for {NUM_POINTS} points"),
        (b"", f"0 labels for {NUM_POINTS} points"),
        (b"\x09" * NUM_POINTS, "neither in classes nor in ignore"),
    ],
)
def test_damaged_label_files(tmp_path, data, message):
    schema = {"classes": ["a"], "labels": {"files": "{stem}.label", "dtype": "uint8"}}
    make(tmp_path, "a.ply", schema=json.dumps(schema))
    (tmp_path / "a.label").write_bytes(data)
    dataset = Folder(tmp_path)
    with pytest.raises(DataError, match=rf"a.label: .*{message}"):
        dataset.load_labels(0)
    assert len(dataset.load_points(0)) == NUM_POINTS


def test_a_label_array_of_another_shape(tmp_path):
    schema = {"classes": ["a"], "labels": {"files": "{stem}.gt.npy"}}
    make(tmp_path, "a.ply", schema=json.dumps(schema))
    for array in (np.zeros((NUM_POINTS, 2)), np.zeros(3), np.full(NUM_POINTS, "a")):
        np.save(tmp_path / "a.gt.npy", array)
        with pytest.raises(DataError, match=rf"a.gt.npy: .* for {NUM_POINTS} points"):
            Folder(tmp_path)[0]


def test_a_file_that_vanishes_and_one_that_is_cut_off(world):
    dataset = Folder(world)
    data = (world / "a/0.ply").read_bytes()
    (world / "a/0.ply").write_bytes(data[:-7])
    with pytest.raises(DataError, match=r"a/0.ply: .*cut off"):
        dataset[0]
    (world / "a/0.ply").unlink()
    with pytest.raises(DataError, match=r"a/0.ply: file is missing"):
        dataset.load_points(0)


FAULTY = {
    "no yaml": ("a: [1", "cannot be read: while parsing"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
    "no keys": ("[1, 2]", r"must be keys and values, e.g. 'unit: mm', got \[1, 2\]"),
    "object": ("unit: !!python/object/apply:os.getcwd []", "cannot be read: could not determine"),
    "unknown key": ("colums: [x, y, z]", "key must be one of .* did you mean 'columns'"),
    "key twice": ("unit: m\nunit: mm", "key 'unit' comes twice"),
    "class twice": ("classes: [a, a]", "key 'a' comes twice"),
    "class of yes": ("classes: {yes: 1}", "a name True that is no text; put it in quotes"),
    "no classes": ("classes: []", "classes must be a list of names"),
    "raw id": ("classes: {a: [1, x]}", r"classes.a must be raw ids .* got 'x'"),
    "bool id": ("ignore: [true]", "ignore must be raw ids"),
    "list of pairs": ("classes: [road: 1, car: 2]", "classes must be a text, got {'road': 1}"),
    "list of lists": ("classes: [[road], car]", r"classes must be a text, got \['road'\]"),
    "claimed twice": ("classes: {a: [1, 2], b: 2}", "raw id 2 belongs to both a and b"),
    "ignored class": ("classes: {a: 1}\nignore: 1", "raw id 1 belongs to both ignore and a"),
    "labels alone": ("labels: {column: a}", "labels and ignore need classes"),
    "unknown column": ("columns: [x, y, z, intensty]", "nothing is read from; did you mean 'inten"),
    "column twice": ("columns: [x, y, x]", "columns has 'x' twice"),
    "columns": ("columns: 3", "columns must be a list of texts"),
    "unit": ("unit: mn", "unit must be one of m, cm, .* did you mean 'm'"),
    "no unit": ("unit: 0", r"unit \(metres in one unit\) must be a positive number, got 0"),
    "infinite unit": ("unit: .inf", "must be a positive number"),
    "huge unit": ("unit: 1" + "0" * 400, "must be a positive number|too large"),
    "up": ("up: x", "up must be y or z, got 'x'"),
    "brightness": ("color_max: -1", "color_max must be a positive number"),
    "intensity": ("intensity: {avg: 1}", "key of intensity must be one of column, mean, std"),
    "spread": ("intensity: {std: 0}", "intensity.std must be a positive number"),
    "height": ("sensor_height: high", "sensor_height must be a number"),
    "split": ("splits: {trian: a}", "key of splits must be one of .* did you mean 'train'"),
    "no split": ("splits: a/**", r"splits must have keys \(train, val, test\)"),
    "empty split": ("splits: {train: []}", "splits.train must be a list of texts"),
    "both": ("classes: [a]\nlabels: {column: a, files: b}", "either column or files"),
    "no stem": ("classes: [a]\nlabels: {files: a.npy}", r"labels.files must have \{stem\}"),
    "dtype": ("classes: [a]\nlabels: {files: '{stem}.l'}", "labels.dtype must be one of uint8"),
    "wrong dtype": (
        "classes: [a]\nlabels: {files: '{stem}.l', dtype: unit8}",
        "did you mean 'uint8'",
    ),
    "dtype of npy": (
        "classes: [a]\nlabels: {files: '{stem}.npy', dtype: uint8}",
        "npy files say it themselves",
    ),
    "absolute": ("classes: [a]\nlabels: {files: '/x/{stem}.npy'}", "must be a path from the root"),
    "braces": ("classes: [a]\nlabels: {files: '{name}/{stem}.npy'}", "must be a path from the"),
    "bits": (
        "classes: [a]\nlabels: {files: '{stem}.l', dtype: uint8, class_bits: 64}",
        "class_bits must be a number of bits",
    ),
    "outside": ("classes: [a]\nlabels: {files: '../{stem}.npy'}", "is outside the folder"),
    "no match": ("splits: {train: a/9.ply}", "no file matches; did you mean 'a/0.ply'"),
    "no scan": ("scans: '*.pcd'", r"scans has '\*.pcd', which no file matches"),
    "bad pattern": ("scans: '[z-a]*'", "bad character range"),
    "no list": ("splits: {train: list.txt}", "'list.txt' is no file in its folder"),
    "list outside": ("splits: {train: ../list.txt}", "is no file in its folder"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_faults_of_a_schema(world, kind):
    text, message = FAULTY[kind]
    (world.parent / "list.txt").write_text("a/0.ply")
    (world / "dataset.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    split = "train" if kind in ("no match", "no list", "list outside") else "all"
    with pytest.raises(DataError, match=message) as caught:
        Folder(world, split=split)
    assert str(world / "dataset.yaml") in str(caught.value)


def test_two_schemas_and_damaged_json(world):
    (world / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"both dataset\.yaml and dataset\.json; remove one"):
        Folder(world)
    (world / "dataset.yaml").unlink()
    assert read_schema(world).splits == {}
    for text, message in (("{", "cannot be read"), ('{"up": "y", "up": "z"}', "'up' comes twice")):
        (world / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=message):
            Folder(world)


def test_an_empty_schema_is_none(tmp_path):
    make(tmp_path, "a.ply", schema="# nothing yet\n")
    assert len(Folder(tmp_path)) == 1


def test_the_example_in_the_documentation_is_valid(world):
    import pc_data.readers.folder

    text = pc_data.readers.folder.__doc__.split("```yaml\n")[1].split("```")[0]
    (world / "dataset.yaml").write_text(text)
    schema = read_schema(world)
    assert schema.metres == 0.001
    assert schema.up == "y"
    assert list(schema.classes) == ["road", "car"]
    assert schema.names == {"label": "my_class", "instance": "my_object", "intensity": "amplitude"}
    other = text.replace("labels: {column: my_class}", "").replace("# labels:", "labels:")
    (world / "dataset.yaml").write_text(other)
    assert read_schema(world).labels.class_bits == 16


@needs_real_data
def test_real_folder_with_labels_beside_it(tmp_path):
    root = tmp_path / "sensaturban"
    root.mkdir()
    (root / "train").symlink_to(REAL_DATA / "sensaturban/train")
    schema = {
        "columns": ["x", "y", "z", "r", "g", "b"],
        "classes": ["ground", "building", "wall", "parking", "road", "furniture", "car"],
        "labels": {"files": "{folder}/../labels/{stem}.label", "dtype": "uint8"},
        "splits": {"train": "train/**"},
    }
    raw = dict(zip(schema["classes"], (0, 2, 3, 5, 7, 8, 9), strict=True))
    (root / "dataset.json").write_text(json.dumps(schema | {"classes": raw}))
    (scan,) = Folder(root, split="train")
    assert len(scan) == 60_095
    assert scan.color.max() <= 1
    counts = np.bincount(scan.labels)
    assert counts.tolist() == [1634, 3850, 775, 2919, 49287, 708, 922]


@needs_real_data
def test_real_surveys():
    dataset = Folder(REAL_DATA / "lidar_scans_unlabelled")
    assert [len(scan) for scan in dataset] == [69_088, 69_792]
    assert dataset.scene_names == ("koide3_outdoor_pair",)
