import json

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.files.ply import read_ply, write_ply
from pc_data.readers.scannet import ScanNet
from pc_data.readers.scannet_classes import SCANNET20, SCANNET200
from pc_data.readers.scannet_files import vertex_normals
from pc_data.synthetic.scannet import make_room_scannet
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from pc_geometry.cameras import visible_points
from PIL import Image

from tests.real_data import REAL_DATA, needs_real_data

_REAL = REAL_DATA / "scannet"
_ROOM = "scene0000_00"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("rooms") / "scannet"
    make_room_scannet(
        out, num_scenes=2, seed=4, num_frames=3, image_size=(160, 120), voxel_size=0.05
    )
    return out


@pytest.fixture(scope="module")
def rooms(made):
    return {
        (form, align): [*ScanNet(made, split="all", classes=form, align=align)]
        for form in ("20", "200")
        for align in (False, True)
    }


# --- tables


def test_classes_are_the_official_ones():
    assert tuple(SCANNET20) == (*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39)
    assert tuple(SCANNET20.values())[:4] == ("wall", "floor", "cabinet", "bed")
    assert tuple(SCANNET20.values())[-3:] == ("sink", "bathtub", "otherfurniture")
    assert len(SCANNET200) == len(set(SCANNET200.values())) == 200
    assert tuple(SCANNET200.values())[:4] == ("wall", "chair", "floor", "table")
    assert SCANNET200[1191] == "mattress"
    assert sorted(SCANNET200) == list(SCANNET200)


