import hashlib
import json

import numpy as np
import pytest
from pc_data.check import check_dataset
from pc_data.readers.nuscenes import CLASS_NAMES, NuScenes
from pc_data.readers.nuscenes_splits import TRAIN, VAL
from pc_data.synthetic import make_street_nuscenes
from pc_data.synthetic.categories import NUSCENES_INDEX, NUSCENES_NAMES
from pc_data.synthetic.nuscenes import _record
from pc_data.synthetic.output import make_frames
from pc_data.synthetic.rig import CAMERAS, quaternion, small_rotation
from pc_data.synthetic.sensors import render
from pc_geometry.boxes import points_in_boxes
from PIL import Image

from tests.real_data import REAL_DATA, needs_real_data

_SMALL = {"num_scenes": 2, "frames_per_scene": 2, "image_size": (96, 54)}
_TABLES = [
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
    "lidarseg",
    "panoptic",
]


def _tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "nuscenes"
    make_street_nuscenes(out, seed=5, **_SMALL)
    return out


@pytest.fixture(scope="module")
def tables(root):
    folder = root / "v1.0-trainval"
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def _matrix(row):
    w, x, y, z = row["rotation"]
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = row["translation"]
    return pose


def test_same_seed_same_bytes(root, tmp_path, monkeypatch):
    monkeypatch.setattr("pc_data.synthetic.output.num_cores", lambda: 1)
    make_street_nuscenes(tmp_path / "again", seed=5, **_SMALL)
    assert _tree_hash(tmp_path / "again") == _tree_hash(root)


def test_other_seed_other_bytes(root, tmp_path):
    make_street_nuscenes(tmp_path / "other", seed=6, **_SMALL)
    assert _tree_hash(tmp_path / "other") != _tree_hash(root)


def test_all_tables_and_files_are_there(root, tables):
    assert sorted(tables) == sorted(_TABLES)
    for row in tables["sample_data"]:
        path = root / row["filename"]
        if row["fileformat"] == "pcd":
            assert path.stat().st_size == 32 * 1084 * 20
        else:
            with Image.open(path) as image:
                assert image.size == (row["width"], row["height"]) == (96, 54)
    for row in tables["lidarseg"]:
        assert (root / row["filename"]).stat().st_size == 32 * 1084
        assert row["filename"] == f"lidarseg/v1.0-trainval/{row['sample_data_token']}_lidarseg.bin"
    for row in tables["panoptic"]:
        assert row["filename"] == f"panoptic/v1.0-trainval/{row['sample_data_token']}_panoptic.npz"
        with np.load(root / row["filename"]) as archive:
            assert [(name, archive[name].dtype) for name in archive] == [("data", np.uint16)]
    assert not (root / "sweeps").exists()
    for row in tables["map"]:
        assert (root / row["filename"]).is_file()
    assert [row["name"] for row in tables["category"]] == list(NUSCENES_NAMES)
    assert [row["index"] for row in tables["category"]] == list(range(32))


def test_tokens_are_unique_and_refer(tables):
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(tokens[name]) == len(rows)
        for row in rows:
            for key, value in row.items():
                target = key.removesuffix("_token")
                if key.endswith("_token") and target in tokens:
                    assert value in tokens[target], (name, key)
            for token in row.get("attribute_tokens", []):
                assert token in tokens["attribute"]


def test_splits_follow_the_official_names(tables):
    names = [row["name"] for row in tables["scene"]]
    assert [name in TRAIN for name in names] == [True, False]
    assert [name in VAL for name in names] == [False, True]


def test_chains_link_the_samples_of_a_scene(tables):
    samples = {row["token"]: row for row in tables["sample"]}
    for scene in tables["scene"]:
        token, stamps = scene["first_sample_token"], []
        while token:
            stamps.append(samples[token]["timestamp"])
            last, token = token, samples[token]["next"]
        assert last == scene["last_sample_token"]
        assert len(stamps) == scene["nbr_samples"] == 2
        assert 4e5 < stamps[1] - stamps[0] < 6e5
    data = {row["token"]: row for row in tables["sample_data"]}
    followers = [data[row["next"]] for row in tables["sample_data"] if row["next"]]
    assert len(followers) == 2 * 7
    assert all(data[row["prev"]]["next"] == row["token"] for row in followers)


