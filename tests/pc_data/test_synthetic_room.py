import dataclasses
import hashlib

import numpy as np
import pytest
from pc_data.files.ply import read_ply
from pc_data.readers.scannet_files import vertex_normals
from pc_data.synthetic.room import make_room
from pc_data.synthetic.room_parts import Item, Look, ball, block, post
from pc_data.synthetic.room_plan import KINDS
from pc_data.synthetic.room_solids import build_solids, distance_to
from pc_data.synthetic.scannet import _CATEGORIES, make_room_pointcept, make_room_scannet
from pc_data.synthetic.surface_nets import surface_net
from pc_geometry import project_points
from pc_geometry.boxes import points_in_boxes
from PIL import Image

_SMALL = {"voxel_size": 0.05, "num_frames": 2, "image_size": (120, 90)}
_STUFF = {"wall", "floor", "ceiling"}


@pytest.fixture(scope="module")
def rooms():
    """One of each kind, validation and training in turn."""
    return {kind: make_room(k, k % 2 == 1, kind=kind, **_SMALL) for k, kind in enumerate(KINDS)}


def _arrays(room):
    for field in dataclasses.fields(room):
        value = getattr(room, field.name)
        if isinstance(value, np.ndarray):
            yield value
    for frame in room.frames:
        yield from frame
    yield np.array([item.cuboid for item in room.objects])


def test_same_seed_same_room_and_other_seed_another(rooms):
    again = make_room(0, False, kind="bedroom", **_SMALL)
    for first, second in zip(_arrays(rooms["bedroom"]), _arrays(again), strict=True):
        np.testing.assert_array_equal(first, second)
    other = make_room((0, 1), False, kind="bedroom", **_SMALL)
    assert len(other.xyz) != len(again.xyz)
    val = make_room(0, True, kind="bedroom", **_SMALL)
    assert len(val.xyz) != len(again.xyz)


def test_meshes_are_sound(rooms):
    for room in rooms.values():
        count = len(room.xyz)
        assert 5_000 < count < 80_000
        assert np.isfinite(room.xyz).all()
        assert len(room.color) == len(room.instance) == count
        assert set(np.unique(room.faces)) == set(range(count))
        assert (room.xyz[:, 2] > -0.1).all()
        assert (room.xyz[:, 2] < room.size[2] + 0.1).all()
        assert 1 <= room.instance.min() <= room.instance.max() <= len(room.objects)
        edges = np.linalg.norm(room.xyz[room.faces[:, 0]] - room.xyz[room.faces[:, 1]], axis=1)
        assert 0.5 * 0.05 < np.median(edges) < 1.5 * 0.05


def test_normals_face_the_room(rooms):
    for room in rooms.values():
        normal = vertex_normals(room.xyz, room.faces)
        name = np.array(["", *(item.name for item in room.objects)])[room.instance]
        assert np.median(normal[name == "floor", 2]) > 0.97
        wall = (name == "wall") & (np.abs(normal[:, 2]) < 0.3)
        away = room.xyz[wall, :2] / np.array(room.size[:2])
        assert (np.einsum("ni,ni->n", normal[wall, :2], away) < 0).mean() > 0.8


def test_objects_lie_in_their_boxes(rooms):
    for room in rooms.values():
        cuboid = np.array([item.cuboid for item in room.objects])
        grown = cuboid + np.array([0, 0, 0, 0.09, 0.09, 0.09, 0])
        indices, splits = points_in_boxes(room.xyz, grown)
        for k, item in enumerate(room.objects):
            own = np.flatnonzero(room.instance == k + 1)
            inside = np.isin(own, indices[splits[k] : splits[k + 1]])
            assert inside.all(), item.name
        assert (cuboid[:, 3:6] > 0).all()
        assert (np.abs(cuboid[:, 6]) <= np.pi).all()


def test_kinds_have_what_makes_them(rooms):
    names = {kind: {item.name for item in room.objects} for kind, room in rooms.items()}
    for found in names.values():
        assert {*_STUFF, "door", "doorframe"} <= found <= set(_CATEGORIES)
        assert len(found) >= 9
    assert {"bed", "pillow"} <= names["bedroom"]
    assert {"kitchen cabinet", "kitchen counter", "sink", "stove"} <= names["kitchen"]
    assert {"toilet", "sink"} <= names["bathroom"]


def test_every_class_of_the_benchmark_occurs():
    """Twenty classes come up in the furniture of a few dozen rooms, with their variety."""
    from pc_data.synthetic.room_plan import furnish_room
    from pc_data.synthetic.room_solids import flatten
    from pc_data.synthetic.room_style import TRAIN, VAL

    for style in (TRAIN, VAL):
        found = set()
        for seed in range(60):
            _, _, items = furnish_room(np.random.default_rng(seed), style)
            found |= {item.name for item in flatten(items)}
        classes = {_CATEGORIES[name][1] for name in found}
        assert {*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39} <= classes
        assert found <= set(_CATEGORIES)
        assert len(found) > 45


