import json
import shutil

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.arkitscenes import BOX_CLASS_NAMES, ARKitScenes
from pc_data.readers.arkitscenes_files import find_frames, make_camera, read_boxes, read_trajectory
from pc_data.synthetic.arkitscenes import make_room_arkitscenes
from pc_geometry import project_points
from pc_geometry.boxes import box_corners, points_in_boxes
from pc_geometry.cameras import visible_points
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

TRAIN, VAL = "40753600", "40753601"
SETTINGS = {"num_scenes": 2, "seed": 5, "image_size": (96, 72), "voxel_size": 0.06}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("arkitscenes") / "3dod"
    make_room_arkitscenes(out, **SETTINGS)
    return out


@pytest.fixture
def copy(world, tmp_path):
    return shutil.copytree(world, tmp_path / "3dod")


def frames_folder(root):
    return root / "Training" / TRAIN / f"{TRAIN}_frames"


def annotation_file(root):
    return root / "Training" / TRAIN / f"{TRAIN}_3dod_annotation.json"


# --- the writer


def test_layout_is_the_official_one(world):
    folder = world / "Training" / TRAIN
    names = {path.relative_to(folder).as_posix() for path in folder.glob("*")}
    suffixes = ("3dod_mesh.ply", "3dod_annotation.json", "frames")
    assert names == {f"{TRAIN}_{suffix}" for suffix in suffixes}
    content = {path.name for path in frames_folder(world).iterdir()}
    assert content == {
        "lowres_wide",
        "lowres_depth",
        "lowres_wide_intrinsics",
        "lowres_wide.traj",
    }
    with Image.open(next((frames_folder(world) / "lowres_depth").iterdir())) as depth:
        assert (depth.mode, depth.size) == ("I;16", (96, 72))
    content = json.loads(annotation_file(world).read_bytes())
    assert content["skipped"] is False
    assert {"uid", "label", "segments"} < set(content["data"][0])


def test_same_seed_same_bytes(world, tmp_path):
    make_room_arkitscenes(tmp_path / "again", **SETTINGS)
    for file in sorted(path for path in world.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / file.relative_to(world)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_scenes": 0}, "num_scenes must be at least 1"),
        ({"num_frames": 0}, "must be at least 1, got 0"),
        ({"image_size": (8, 8)}, "image_size must be at least 16 x 16"),
        ({"voxel_size": 0.0}, "voxel_size must be at least 0.01"),
    ],
)
def test_writer_refuses(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_room_arkitscenes(tmp_path / "out", **(SETTINGS | wrong))
    assert not (tmp_path / "out").exists()


# --- scans


def test_scan(world):
    dataset = ARKitScenes(world)
    assert dataset.scene_names == (TRAIN,)
    scan = dataset[0]
    assert scan.name == TRAIN
    assert scan.labels is None
    assert scan.instance is None
    assert scan.pose is None
    assert scan.color.std() > 0.05
    np.testing.assert_allclose(np.linalg.norm(scan.normal, axis=1), 1, atol=1e-4)
    # The floor is below everything and looks up.
    low = scan.xyz[:, 2] < np.quantile(scan.xyz[:, 2], 0.02)
    assert scan.normal[low, 2].mean() > 0.9


@pytest.mark.parametrize(
    ("split", "names"), [("train", (TRAIN,)), ("val", (VAL,)), ("all", (TRAIN, VAL))]
)
def test_splits_are_folders(world, split, names):
    assert ARKitScenes(world, split=split).scene_names == names


def test_classes_are_the_official_ones():
    assert len(BOX_CLASS_NAMES) == 17
    assert BOX_CLASS_NAMES[0] == "cabinet"
    assert BOX_CLASS_NAMES[6] == "washer"
    assert BOX_CLASS_NAMES[15:] == ("tv_monitor", "sofa")


def test_depth_images_lie_on_the_mesh(world):
    """Poses, intrinsics and mesh share one frame: back-projected depth meets the mesh."""
    scan = ARKitScenes(world)[0]
    tree = cKDTree(scan.xyz)
    for camera in scan.cameras:
        file = camera.image_file.parents[1] / "lowres_depth" / camera.image_file.name
        with Image.open(file) as image:
            depth = np.asarray(image) / 1000
        rows, columns = np.nonzero(depth)
        pixel = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], axis=1)
        rays = pixel @ np.linalg.inv(camera.intrinsics).T
        own = np.column_stack([rays * depth[rows, columns][:, None], np.ones(len(rows))])
        xyz = own @ np.linalg.inv(camera.from_scan).T
        apart, nearest = tree.query(xyz[:, :3])
        assert np.median(apart) < 0.05
        seen = camera.load_image()[rows, columns] / 255
        assert np.abs(seen - scan.color[nearest])[apart < 0.05].mean() < 0.15