@needs_real_data
def test_classes_agree_with_the_official_table():
    lines = (_REAL / "scannetv2-labels.combined.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    category = {}
    nyu40 = {}
    for row in rows:
        category.setdefault(int(row[0]), set()).add(row[2])
        nyu40[int(row[4])] = row[7]
    assert all(name in category[number] for number, name in SCANNET200.items())
    spelled = {name: name for name in SCANNET20.values()} | {"refrigerator": "refridgerator"}
    assert all(nyu40[number] == spelled[name] for number, name in SCANNET20.items())


@needs_real_data
def test_the_writer_knows_the_official_ids(made):
    def rows(file):
        lines = [line.split("\t") for line in file.read_text().splitlines()]
        keys = [lines[0].index(key) for key in ("raw_category", "id", "nyu40id", "nyu40class")]
        return {tuple(line[key] for key in keys) for line in lines[1:]}

    ours = rows(made / "scannetv2-labels.combined.tsv")
    assert len(ours) > 40
    assert ours <= rows(_REAL / "scannetv2-labels.combined.tsv")


# --- a room of the writer


def test_rooms_and_splits(made):
    assert ScanNet(made).scene_names == ("scene0000_00",)
    assert ScanNet(made, split="val").scene_names == ("scene0001_00",)
    dataset = ScanNet(made, split="all")
    assert dataset.scene_names == ("scene0000_00", "scene0001_00")
    assert dataset.scene_of(1) == dataset[-1].name == "scene0001_00"
    with pytest.raises(IndexError):
        dataset[2]
    with pytest.raises(DataError, match=r"scannetv2_test\.txt: list of the split is missing"):
        ScanNet(made, split="test")


def test_a_scan_is_the_mesh(made, rooms):
    dataset = ScanNet(made)
    vertex = read_ply(dataset.scan_file(0))["vertex"]
    scan = rooms["20", False][0]
    np.testing.assert_array_equal(scan.xyz, np.stack([vertex[k] for k in "xyz"], axis=1))
    red = vertex["red"].astype(np.float32) / 255
    np.testing.assert_array_equal(scan.color[:, 0], red)
    np.testing.assert_array_equal(dataset.load_points(0), np.c_[scan.xyz, scan.color])
    np.testing.assert_array_equal(dataset.load_labels(0), scan.labels)
    np.testing.assert_array_equal(dataset.load_boxes(0).cuboid, scan.boxes.cuboid)
    np.testing.assert_allclose(np.linalg.norm(scan.normal, axis=1), 1, atol=1e-5)
    assert scan.intensity is None


def test_labels_are_left_out_on_request(made):
    dataset = ScanNet(made, labels=False)
    scan = dataset[0]
    assert (scan.labels, scan.instance, scan.boxes) == (None, None, None)
    assert (dataset.load_labels(0), dataset.load_boxes(0)) == (None, None)
    assert len(scan.cameras) == 3


def test_label_files_agree_with_the_aggregation(made, rooms, tmp_path):
    """The 20 classes from either source are the same."""
    folder = tmp_path / "scans" / _ROOM
    folder.mkdir(parents=True)
    for path in (made / "scans" / _ROOM).iterdir():
        if path.is_file() and not path.name.endswith("labels.ply"):
            (folder / path.name).symlink_to(path)
    (tmp_path / "scannetv2-labels.combined.tsv").symlink_to(made / "scannetv2-labels.combined.tsv")
    (scan,) = ScanNet(tmp_path, split="all")
    np.testing.assert_array_equal(scan.labels, rooms["20", False][0].labels)
    assert scan.cameras == ()


def test_both_sets_of_classes(made, rooms):
    few, many = rooms["20", False][0], rooms["200", False][0]
    names20, names200 = tuple(SCANNET20.values()), tuple(SCANNET200.values())
    for name in ("wall", "floor", "window"):
        np.testing.assert_array_equal(
            few.labels == names20.index(name), many.labels == names200.index(name)
        )
    np.testing.assert_array_equal(few.instance, many.instance)
    raw = json.loads((made / f"scans/{_ROOM}/{_ROOM}.aggregation.json").read_text())["segGroups"]
    for group in raw:
        own = few.instance == group["objectId"] + 1
        assert own.any()
        name = {"books": "book", "rug": None}.get(group["label"], group["label"])
        expected = names200.index(name) if name in names200 else -1
        assert set(many.labels[own]) == {expected}
    assert (few.labels[few.instance == 0] == -1).all()


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("form", ["20", "200"])
def test_boxes_hold_their_objects(made, rooms, form, align):
    dataset = ScanNet(made, split="all", classes=form, align=align)
    assert not {"wall", "floor"} & set(dataset.box_class_names)
    assert len(dataset.box_class_names) == dataset.num_classes - 2
    for scan in rooms[form, align]:
        boxes = scan.boxes
        grown = boxes.cuboid + np.array([0, 0, 0, 1e-3, 1e-3, 1e-3, 0])
        indices, splits = points_in_boxes(scan.xyz, grown)
        assert len(boxes) > 8
        for k in range(len(boxes)):
            own = np.flatnonzero(scan.instance == int(boxes.track[k]))
            assert np.isin(own, indices[splits[k] : splits[k + 1]]).all()
            name = dataset.box_class_names[boxes.labels[k]] if boxes.labels[k] >= 0 else None
            classes = {dataset.class_names[c] if c >= 0 else None for c in scan.labels[own]}
            assert classes == {name}
        if align:
            np.testing.assert_allclose(boxes.cuboid[:, 6], 0, atol=1e-5)


def test_alignment_turns_everything_alike(rooms):
    for raw, aligned in zip(rooms["20", False], rooms["20", True], strict=True):
        np.testing.assert_allclose(
            raw.boxes.cuboid[:, 3:6], aligned.boxes.cuboid[:, 3:6], atol=1e-5
        )
        yaw = -raw.boxes.cuboid[0, 6]
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        np.testing.assert_allclose(raw.normal @ turn.T, aligned.normal, atol=2e-3)
        for first, second in zip(raw.cameras, aligned.cameras, strict=True):
            a = project_points(raw.xyz, first.from_scan, first.intrinsics)
            b = project_points(aligned.xyz, second.from_scan, second.intrinsics)
            np.testing.assert_allclose(a[1], b[1], atol=1e-4)
        # Walls stand along x and y.
        wall = (aligned.labels == 0) & (np.abs(aligned.normal[:, 2]) < 0.2)
        along = np.abs(aligned.normal[wall, :2]).max(1)
        assert np.median(along) > 0.99


def test_images_show_the_mesh(rooms):
    """Depth and colour of the images are those of the vertices that they see."""
    for scan in rooms["20", False]:
        assert len(scan.cameras) == 3
        for camera in scan.cameras:
            assert camera.image_size == (160, 120)
            pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
            seen = visible_points(pixel, depth, camera.image_size, min_depth=0.0)
            file = camera.image_file.parents[1] / "depth" / f"{camera.name}.png"
            with Image.open(file) as image:
                measured = np.asarray(image).astype(float) / 1000
            u, v = pixel[seen].astype(int).T
            near = (measured[v, u] > 0) & (np.abs(measured[v, u] - depth[seen]) < 0.06)
            assert near.sum() > 200
            picture = camera.load_image()[v, u][near].mean(1)
            vertex = scan.color[seen][near].mean(1)
            assert np.corrcoef(picture, vertex)[0, 1] > 0.5


def test_normals_by_hand():
    xyz = np.array([[0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 1]])
    normal = vertex_normals(xyz, faces)
    # The face in z has area 1, that in y has area 1: up and towards +y alike.
    np.testing.assert_allclose(normal[0], np.array([0, 1, 1]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(normal[2], [0, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(normal[4], 0)


# --- the real rooms


@needs_real_data
def test_real_mesh_and_labels():
    dataset = ScanNet(_REAL, split="all")
    assert dataset.scene_names == ("scene0470_00",)
    scan = dataset[0]
    assert len(scan) == 67465
    assert (scan.instance, scan.boxes, scan.cameras) == (None, None, ())
    count = dict(zip(*np.unique(scan.labels, return_counts=True), strict=True))
    named = {"wall": 24353, "chair": 15712, "floor": 14939, "door": 2777, "table": 2572}
    for name, expected in {**named, "window": 1924, "otherfurniture": 998}.items():
        assert count[dataset.class_names.index(name)] == expected
    assert count[-1] == 3172 + 767 + 251  # whiteboard, not annotated, bag
    assert ScanNet(_REAL, split="all", classes="200").load_labels(0) is None


@needs_real_data
def test_real_normals_point_into_the_room():
    dataset = ScanNet(_REAL, split="all")
    scan = dataset[0]
    floor = scan.labels == dataset.class_names.index("floor")
    assert np.median(scan.normal[floor, 2]) > 0.98
    assert 0.0 <= scan.color.min() < scan.color.max() <= 1.0


@pytest.fixture(scope="module")
def real_room(tmp_path_factory):
    """The room of which only its vertices and three images are there, put into the layout."""
    root = tmp_path_factory.mktemp("real") / "scannet"
    folder = root / "scans" / _ROOM
    folder.mkdir(parents=True)
    (root / "posed_images").symlink_to(_REAL / "posed_images")
    source = _REAL / "mmdet3d_scene0000_00"
    rows = np.fromfile(source / f"points/{_ROOM}.bin", "<f4").reshape(-1, 6)
    vertex = dict(zip("xyz", rows[:, :3].T, strict=True))
    colors = rows[:, 3:].astype(np.uint8).T
    vertex |= dict(zip(("red", "green", "blue"), colors, strict=True))
    write_ply(folder / f"{_ROOM}_vh_clean_2.ply", {"vertex": vertex})
    label = np.load(source / f"{_ROOM}_sem_label_all.npy").astype(np.uint16)
    write_ply(folder / f"{_ROOM}_vh_clean_2.labels.ply", {"vertex": vertex | {"label": label}})
    instance = np.load(source / f"{_ROOM}_ins_label_all.npy")
    groups = []
    names = {5: "chair", 6: "couch", 14: "desk"}
    for number in np.unique(instance[instance > 0]):
        (nyu40,) = np.unique(label[instance == number])
        name = names.get(int(nyu40), "object")
        groups.append({"objectId": int(number) - 1, "segments": [int(number)], "label": name})
    (folder / f"{_ROOM}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
    segments = {"segIndices": instance.tolist()}
    (folder / f"{_ROOM}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
    (folder / f"{_ROOM}.txt").write_bytes((source / f"{_ROOM}.txt").read_bytes())
    (root / "scannetv2-labels.combined.tsv").symlink_to(_REAL / "scannetv2-labels.combined.tsv")
    return root


@needs_real_data
def test_real_images_match_the_vertices(real_room):
    for align in (False, True):
        (scan,) = ScanNet(real_room, split="all", align=align)
        assert [camera.name for camera in scan.cameras] == ["00000", "00011", "00102"]
        assert {camera.image_size for camera in scan.cameras} == {(1296, 968)}
        for camera, least in zip(scan.cameras, (0.6, 0.6, 0.45), strict=True):
            pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
            seen = visible_points(pixel, depth, camera.image_size, min_depth=0.2)
            u, v = pixel[seen].astype(int).T
            coarse = v // 16 * 100 + u // 16
            nearest = np.full(100 * 100, np.inf)
            np.minimum.at(nearest, coarse, depth[seen])
            front = depth[seen] < nearest[coarse] + 0.1
            gray = camera.load_image()[v, u][front].mean(1)
            assert np.corrcoef(gray, scan.color[seen][front].mean(1))[0, 1] > least


@needs_real_data
def test_real_boxes_stand_on_the_aligned_floor(real_room):
    dataset = ScanNet(real_room, split="all", align=True)
    (scan,) = dataset
    assert len(np.unique(scan.instance)) == 67 + 1
    boxes = scan.boxes
    couch = boxes.cuboid[boxes.labels == dataset.box_class_names.index("sofa")]
    assert len(couch) >= 1
    assert ((couch[:, 2] - couch[:, 5] / 2) < 0.25).all()
    assert ((couch[:, 5] > 0.5) & (couch[:, 5] < 1.2)).all()
    floor = scan.labels == dataset.class_names.index("floor")
    assert abs(np.median(scan.xyz[floor, 2])) < 0.05


# --- damage


@pytest.fixture
def world(made, tmp_path):
    """A copy of the first room that tests may damage."""
    root = tmp_path / "scannet"
    for path in sorted(made.rglob("*")):
        target = root / path.relative_to(made)
        if "scene0001" in str(path):
            continue
        if path.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


def room_file(root, suffix):
    return root / "scans" / _ROOM / f"{_ROOM}{suffix}"


def test_wrong_arguments(made, tmp_path):
    with pytest.raises(ValueError, match=r"got 'trian'; did you mean 'train'\?"):
        ScanNet(made, split="trian")
    with pytest.raises(ValueError, match="classes must be one of 20, 200, got '40'"):
        ScanNet(made, classes="40")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ScanNet(tmp_path / "none")
    with pytest.raises(DataError, match="is not the root of ScanNet; pass"):
        ScanNet(made / "scans")


def test_a_split_without_rooms(world):
    (world / "scannetv2_train.txt").write_text("scene0706_00\n")
    with pytest.raises(DataError, match="no room of split 'train'"):
        ScanNet(world)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("../../etc\n", r"holds '\.\./\.\./etc'"),
        ("scene0000_00\nscene0000_00\n", "names a room twice"),
        ("\x00\xff", "it must hold names like"),
    ],
)
def test_damaged_lists(world, text, reason):
    (world / "scannetv2_train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"scannetv2_train\.txt: .*{reason}"):
        ScanNet(world)


def test_missing_mesh(world):
    room_file(world, "_vh_clean_2.ply").unlink()
    with pytest.raises(DataError, match=rf"{_ROOM}: no {_ROOM}_vh_clean_2\.ply"):
        ScanNet(world, split="all")
    (world / "scans/scene0005_00").mkdir()
    defects = []
    with pytest.raises(DataError, match="no room of split 'all'"):
        ScanNet(world, split="all", on_defect=defects.append)
    assert len(defects) == 2


def _edit_vertices(file, **changes):
    elements = read_ply(file)
    elements["vertex"] |= changes
    write_ply(file, elements)


def test_damaged_mesh(world):
    file = room_file(world, "_vh_clean_2.ply")
    dataset = ScanNet(world)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with pytest.raises(DataError, match="cut off"):
        dataset[0]
    file.write_bytes(whole)
    x = read_ply(file)["vertex"]["x"]
    x[5] = np.nan
    _edit_vertices(file, x=x)
    with pytest.raises(DataError, match=r"1 of \d+ vertices have NaN"):
        dataset[0]
    elements = read_ply(file)
    del elements["vertex"]["red"]
    write_ply(file, elements)
    with pytest.raises(DataError, match="vertices have no red"):
        dataset[0]
    write_ply(file, {"vertex": {k: v[:0] for k, v in elements["vertex"].items()}})
    with pytest.raises(DataError, match="vertices have no red"):
        dataset[0]


@pytest.mark.parametrize(
    ("faces", "reason"),
    [
        (np.array([[0, 1, 10**6]], np.int32), "faces name vertices 0 to 1000000"),
        (np.array([[0, 1, -1]], np.int32), "faces name vertices -1 to 1"),
        (np.array([[0, 1, 2, 3]], np.int32), "its faces are no triangles"),
        (np.array([[0, 1, 2]], np.float32), "its faces are no triangles"),
    ],
)
def test_damaged_faces(world, faces, reason):
    file = room_file(world, "_vh_clean_2.ply")
    write_ply(file, read_ply(file) | {"face": {"vertex_indices": faces}})
    with pytest.raises(DataError, match=reason):
        ScanNet(world)[0]


def test_mesh_without_vertices(world):
    file = room_file(world, "_vh_clean_2.ply")
    rows = {name: values[:0] for name, values in read_ply(file)["vertex"].items()}
    write_ply(file, {"vertex": rows})
    with pytest.raises(DataError, match="0 of 0 vertices"):
        ScanNet(world)[0]


def test_damaged_labels(world):
    file = room_file(world, "_vh_clean_2.labels.ply")
    label = read_ply(file)["vertex"]["label"]
    label[:2] = (50, 149)  # what a few meshes of the first release hold
    _edit_vertices(file, label=label)
    assert (ScanNet(world)[0].labels[:2] == -1).all()
    label[0] = 41
    _edit_vertices(file, label=label)
    with pytest.raises(DataError, match=r"1 labels are no class .* is 41"):
        ScanNet(world)[0]
    write_ply(file, {"vertex": {"label": label[1:]}})
    with pytest.raises(DataError, match=r"\d+ labels for \d+ vertices"):
        ScanNet(world)[0]
    write_ply(file, {"vertex": {"x": np.zeros(3, np.float32)}})
    with pytest.raises(DataError, match=r"0 labels for \d+ vertices"):
        ScanNet(world)[0]


_GROUPS = "segGroups"


@pytest.mark.parametrize(
    ("suffix", "edit", "reason"),
    [
        (".aggregation.json", lambda c: [c], "holds no list 'segGroups'"),
        (".aggregation.json", lambda _: {_GROUPS: {}}, "holds no list 'segGroups'"),
        (".aggregation.json", lambda _: {_GROUPS: [3]}, "object 0 has no label"),
        (
            ".aggregation.json",
            lambda c: c[_GROUPS][1].update(label="flying carpet"),
            "category 'flying carpet' is not in scannetv2-labels",
        ),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(objectId=1), "not distinct"),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(objectId=-1), "not distinct"),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(objectId=2**63 - 1), "not distinct"),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(objectId="1"), "whole numbers"),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(segments=[1.5]), "whole numbers"),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(segments=[[1], [2, 3]]), "whole n"),
        (".aggregation.json", lambda c: c[_GROUPS][0].update(segments=None), "whole numbers"),
        (
            ".aggregation.json",
            lambda _: {_GROUPS: [{"objectId": 0, "label": "wall", "segments": [10**9]}]},
            "none of its segments is in",
        ),
        ("_vh_clean_2.0.010000.segs.json", lambda c: c["segIndices"].pop(), "segments for"),
        ("_vh_clean_2.0.010000.segs.json", lambda _: {"segIndices": ["a"]}, "whole numbers"),
        ("_vh_clean_2.0.010000.segs.json", lambda _: {"segIndices": [10**30]}, "whole numbers"),
    ],
)
def test_damaged_annotation(world, suffix, edit, reason):
    file = room_file(world, suffix)
    content = json.loads(file.read_text())
    result = edit(content)
    file.write_text(json.dumps(result if isinstance(result, (dict, list)) else content))
    with pytest.raises(DataError, match=reason):
        ScanNet(world)[0]
    assert len(ScanNet(world, labels=False)[0]) > 1000


