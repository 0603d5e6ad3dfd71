import json

import numpy as np
import pytest
from pc_data.errors import DataError
from pc_data.readers.nuscenes import NuScenes
from pc_data.synthetic import make_street_nuscenes
from pc_geometry import knn
from pc_geometry.rigid import invert_rigid, transform_points

from tests.pc_data.tiny_nuscenes import add_panoptic
from tests.pc_data.tiny_worlds import NUM_POINTS, edit_rows, write_json, write_nuscenes


@pytest.fixture
def world(tmp_path):
    return write_nuscenes(tmp_path / "nuscenes")


def points_of(root, sample, *, keyframe=True):
    folder = "samples" if keyframe else "sweeps"
    file = root / f"{folder}/LIDAR_TOP/data-{sample}-LIDAR_TOP-{keyframe}.pcd.bin"
    rows = np.fromfile(file, dtype="<f4").reshape(-1, 5)
    near = (np.abs(rows[:, 0]) < 1) & (np.abs(rows[:, 1]) < 1)
    return rows[~near]


def ages(scan):
    """Milliseconds between the sweeps of a scan and its time stamp."""
    return np.unique((1000 * scan.time).round().astype(int)).tolist()


def change(root, token, table="sample_data", **changes):
    file = root / f"v1.0-trainval/{table}.json"
    rows = json.loads(file.read_text())
    write_json(file, [row | changes if row["token"] == token else row for row in rows])


def test_sweeps_are_moved_into_the_frame_of_the_keyframe(world):
    scan = NuScenes(world, sweeps=2)[0]
    now = points_of(world, "scene-0061-0")
    before = points_of(world, "scene-0061-0", keyframe=False)
    np.testing.assert_array_equal(scan.xyz[: len(now)], now[:, :3])
    # The vehicle was half a metre behind.
    moved = before[:, :3].astype(np.float64) - (0.5, 0, 0)
    np.testing.assert_allclose(scan.xyz[len(now) :], moved, atol=1e-5)
    np.testing.assert_array_equal(scan.intensity, np.append(now[:, 3], before[:, 3]))
    np.testing.assert_allclose(scan.time, np.repeat([0, 0.05], [len(now), len(before)]), atol=1e-7)
    assert scan.time.dtype == scan.xyz.dtype == np.float32
    assert scan.xyz.flags.c_contiguous


def test_sweeps_go_back_over_keyframes_to_the_start_of_the_scene(world):
    dataset = NuScenes(world, sweeps=10)
    assert ages(dataset[1]) == [0, 50, 500, 550]
    assert ages(dataset[0]) == [0, 50]
    assert [len(dataset.sweep_files(index)) for index in range(2)] == [1, 3]
    assert ages(NuScenes(world, sweeps=3)[1]) == [0, 50, 500]


def test_points_on_the_car_are_left_out(world):
    for keyframe in (True, False):
        folder = "samples" if keyframe else "sweeps"
        file = world / f"{folder}/LIDAR_TOP/data-scene-0061-0-LIDAR_TOP-{keyframe}.pcd.bin"
        rows = np.fromfile(file, dtype="<f4").reshape(-1, 5)
        rows[:4, :2] = [[0.9, -0.9], [-0.9, 0], [1.0, 0], [0, -1.5]]
        rows[4:, :2] = 5
        rows.tofile(file)
    scan = NuScenes(world, sweeps=2)[0]
    assert len(scan) == 2 * (NUM_POINTS - 2)
    assert len(scan.labels) == len(scan)


def test_only_the_keyframe_is_labelled(world):
    add_panoptic(world)
    scan, alone = NuScenes(world, sweeps=2)[0], NuScenes(world)[0]
    kept = np.flatnonzero((np.abs(alone.xyz[:, :2]) >= 1).any(1))
    np.testing.assert_array_equal(scan.labels[: len(kept)], alone.labels[kept])
    np.testing.assert_array_equal(scan.instance[: len(kept)], alone.instance[kept])
    assert (scan.labels[len(kept) :] == -1).all()
    assert (scan.instance[len(kept) :] == 0).all()
    assert scan.labels.dtype == scan.instance.dtype == np.int64
    assert NuScenes(world, sweeps=2, labels=False)[0].labels is None


def test_one_sweep_is_the_keyframe_itself(world):
    dataset = NuScenes(world)
    assert dataset[0].time is None
    assert len(dataset[0]) == NUM_POINTS
    assert dataset.sweep_files(0) == ()


def test_the_parts_by_index_are_the_keyframe_alone(world):
    dataset = NuScenes(world, sweeps=10)
    assert len(dataset.load_points(1)) == len(dataset.load_labels(1)) == NUM_POINTS


def test_a_chosen_scan_keeps_its_times(world):
    scan = NuScenes(world, sweeps=2)[0]
    old = scan.select(scan.time > 0)
    assert 0 < len(old) == len(old.time) < len(scan)


# --- the synthetic street


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweeps") / "street"
    make_street_nuscenes(
        root, num_scenes=1, seed=2, frames_per_scene=2, image_size=(32, 18), sweeps_per_keyframe=4
    )
    return root