def test_cameras_see_the_room(world):
    dataset = ARKitScenes(world, split="all")
    for scan in (dataset[0], dataset[1]):
        assert len(scan.cameras) == 4
        for camera in scan.cameras:
            pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
            assert visible_points(pixel, depth, camera.image_size).sum() > 50


def test_boxes_hold_their_objects(world):
    dataset = ARKitScenes(world, split="all")
    for scan in (dataset[0], dataset[1]):
        assert len(scan.boxes) >= 4
        assert len(set(scan.boxes.track)) == len(scan.boxes)
        assert (scan.boxes.labels >= 0).all()
        _, splits = points_in_boxes(scan.xyz, scan.boxes.cuboid)
        assert (np.diff(splits) >= 20).all()


def test_without_labels(world):
    dataset = ARKitScenes(world, labels=False)
    assert dataset[0].boxes is None
    assert dataset.load_boxes(0) is None


# --- boxes by hand


def annotate(file, **changes):
    box = {
        "centroid": [1.0, 2.0, 0.5],
        "axesLengths": [2.0, 0.6, 1.0],
        "normalizedAxes": Rotation.from_euler("z", 30, degrees=True).as_matrix().T.ravel().tolist(),
    } | changes
    item = {"uid": "a", "label": "tv-monitor", "segments": {"obbAligned": box}}
    file.write_text(json.dumps({"data": [item], "skipped": False}))
    return file


def test_box_by_hand(tmp_path):
    boxes = read_boxes(annotate(tmp_path / "a.json"), BOX_CLASS_NAMES)
    np.testing.assert_allclose(boxes.cuboid, [[1, 2, 0.5, 2, 0.6, 1, np.pi / 6]])
    assert boxes.labels.tolist() == [15]
    assert boxes.track == ("a",)


@pytest.mark.parametrize("turn", [-170, -90, -3, 0, 45, 90, 179])
def test_corners_are_those_of_the_official_loader(tmp_path, turn):
    """Its corners are R^T times the half sides, plus the centre."""
    axes = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    file = annotate(tmp_path / "a.json", normalizedAxes=axes.ravel().tolist())
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 3), axis=3).reshape(-1, 3)
    corners = (axes.T @ (signs * [1.0, 0.3, 0.5]).T).T + np.array([1, 2, 0.5])
    found = box_corners(read_boxes(file, BOX_CLASS_NAMES).cuboid)[0]
    apart, _ = cKDTree(found).query(corners)
    assert apart.max() < 1e-9


def test_other_things_have_no_class(copy):
    file = annotation_file(copy)
    content = json.loads(file.read_bytes())
    content["data"][0]["label"] = "unicorn"
    file.write_text(json.dumps(content))
    assert ARKitScenes(copy)[0].boxes.labels[0] == -1


@pytest.mark.parametrize("how", ["skipped", "missing"])
def test_no_annotation(copy, how):
    file = annotation_file(copy)
    if how == "missing":
        file.unlink()
    else:
        file.write_text('{"data": [], "skipped": true}')
    assert ARKitScenes(copy)[0].boxes is None