@pytest.mark.parametrize("suffix", [".aggregation.json", "_vh_clean_2.0.010000.segs.json"])
def test_annotation_that_is_absent_or_no_json(world, suffix):
    file = room_file(world, suffix)
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        file.write_bytes(content)
        with pytest.raises(DataError, match="not JSON"):
            ScanNet(world)[0]
    file.unlink()
    with pytest.raises(DataError, match=r"json: file is missing"):
        ScanNet(world)[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id\tname\n1\twall\n", "no table with numbers in columns raw_category"),
        ("id\traw_category\tnyu40id\nx\twall\t1\n", "no table with numbers"),
        ("id\traw_category\tnyu40id\n1\twall\n", "no table with numbers"),
        (f"id\traw_category\tnyu40id\n{10**30}\twall\t1\n", "no table with numbers"),
    ],
)
def test_damaged_table(world, text, reason):
    (world / "scannetv2-labels.combined.tsv").write_text(text)
    with pytest.raises(DataError, match=reason):
        ScanNet(world)


def test_missing_table(world):
    (world / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(DataError, match=r"combined\.tsv: table of labels is missing"):
        ScanNet(world)[0]


@pytest.mark.parametrize(
    "matrix", ["1 2 3", "a " * 16, "nan " * 16, "0 " * 16, "1 0 0 0 0 0 -1 0 0 1 0 0 0 0 0 1"]
)
def test_damaged_alignment(world, matrix):
    room_file(world, ".txt").write_text(f"axisAlignment = {matrix}\n")
    with pytest.raises(DataError, match="axisAlignment is no turn about the vertical"):
        ScanNet(world)[0]


def test_no_alignment_is_none(world):
    room_file(world, ".txt").write_text("appVersionId = 87\n")
    np.testing.assert_array_equal(ScanNet(world, align=True)[0].xyz, ScanNet(world)[0].xyz)


def test_missing_alignment(world):
    raw = ScanNet(world)[0]
    room_file(world, ".txt").unlink()
    np.testing.assert_array_equal(ScanNet(world)[0].xyz, raw.xyz)
    rooms = ScanNet(world, align=True)
    for read in (rooms.__getitem__, rooms.load_points, rooms.load_boxes, rooms.cameras):
        with pytest.raises(DataError, match=r"0\.txt: file is missing, so the room cannot be al"):
            read(0)


def test_frames_that_lost_track_are_left_out(world):
    pose = world / "scans" / _ROOM / "pose"
    (pose / "1.txt").write_text("-inf " * 16)
    assert [camera.name for camera in ScanNet(world).cameras(0)] == ["0", "2"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("pose/0.txt", None, r"pose/0\.txt: file is missing"),
        ("pose/0.txt", "1 2 3", "not 4 x 4 numbers"),
        ("pose/0.txt", "a " * 16, "not 4 x 4 numbers"),
        ("pose/0.txt", "2 " * 16, "pose is no turn with a shift"),
        ("intrinsic/intrinsic_color.txt", None, "file is missing"),
        ("intrinsic/intrinsic_color.txt", "0 " * 16, "focal lengths are not positive"),
        ("intrinsic/intrinsic_color.txt", "9 0 80 0 0 9 60 0 0 0 2 0 0 0 0 1", "no camera matrix"),
        ("intrinsic/intrinsic_color.txt", "9 0 320 0 0 9 240 0 0 0 1 0 0 0 0 1", "not near the"),
        ("color/0.jpg", "no image", "not an image"),
    ],
)
def test_damaged_frames(world, name, content, reason):
    file = world / "scans" / _ROOM / name
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=reason):
        ScanNet(world).cameras(0)


def test_many_frames_are_thinned_evenly(world, monkeypatch):
    monkeypatch.setattr(ScanNet, "max_cameras", 2)
    assert [camera.name for camera in ScanNet(world).cameras(0)] == ["0", "2"]


def test_test_rooms_have_no_labels(made, tmp_path):
    """Rooms of the test split lie in scans_test/ with nothing but their mesh and text file."""
    name = "scene0707_00"
    folder = tmp_path / "scans_test" / name
    folder.mkdir(parents=True)
    mesh = made / "scans" / _ROOM / f"{_ROOM}_vh_clean_2.ply"
    (folder / f"{name}_vh_clean_2.ply").symlink_to(mesh)
    (folder / f"{name}.txt").write_text("appVersionId = 87\n")
    (tmp_path / "scannetv2_test.txt").write_text(f"{name}\n")
    for align in (False, True):
        (scan,) = ScanNet(tmp_path, split="test", align=align)
        assert (scan.labels, scan.instance, scan.boxes) == (None, None, None)
        assert scan.name == name