def test_furniture_does_not_stand_in_furniture(rooms):
    from pc_geometry.boxes import iou_bev

    large = {"bed", "couch", "armchair", "desk", "table", "wardrobe", "dresser", "bookshelf"}
    large |= {"toilet", "bathtub", "refrigerator", "tv stand", "coffee table"}
    for room in rooms.values():
        cuboid = np.array([item.cuboid for item in room.objects if item.name in large])
        if len(cuboid) > 1:
            overlap = iou_bev(cuboid, cuboid)
            np.fill_diagonal(overlap, 0)
            assert overlap.max() < 1e-6


def test_frames_agree_with_the_mesh(rooms):
    for room in rooms.values():
        seen = 0
        for frame in room.frames:
            assert frame.color.shape == (90, 120, 3)
            assert frame.depth.shape == frame.instance.shape == (90, 120)
            assert frame.depth.max() <= 4500
            back = np.linalg.inv(frame.pose)
            np.testing.assert_allclose(back[:3, :3] @ back[:3, :3].T, np.eye(3), atol=1e-9)
            pixel, depth = project_points(room.xyz, back, frame.intrinsics)
            inside = (depth > 0.4) & (pixel >= 0).all(1) & (pixel < (120, 90)).all(1)
            u, v = pixel[inside].astype(int).T
            near = np.abs(frame.depth[v, u] / 1000 - depth[inside]) < 0.05
            same = frame.instance[v, u][near] == room.instance[inside][near]
            assert same.mean() > 0.85
            seen += near.sum()
        assert seen > 300


def test_what_no_view_shows_is_missing(rooms):
    """The undersides of beds and tables, and what lies behind cabinets, have no vertices."""
    for room in rooms.values():
        normal = vertex_normals(room.xyz, room.faces)
        low = room.xyz[:, 2] < 0.9
        assert (normal[low, 2] < -0.8).mean() < 0.02
        name = np.array(["", *(item.name for item in room.objects)])[room.instance]
        floor = room.xyz[name == "floor"]
        cells = len(np.unique(np.floor(floor[:, :2] / 0.1), axis=0))
        assert 0.3 < cells / (room.size[0] * room.size[1] * 100) < 1.1


def test_colors_and_heights_overlap_between_classes():
    """No colour belongs to one class: of the furniture, each channel's quartiles overlap."""
    found = {}
    for seed in range(12):
        room = make_room((9, seed), False, voxel_size=0.12, num_frames=0)
        for number, item in enumerate(room.objects, start=1):
            own = room.color[room.instance == number]
            if len(own) > 10:
                found.setdefault(_CATEGORIES[item.name][2], []).append(own.mean(0))
    means = {name: np.array(rows) for name, rows in found.items() if len(rows) >= 8}
    assert {"chair", "cabinet", "door"} <= set(means)
    spread = np.mean([rows.std(0).mean() for rows in means.values()])
    between = np.std([rows.mean(0).mean() for rows in means.values()])
    assert spread > between


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="num_scenes must be at least 1"):
        make_room_scannet(tmp_path / "a", num_scenes=0, seed=0)
    with pytest.raises(ValueError, match=r"voxel_size must be at least 0\.01"):
        make_room_scannet(tmp_path / "a", num_scenes=1, seed=0, voxel_size=0.0)
    with pytest.raises(ValueError, match="num_frames must be 0 or more, got -1"):
        make_room_scannet(tmp_path / "a", num_scenes=1, seed=0, num_frames=-1)
    with pytest.raises(ValueError, match="image_size must be at least 16 x"):
        make_room_scannet(tmp_path / "a", num_scenes=1, seed=0, image_size=(8, 8))
    with pytest.raises(ValueError, match="val_fraction"):
        make_room_pointcept(tmp_path / "a", num_scenes=1, seed=0, val_fraction=1.0)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        make_room_pointcept(tmp_path, num_scenes=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# --- the writer


def _tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def test_release_layout_to_the_byte(tmp_path):
    calls = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_room_scannet(
            tmp_path / name,
            num_scenes=2,
            seed=seed,
            progress=lambda *done: calls.append(done),
            num_frames=1,
            image_size=(64, 48),
            voxel_size=0.08,
        )
    assert calls == [(1, 2), (2, 2)] * 3
    hashes = [_tree_hash(tmp_path / name) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    root = tmp_path / "a"
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    room = "scene0001_00"
    names = ("_vh_clean_2.ply", "_vh_clean_2.labels.ply", ".aggregation.json", ".txt")
    expected = {f"scans/{room}/{room}{name}" for name in names}
    expected.add(f"scans/{room}/{room}_vh_clean_2.0.010000.segs.json")
    expected |= {f"scans/{room}/{name}" for name in ("color/0.jpg", "depth/0.png", "pose/0.txt")}
    kinds = ("intrinsic_color", "intrinsic_depth", "extrinsic_color", "extrinsic_depth")
    expected |= {f"scans/{room}/intrinsic/{kind}.txt" for kind in kinds}
    assert {name for name in files if room in name} == expected
    lists = {"scannetv2_train.txt", "scannetv2_val.txt", "scannetv2-labels.combined.tsv"}
    assert {name for name in files if "/" not in name} == lists
    assert (root / "scannetv2_val.txt").read_text() == f"{room}\n"
    with Image.open(root / f"scans/{room}/depth/0.png") as image:
        assert image.size == (64, 48)
        assert np.asarray(image).dtype == np.uint16
    mesh = read_ply(root / f"scans/{room}/{room}_vh_clean_2.ply")
    assert list(mesh["vertex"]) == ["x", "y", "z", "red", "green", "blue", "alpha"]
    labelled = read_ply(root / f"scans/{room}/{room}_vh_clean_2.labels.ply")
    assert labelled["vertex"]["label"].dtype == np.uint16


# --- the parts


def test_surface_net_of_a_ball():
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), axis=3) - 11.3
    distance = (np.linalg.norm(grid, axis=3) - 8).astype(np.float32)
    xyz, place, faces = surface_net(distance)
    radius = np.linalg.norm(xyz - 11.3, axis=1)
    assert np.abs(radius - 8).max() < 0.15
    assert (place == np.floor(xyz)).all(1).mean() > 0.99
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses == 2).all()  # closed
    assert len(xyz) - len(edges) + len(faces) == 2  # a sphere
    a, b, c = (xyz[faces[:, k]] for k in range(3))
    volume = np.einsum("ni,ni->n", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.02)  # outwards