def test_empty_room(copy):
    annotation_file(copy).write_text('{"data": [], "skipped": false}')
    boxes = ARKitScenes(copy)[0].boxes
    assert boxes.cuboid.shape == (0, 7)
    assert len(boxes) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"centroid": [1.0, 2.0]}, "box 0: centroid must be 3 numbers"),
        ({"centroid": ["1", "2", "3"]}, "box 0: centroid must be 3 numbers"),
        ({"centroid": [1.0, 2.0, float("nan")]}, "box 0: centroid must be finite"),
        ({"centroid": None}, "box 0: centroid must be 3 numbers"),
        ({"centroid": [[1.0], [2.0, 3.0]]}, "box 0: centroid must be 3 numbers"),
        ({"axesLengths": [1.0, 0.0, 1.0]}, "box 0 has a side or a place that no room has"),
        ({"axesLengths": [1.0, 1e300, 1.0]}, "box 0 has a side or a place that no room has"),
        ({"normalizedAxes": [1e300] * 9}, "box 0 does not stand upright"),
        ({"normalizedAxes": [1, 0, 0, 0, 0, -1, 0, 1, 0]}, "box 0 does not stand upright"),
    ],
)
def test_damaged_box(tmp_path, changes, message):
    file = annotate(tmp_path / "a.json", **changes)
    with pytest.raises(DataError, match=message):
        read_boxes(file, BOX_CLASS_NAMES)


# --- frames by hand


def test_trajectory_by_hand(tmp_path):
    file = tmp_path / "lowres_wide.traj"
    file.write_text("2.0 0 0 0 0 0 0\n1.0 0 0 1.5707963267948966 1 2 3")
    trajectory = read_trajectory(file)
    assert trajectory.time.tolist() == [1, 2]
    np.testing.assert_allclose(trajectory.from_world[0] @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)
    np.testing.assert_array_equal(trajectory.from_world[1], np.eye(4))


def test_rotations_are_those_of_scipy(tmp_path):
    vectors = np.random.default_rng(0).normal(0, 2, (20, 3))
    file = tmp_path / "lowres_wide.traj"
    file.write_text("".join(f"{k} {x} {y} {z} 0 0 0\n" for k, (x, y, z) in enumerate(vectors)))
    rotations = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(read_trajectory(file).from_world[:, :3, :3], rotations, atol=1e-12)


def write_frames(folder, images, poses):
    """Empty images and poses at these times; x of a pose is its time."""
    for name in ("lowres_wide", "lowres_wide_intrinsics"):
        (folder / name).mkdir(parents=True)
    for time in images:
        (folder / "lowres_wide" / f"7_{time:.3f}.png").touch()
    (folder / "lowres_wide.traj").write_text("".join(f"{t} 0 0 0 {t} 0 0\n" for t in poses))


def test_pose_is_the_nearest_within_five_milliseconds(tmp_path):
    write_frames(tmp_path, [1.0, 1.1, 1.2, 1.3], [1.0004, 1.0951, 1.102, 1.2061, 1.3])
    frames = find_frames(tmp_path, "7", limit=20)
    assert [frame.time for frame in frames] == [1.0, 1.1, 1.3]
    assert [frame.from_world[0, 3] for frame in frames] == [1.0004, 1.102, 1.3]


def test_one_pose(tmp_path):
    write_frames(tmp_path, [1.0], [1.001])
    assert len(find_frames(tmp_path, "7", limit=20)) == 1


def test_images_are_spread_evenly(tmp_path):
    times = np.round(np.arange(100) / 10, 3)
    write_frames(tmp_path, times, times)
    frames = find_frames(tmp_path, "7", limit=20)
    assert len(frames) == 20
    assert (frames[0].time, frames[-1].time) == (0.0, 9.9)


def test_other_files_are_no_images(tmp_path):
    write_frames(tmp_path, [1.0], [1.0])
    for name in ("8_1.000.png", "7_x.png", "7_1.000.jpg", "._7_1.000.png"):
        (tmp_path / "lowres_wide" / name).touch()
    assert len(find_frames(tmp_path, "7", limit=20)) == 1


@pytest.mark.parametrize("name", ["1.000", "0.999", "1.001"])
def test_intrinsics_of_a_neighbouring_name(tmp_path, name):
    write_frames(tmp_path, [1.0], [1.0])
    (tmp_path / "lowres_wide_intrinsics" / f"7_{name}.pincam").write_text("256 192 212 211 128 96")
    camera = make_camera(tmp_path, find_frames(tmp_path, "7", limit=20)[0])
    assert camera.name == "1.000"
    assert camera.image_size == (256, 192)
    np.testing.assert_array_equal(camera.intrinsics, [[212, 0, 128], [0, 211, 96], [0, 0, 1]])