def test_cameras_have_their_own_poses(tables):
    poses = {row["token"]: row for row in tables["ego_pose"]}
    channel = {row["token"]: row["channel"] for row in tables["sensor"]}
    mounts = {row["token"]: channel[row["sensor_token"]] for row in tables["calibrated_sensor"]}
    by_sample = {}
    for row in tables["sample_data"]:
        by_sample.setdefault(row["sample_token"], {})[mounts[row["calibrated_sensor_token"]]] = row
    for rows in by_sample.values():
        lidar = rows["LIDAR_TOP"]
        delay = lidar["timestamp"] - rows["CAM_FRONT_LEFT"]["timestamp"]
        assert 4e4 < delay < 5e4
        start, end = (
            np.array(poses[rows[name]["ego_pose_token"]]["translation"])
            for name in ("LIDAR_TOP", "CAM_FRONT_LEFT")
        )
        assert 0.1 < np.linalg.norm(end - start) < 0.5


def test_boxes_hold_the_points_of_their_object(root, tables):
    data = {row["sample_token"]: row for row in tables["sample_data"] if row["fileformat"] == "pcd"}
    poses = {row["token"]: row for row in tables["ego_pose"]}
    mounts = {row["token"]: row for row in tables["calibrated_sensor"]}
    names = {row["token"]: row["name"] for row in tables["category"]}
    kinds = {row["token"]: names[row["category_token"]] for row in tables["instance"]}
    labels = {row["sample_data_token"]: row["filename"] for row in tables["lidarseg"]}
    same = total = 0
    for box in tables["sample_annotation"]:
        row = data[box["sample_token"]]
        points = np.fromfile(root / row["filename"], np.float32).reshape(-1, 5)[:, :3]
        raw = np.fromfile(root / labels[row["token"]], np.uint8)
        pose = _matrix(poses[row["ego_pose_token"]]) @ _matrix(
            mounts[row["calibrated_sensor_token"]]
        )
        xyz = points @ pose[:3, :3].T + pose[:3, 3]
        own = (xyz - box["translation"]) @ _matrix(box)[:3, :3]
        width, length, height = box["size"]
        inside = (np.abs(own) <= np.array([length, width, height]) / 2).all(1)
        inside &= ~np.isin(raw, (0, 31))
        assert abs(int(inside.sum()) - box["num_lidar_pts"]) <= 1 + 0.02 * box["num_lidar_pts"]
        total += inside.sum()
        same += (raw[inside] == NUSCENES_NAMES.index(kinds[box["instance_token"]])).sum()
    assert total > 2000
    assert same / total > 0.85


def test_panoptic_labels_name_the_object_of_the_box(root, tables):
    """Official rules: class and object of things, class of stuff, nothing for things in no box."""
    lidarseg = {row["sample_data_token"]: row["filename"] for row in tables["lidarseg"]}
    for row in tables["panoptic"]:
        raw = np.fromfile(root / lidarseg[row["sample_data_token"]], np.uint8).astype(int)
        with np.load(root / row["filename"]) as archive:
            label, number = np.divmod(archive["data"].astype(int), 1000)
        stuff = (raw == 0) | (raw >= 24)
        assert (number[stuff] == 0).all()
        np.testing.assert_array_equal(label[stuff], raw[stuff])
        np.testing.assert_array_equal(label, np.where(stuff | (number > 0), raw, 0))
        assert (number[~stuff] > 0).mean() > 0.9
    same = total = 0
    objects = {
        hashlib.md5(f"{scene['token']}/instance/{number}".encode()).hexdigest(): number
        for scene in tables["scene"]
        for number in range(1, 1000)
    }
    for scan in NuScenes(root, split="all", boxes=True):
        indices, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
        for k, token in enumerate(scan.boxes.track):
            found = scan.instance[indices[splits[k] : splits[k + 1]]]
            found = found[found > 0] % 1000
            total += len(found)
            same += (found == objects[token]).sum()
    assert total > 1000
    assert same / total > 0.95