def test_standing_things_coincide(street):
    """The car drove metres meanwhile; most of a street stands still."""
    dataset = NuScenes(street, split="all", sweeps=10)
    scan = dataset[1]
    np.testing.assert_allclose(np.unique(scan.time), [0, 0.1, 0.2, 0.3, 0.4, 0.5], atol=2e-3)
    now, oldest = scan.xyz[scan.time == 0], scan.xyz[scan.time > 0.45]
    shift = np.linalg.norm((invert_rigid(dataset[0].pose) @ scan.pose)[:3, 3])
    assert shift > 1
    apart = np.median(knn(now, oldest, 1)[0])
    unmoved = transform_points(invert_rigid(dataset[0].pose) @ scan.pose, oldest)
    assert apart < 0.6 * np.median(knn(now, unmoved, 1)[0])


# --- damage


@pytest.mark.parametrize("sweeps", [0, -1, 11])
def test_number_of_sweeps(world, sweeps):
    with pytest.raises(ValueError, match=rf"sweeps must be in \[1, 10\] .*, got {sweeps}"):
        NuScenes(world, sweeps=sweeps)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prev": "nowhere"}, "names nowhere as the sweep before it, which is no usable LIDAR_TOP"),
        ({"prev": "data-scene-0061-0-CAM_FRONT-True"}, "which is no usable LIDAR_TOP row of its"),
        ({"prev": "data-scene-0103-0-LIDAR_TOP-True"}, "which is no usable LIDAR_TOP row of its"),
        ({"prev": "data-scene-0061-1-LIDAR_TOP-True"}, "which is not earlier than it; fetch"),
        ({"prev": "data-scene-0061-0-LIDAR_TOP-False"}, "which is not earlier than it; fetch"),
    ],
    ids=["dangling", "camera", "other scene", "cycle", "itself"],
)
def test_link_that_leads_nowhere(world, changes, match):
    change(world, "data-scene-0061-0-LIDAR_TOP-False", **changes)
    with pytest.raises(DataError, match=rf"row data-scene-0061-0-LIDAR_TOP-False .*{match}"):
        NuScenes(world, split="all", sweeps=5)
    defects = []
    dataset = NuScenes(world, split="all", sweeps=5, on_defect=defects.append)
    assert len(defects) == 1
    assert [len(dataset.sweep_files(index)) for index in range(4)] == [1, 3, 1, 3]
    assert NuScenes(world, split="all")[0].time is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prev": None}, "None as 'prev', expected str"),
        ({"filename": "../x"}, "outside the dataset's root"),
        ({"timestamp": -5}, "gives the time -5"),
        ({"calibrated_sensor_token": "x"}, "names the sensor x"),
    ],
    ids=str,
)
def test_damaged_row(world, changes, match):
    change(world, "data-scene-0061-1-LIDAR_TOP-False", **changes)
    with pytest.raises(DataError, match=rf"sample_data\.json: row .*{match}"):
        NuScenes(world, sweeps=2)
    if "prev" in changes:
        return
    dataset = NuScenes(world, sweeps=2, on_defect=lambda _: None)
    assert [len(dataset.sweep_files(index)) for index in range(2)] == [1, 0]


def test_table_without_links(world):
    table = world / "v1.0-trainval/sample_data.json"
    rows = json.loads(table.read_text())
    for row in rows:
        del row["prev"]
    write_json(table, rows)
    assert len(NuScenes(world)) == 2
    with pytest.raises(DataError, match=r"sample_data\.json: row 0 has no field 'prev'"):
        NuScenes(world, sweeps=2)


def test_sweep_without_a_pose(world):
    change(world, "data-scene-0061-1-LIDAR_TOP-False", table="ego_pose", rotation=[0, 0, 0, 0])
    with pytest.raises(DataError, match=r"ego_pose\.json: 1 poses that sample_data\.json names"):
        NuScenes(world, sweeps=2)
    assert len(NuScenes(world)) == 2
    dataset = NuScenes(world, sweeps=3, on_defect=lambda _: None)
    assert [len(dataset.sweep_files(index)) for index in range(2)] == [1, 0]
    assert ages(dataset[1]) == [0]


def test_no_keyframe_has_a_sweep(world):
    edit_rows(world / "v1.0-trainval/sample_data.json", prev="")
    scan = NuScenes(world, sweeps=10)[0]
    assert len(scan) == len(points_of(world, "scene-0061-0"))
    assert (scan.time == 0).all()


def test_empty_split_with_sweeps(world):
    with pytest.raises(DataError, match="no keyframe of split 'test'"):
        NuScenes(world, split="test", sweeps=10, boxes=True)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda file: file.unlink(), "scan file is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "scan has 999 bytes"),
        (lambda file: np.full((3, 5), np.nan, "<f4").tofile(file), "3 of 3 points have NaN"),
    ],
    ids=["missing", "cut", "nan"],
)
def test_damaged_sweep(world, damage, match):
    damage(world / "sweeps/LIDAR_TOP/data-scene-0061-0-LIDAR_TOP-False.pcd.bin")
    dataset = NuScenes(world, sweeps=2)
    with pytest.raises(DataError, match=rf"sweeps/LIDAR_TOP/.*-False\.pcd\.bin: .*{match}"):
        dataset[0]
    assert len(dataset[1].time)