def test_no_images(copy):
    shutil.rmtree(frames_folder(copy))
    assert ARKitScenes(copy)[0].cameras == ()


# --- damage


def overwrite(pattern, content):
    def damage(root):
        file = sorted(frames_folder(root).glob(pattern))[0]
        file.write_bytes(content(file.read_bytes()) if callable(content) else content)

    return damage


def remove(pattern):
    return lambda root: sorted(frames_folder(root).glob(pattern))[0].unlink()


TRAJ, PINCAM = "lowres_wide.traj", "lowres_wide_intrinsics/*"
DAMAGE = [
    (remove(TRAJ), r"traj: file is missing; extract"),
    (overwrite(TRAJ, b""), r"traj: no line; the file was cut off"),
    (overwrite(TRAJ, lambda c: c[:-20]), r"traj: line 4 has not 7 numbers"),
    (overwrite(TRAJ, lambda c: b"\n".join(c.split(b"\n")[:2])), r"poses for 2 of 4 images"),
    (overwrite(TRAJ, b"1 2 3 4 5 6 x\n"), r"traj: holds more than numbers"),
    (overwrite(TRAJ, b"1 2 3 4 5 6 nan\n"), r"traj: a pose is not finite"),
    (overwrite(TRAJ, b"1 2 3 4 5 6 1e9\n"), r"traj: a pose is not finite or far off"),
    (overwrite(TRAJ, b"1 0 0 0 0 0 0\n"), r"poses for 0 of 4 images; .*another video"),
    (remove(PINCAM), r"pincam: file is missing"),
    (overwrite(PINCAM, b""), r"pincam: must hold width, height"),
    (overwrite(PINCAM, b"96 72 80 80 48"), r"pincam: must hold width, height"),
    (overwrite(PINCAM, b"96 72 nan 80 48 36"), r"pincam: must hold width, height"),
    (overwrite(PINCAM, b"96 72 0 80 48 36"), r"sides 96 x 72 or focal lengths 0, 80"),
    (overwrite(PINCAM, b"9.5 72 80 80 48 36"), r"sides 9.5 x 72"),
    (overwrite(PINCAM, b"9.5 7.5 80 80 48 36"), r"sides 9.5 x 7.5"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage(copy, damage, message):
    damage(copy)
    dataset = ARKitScenes(copy)
    with pytest.raises(DataError, match=message):
        dataset[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "holds no list 'data'"),
        (b'{"data": {}}', "holds no list 'data'"),
        (b'{"data": [3]}', "box 0 has no label"),
        (b'{"data": [{"label": 3}]}', "box 0 has no label"),
        (b'{"data": [{"label": "bed"}]}', "box 0 has no segments.obbAligned"),
    ],
)
def test_damaged_annotation(copy, content, message):
    annotation_file(copy).write_bytes(content)
    with pytest.raises(DataError, match=message):
        ARKitScenes(copy).load_boxes(0)
    assert ARKitScenes(copy, labels=False)[0].boxes is None


def test_wrong_image_size(copy):
    overwrite(PINCAM, b"100 72 80 80 48 36")(copy)
    with pytest.raises(DataError, match="image is 96x72 pixels but its calibration is for 100x72"):
        ARKitScenes(copy)[0].cameras[0].load_image()


def test_missing_mesh_and_second_copy(copy):
    (copy / "Training" / TRAIN / f"{TRAIN}_3dod_mesh.ply").unlink()
    shutil.copytree(copy / "Validation" / VAL, copy / "Training" / VAL)
    with pytest.raises(DataError, match=f"no {TRAIN}_3dod_mesh.ply; fetch"):
        ARKitScenes(copy)
    defects = []
    dataset = ARKitScenes(copy, split="all", on_defect=defects.append)
    assert dataset.scene_names == (VAL,)
    assert len(defects) == 2
    assert "the same video is in" in defects[1]


def test_empty_split(copy):
    shutil.rmtree(copy / "Validation")
    with pytest.raises(DataError, match=r"no video of split 'val' .*pass split='all'"):
        ARKitScenes(copy, split="val")