def test_boxes_of_an_object_have_its_class(root):
    """Labels of points and classes of boxes come from different tables."""
    dataset = NuScenes(root, split="all", boxes=True)
    same = total = 0
    for scan in dataset:
        indices, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
        for k, label in enumerate(scan.boxes.labels.tolist()):
            found = scan.labels[indices[splits[k] : splits[k + 1]]]
            found = found[(found >= 0) & (found < 10)]
            if label >= 0:
                total += len(found)
                same += (found == CLASS_NAMES.index(dataset.box_class_names[label])).sum()
    assert total > 1000
    assert same / total > 0.95


def test_sweeps_add_files_and_rows_and_change_no_others(root, tables, tmp_path):
    out = tmp_path / "more"
    make_street_nuscenes(out, seed=5, **_SMALL, sweeps_per_keyframe=2)
    ours = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    changed = [str(name) for name in ours if not (root / name).is_file()]
    assert len(changed) == 2 * 2  # none before a scene's first keyframe
    assert all(name.startswith("sweeps/LIDAR_TOP/") for name in changed)
    tables_changed = {"v1.0-trainval/ego_pose.json", "v1.0-trainval/sample_data.json"}
    for name, path in ours.items():
        if str(name) not in {*changed, *tables_changed}:
            assert path.read_bytes() == (root / name).read_bytes()
    rows = json.loads((out / "v1.0-trainval/sample_data.json").read_text())
    data = {row["token"]: row for row in rows}
    assert [row["filename"] for row in rows if not row["is_key_frame"]] == sorted(changed)
    for row in rows:
        assert (row["prev"] == "") == (row["token"] not in {r["next"] for r in rows})
        if row["prev"]:
            assert data[row["prev"]]["next"] == row["token"]
            assert data[row["prev"]]["timestamp"] < row["timestamp"]
    assert check_dataset(out).ok
    assert np.unique(NuScenes(out, sweeps=10)[1].time).round(2).size == 4


def test_points_project_onto_pixels_of_their_class(root, tables):
    agree = []
    data = {
        (row["sample_token"], row["filename"].split("/")[1]): row for row in tables["sample_data"]
    }
    poses = {row["token"]: row for row in tables["ego_pose"]}
    mounts = {row["token"]: row for row in tables["calibrated_sensor"]}
    labels = {row["sample_data_token"]: row["filename"] for row in tables["lidarseg"]}
    recording = _record(0, seed=5, num_train=1, num_frames=2, image_size=(96, 54))
    token = tables["scene"][0]["first_sample_token"]
    lidar = data[token, "LIDAR_TOP"]
    world = recording.scene.world(recording.time(lidar["timestamp"]))
    points = np.fromfile(root / lidar["filename"], np.float32).reshape(-1, 5)[:, :3]
    raw = np.fromfile(root / labels[lidar["token"]], np.uint8)
    for camera in CAMERAS:
        row = data[token, camera.channel]
        mount = mounts[row["calibrated_sensor_token"]]
        sensor = _matrix(poses[lidar["ego_pose_token"]]) @ _matrix(
            mounts[lidar["calibrated_sensor_token"]]
        )
        eye = _matrix(poses[row["ego_pose_token"]]) @ _matrix(mount)
        xyz = points @ sensor[:3, :3].T + sensor[:3, 3]
        seen = (xyz - eye[:3, 3]) @ eye[:3, :3]
        uvw = seen @ np.array(mount["camera_intrinsic"]).T
        u, v = (uvw[:, :2] / np.where(uvw[:, 2:] > 0, uvw[:, 2:], np.nan)).T
        keep = (seen[:, 2] > 1) & (u >= 0) & (u < 96) & (v >= 0) & (v < 54)
        keep &= ~np.isin(raw, (0, 31))
        picture, classes = render(
            world,
            recording.scene.look,
            recording.scene.paving,
            recording.scene.light,
            pose=recording.scene.ego_pose(recording.time(row["timestamp"]))
            @ recording.mounts[camera.channel],
            intrinsics=recording.intrinsics[camera.channel],
            image_size=(96, 54),
        )
        with Image.open(root / row["filename"]) as image:
            assert np.abs(np.asarray(image, dtype=float) - picture).mean() < 8
        shown = NUSCENES_INDEX[classes[v[keep].astype(int), u[keep].astype(int)]]
        agree.append(shown == raw[keep])
    assert len(np.concatenate(agree)) > 3000
    assert np.concatenate(agree).mean() > 0.85