def test_surface_net_of_nothing():
    xyz, place, faces = surface_net(np.ones((4, 4, 4), np.float32))
    assert (xyz.shape, place.shape, faces.shape) == ((0, 3), (0, 3), (0, 3))


def test_distances_by_hand():
    look = Look((0.5, 0.5, 0.5))
    pieces = (
        block((0.0, 2.0), (0.0, 4.0), (0.0, 6.0), look),
        post(0.0, 0.0, (-1.0, 1.0), 2.0, look),
        ball((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), look),
        block((-1.0, 1.0), (-1.0, 1.0), (-1.0, 1.0), look)._replace(yaw=np.pi / 4),
    )
    solids, objects = build_solids([Item("x", pieces)], np.random.default_rng(0))

    def distance(row, *point):
        return float(distance_to(solids.primitives, row, np.array([point], np.float32))[0])

    assert distance(0, 1, 2, 7) == pytest.approx(1)
    assert distance(0, 5, 8, 6) == pytest.approx(5)
    assert distance(0, 1, 2, 3) == pytest.approx(-1)
    assert distance(1, 5, 0, 0) == pytest.approx(3)
    assert distance(1, 5, 0, 5) == pytest.approx(5)
    assert distance(1, 0, 0, 0.5) == pytest.approx(-0.5)
    assert distance(2, 0, 3, 0) == pytest.approx(2 * 3 / 3 * 3 / 3)
    assert distance(3, 2, 0, 0) == pytest.approx(2 - np.sqrt(2), abs=0.3)
    np.testing.assert_allclose(objects[0].cuboid[3:6], (4, 6, 7), atol=1e-9)


def test_items_turn_as_a_whole():
    look = Look((0.5, 0.5, 0.5))
    small = Item("b", (block((1.0, 2.0), (0.0, 1.0), (0.0, 1.0), look),))
    item = Item("a", (block((-1.0, 1.0), (0.0, 1.0), (0.0, 2.0), look),), (small,))
    moved = item.moved(10.0, 20.0, 1.0, yaw=np.pi / 2)
    low, high = moved.whole_extent()
    np.testing.assert_allclose(low, (9, 19, 1), atol=1e-12)
    np.testing.assert_allclose(high, (10, 22, 3), atol=1e-12)
    _, objects = build_solids([moved], np.random.default_rng(0))
    assert [thing.name for thing in objects] == ["a", "b"]
    np.testing.assert_allclose(objects[0].cuboid, (9.5, 20, 2, 2, 1, 2, np.pi / 2), atol=1e-12)