def test_the_lidar_looks_like_one(root, tables):
    rows = [row for row in tables["sample_data"] if row["fileformat"] == "pcd"]
    labels = {row["sample_data_token"]: row["filename"] for row in tables["lidarseg"]}
    points = np.stack([np.fromfile(root / r["filename"], np.float32).reshape(-1, 5) for r in rows])
    raw = np.stack([np.fromfile(root / labels[r["token"]], np.uint8) for r in rows])
    assert np.isfinite(points).all()
    assert np.array_equal(points[0, :64, 4], np.tile(np.arange(32), 2))
    intensity = points[..., 3]
    assert intensity.min() >= 0
    assert intensity.max() <= 255
    assert 8 < intensity.mean() < 30
    assert 8 < intensity.std() < 35
    distance = np.linalg.norm(points[..., :3], axis=-1)
    elevation = np.degrees(np.arcsin(points[..., 2] / distance))
    assert abs(np.median(elevation[points[..., 4] == 0]) + 30.67) < 0.05
    assert abs(np.median(elevation[points[..., 4] == 31]) - 10.67) < 0.05
    assert 0.05 < (distance < 0.5).mean() < 0.5
    assert (raw[distance < 0.5] == 0).all()
    seen = set(np.unique(raw).tolist())
    assert {17, 24, 26, 28, 30} <= seen
    assert len(seen) >= 12


@needs_real_data
def test_rows_have_the_keys_and_types_of_a_recording(tables):
    for path in sorted((REAL_DATA / "nuscenes" / "v1.0-mini").glob("*.json")):
        real, ours = json.loads(path.read_text())[0], tables[path.stem][0]
        assert set(real) == set(ours), path.stem
        for key, value in real.items():
            assert type(value) is type(ours[key]), (path.stem, key)


def test_a_used_folder_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        make_street_nuscenes(tmp_path, num_scenes=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"num_scenes": 0}, "num_scenes must be at least 1"),
        ({"num_scenes": 2000}, "num_scenes must leave at most 700"),
        ({"frames_per_scene": 0}, "frames_per_scene must be at least 1"),
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\)"),
        ({"image_size": (448, 8)}, "image_size must be at least 16 x 16"),
        ({"sweeps_per_keyframe": -1}, r"sweeps_per_keyframe must be in \[0, 9\]"),
        ({"sweeps_per_keyframe": 10}, r"sweeps_per_keyframe must be in \[0, 9\]"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        make_street_nuscenes(tmp_path / "x", **({"seed": 0} | _SMALL | change))
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_street_nuscenes(tmp_path / "x", seed=0, progress=stop, **_SMALL)
    assert not list(tmp_path.iterdir())


def test_frames_come_in_order_and_errors_come_through():
    scenes = [lambda k=k: 10 * k for k in range(7)]
    got = list(make_frames(scenes, lambda _, f, scene: scene + f, num_frames=3))
    assert got == [(i, f, 10 * i, 10 * i + f) for i in range(7) for f in range(3)]
    with pytest.raises(ZeroDivisionError):
        list(make_frames(scenes, lambda i, _f, _scene: 1 // (4 - i), num_frames=3))


def test_quaternions_give_their_rotation_back():
    rng = np.random.default_rng(0)
    for angles in (*rng.normal(0, 1.5, (50, 3)), np.zeros(3), np.array([np.pi, 0, 0])):
        axes = small_rotation(angles)
        row = {"rotation": quaternion(axes), "translation": [0, 0, 0]}
        np.testing.assert_allclose(_matrix(row)[:3, :3], axes, atol=1e-12)
