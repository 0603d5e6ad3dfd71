import dataclasses
import json
import shutil

import numpy as np
import pytest
from pc_data.check import check_dataset
from pc_data.errors import DataError

from tests.pc_data.tiny_nuscenes import add_panoptic, annotate, panoptic_file
from tests.pc_data.tiny_worlds import (
    IMAGE_SIZE,
    NUM_POINTS,
    edit_rows,
    write_image,
    write_json,
    write_nuscenes,
    write_semantic_kitti,
)
from tests.real_data import REAL_DATA, needs_real_data


@pytest.fixture
def nuscenes(tmp_path):
    return write_nuscenes(tmp_path / "nuscenes")


@pytest.fixture
def kitti(tmp_path):
    return write_semantic_kitti(tmp_path / "kitti")


def test_clean_nuscenes(nuscenes):
    calls = []
    report = check_dataset(nuscenes, progress=lambda done, total: calls.append((done, total)))
    assert report.ok
    assert report.layout == "nuScenes"
    (inventory,) = report.inventories
    assert (inventory.num_scenes, inventory.num_scans, inventory.num_labelled) == (2, 4, 4)
    assert (inventory.num_points, inventory.num_images) == (4 * NUM_POINTS, 8)
    assert inventory.split_sizes == {"train": 2, "val": 2}
    assert sum(inventory.class_share.values()) == pytest.approx(1)
    assert 0 < inventory.visible_share < 1
    assert calls == [(done, 4) for done in range(1, 5)]
    assert "ok: nothing is missing or damaged" in report.text()


def test_clean_semantic_kitti(kitti):
    report = check_dataset(kitti)
    assert report.ok
    (inventory,) = report.inventories
    assert inventory.split_sizes == {"train": 2, "val": 2, "test": 0}
    assert (inventory.num_images, inventory.num_labelled) == (2, 4)
    assert any("2 of 4 scans lack an image" in note for note in report.notes)


def test_panoptic_labels_boxes_and_sweeps_are_examined(nuscenes):
    add_panoptic(nuscenes)
    annotate(nuscenes, ("scene-0061-0", "vehicle.car", {}))
    report = check_dataset(nuscenes)
    assert report.ok
    assert report.notes == ()
    np.savez_compressed(panoptic_file(nuscenes), data=np.zeros(3, np.uint16))
    edit_rows(nuscenes / "v1.0-trainval/sample_annotation.json", size=[0, 0, 0])
    sweeps = nuscenes / "sweeps/LIDAR_TOP"
    _truncate(sweeps / "data-scene-0103-0-LIDAR_TOP-False.pcd.bin")
    _poison(sweeps / "data-scene-0103-1-LIDAR_TOP-False.pcd.bin")
    (sweeps / "data-scene-0061-0-LIDAR_TOP-False.pcd.bin").unlink()
    report = check_dataset(nuscenes)
    assert sorted(defect.partition(": ")[0].rpartition("/")[2] for defect in report.defects) == [
        "data-scene-0061-0-LIDAR_TOP-False.pcd.bin",
        "data-scene-0061-0-LIDAR_TOP-True_panoptic.npz",
        "data-scene-0103-0-LIDAR_TOP-False.pcd.bin",
        "data-scene-0103-1-LIDAR_TOP-False.pcd.bin",
        "sample_annotation.json",
    ]


def test_panoptic_labels_are_counted_where_lidarseg_is_absent(tmp_path):
    root = add_panoptic(write_nuscenes(tmp_path, lidarseg=False))
    report = check_dataset(root)
    assert report.ok
    assert report.inventories[0].num_labelled == 4
    assert report.inventories[0].class_share["car"] == pytest.approx(0.4)
    assert any("panoptic labels alone (lidarseg.json is absent)" in n for n in report.notes)


def test_what_keyframes_do_without_is_a_note(nuscenes):
    shutil.rmtree(nuscenes / "sweeps")
    (nuscenes / "v1.0-trainval/instance.json").unlink()
    report = check_dataset(nuscenes)
    assert report.ok
    for note in (
        "sweeps/LIDAR_TOP is absent; only sweeps between keyframes need it",
        "instance.json is absent; only boxes need it",
        "no objects of points (panoptic.json is absent)",
    ):
        assert any(note in found for found in report.notes)
    edit_rows(nuscenes / "v1.0-trainval/sample_data.json", prev="")
    add_panoptic(nuscenes)
    write_json(nuscenes / "v1.0-trainval/panoptic.json", [])
    report = check_dataset(nuscenes)
    assert report.ok
    for note in ("no sweeps between keyframes", "panoptic.json: no row for 4 of 4 keyframes"):
        assert any(note in found for found in report.notes)


def test_damaged_tables_of_boxes_leave_the_scans(nuscenes):
    (nuscenes / "v1.0-trainval/sample_annotation.json").write_text("[")
    report = check_dataset(nuscenes)
    assert report.inventories[0].num_scans == 4
    assert len(report.defects) == 1
    assert "sample_annotation.json: not a JSON list" in report.defects[0]


def test_links_that_contradict_each_other_are_defects(nuscenes):
    table = nuscenes / "v1.0-trainval/sample_data.json"
    rows = json.loads(table.read_text())
    for row in rows:
        if row["prev"].endswith("False"):
            row["prev"] = row["token"]
    table.write_text(json.dumps(rows))
    report = check_dataset(nuscenes)
    assert len(report.defects) == 4
    assert all("is not earlier than it" in defect for defect in report.defects)
    assert report.inventories[0].num_labelled == 4


def test_report_survives_json(nuscenes):
    report = check_dataset(nuscenes)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["layout"] == "nuScenes"


@needs_real_data
def test_real_samples_are_clean():
    report = check_dataset(REAL_DATA / "nuscenes")
    assert report.ok
    assert report.inventories[0].num_points == 34688
    assert report.inventories[0].visible_share == pytest.approx(0.58, abs=0.01)
    assert any("no labels" in note for note in report.notes)
    report = check_dataset(REAL_DATA / "semantickitti")
    assert report.ok
    assert report.inventories[0].split_sizes == {"train": 3, "val": 1, "test": 0}


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def _poison(file):
    values = np.fromfile(file, dtype="<f4")
    values[0] = np.nan
    values.tofile(file)


NUSCENES_DAMAGE = {
    "lidar/cut": ("samples/LIDAR_TOP/data-scene-0061-0-LIDAR_TOP-True.pcd.bin", _truncate),
    "lidar/nan": ("samples/LIDAR_TOP/data-scene-0061-1-LIDAR_TOP-True.pcd.bin", _poison),
    "lidar/gone": (
        "samples/LIDAR_TOP/data-scene-0103-0-LIDAR_TOP-True.pcd.bin",
        lambda file: file.unlink(),
    ),
    "labels/cut": (
        "lidarseg/v1.0-trainval/data-scene-0103-1-LIDAR_TOP-True_lidarseg.bin",
        _truncate,
    ),
    "labels/wrong": (
        "lidarseg/v1.0-trainval/data-scene-0061-1-LIDAR_TOP-True_lidarseg.bin",
        lambda file: np.full(NUM_POINTS, 200, np.uint8).tofile(file),
    ),
    "image/cut": (
        "samples/CAM_FRONT/data-scene-0061-0-CAM_FRONT-True.png",
        lambda file: file.write_bytes(file.read_bytes()[:200]),
    ),
    "image/gone": (
        "samples/CAM_BACK/data-scene-0061-0-CAM_BACK-True.png",
        lambda file: file.unlink(),
    ),
    "image/size": (
        "samples/CAM_BACK/data-scene-0103-0-CAM_BACK-True.png",
        lambda file: write_image(file, (8, 8), np.random.default_rng(0)),
    ),
    "table": ("v1.0-trainval/visibility.json", lambda file: file.write_text("[")),
}


def test_every_damaged_file_of_nuscenes_is_named_at_once(nuscenes):
    for name, damage in NUSCENES_DAMAGE.values():
        damage(nuscenes / name)
    report = check_dataset(nuscenes)
    for name, _ in NUSCENES_DAMAGE.values():
        assert sum(name in defect for defect in report.defects) == 1, name
    assert len(report.defects) == len(NUSCENES_DAMAGE)
    assert f"{len(NUSCENES_DAMAGE)} defects:" in report.text()


def test_cameras_that_see_no_point(nuscenes):
    table = nuscenes / "v1.0-trainval" / "calibrated_sensor.json"
    rows = json.loads(table.read_text())
    for row in rows:
        if row["camera_intrinsic"]:
            row["translation"], row["rotation"] = [0, 0, 500], [1, 0, 0, 0]  # towards the sky
    table.write_text(json.dumps(rows))
    report = check_dataset(nuscenes)
    assert len(report.defects) == 4
    assert "is seen by any of its 2 cameras; check the calibration" in report.defects[0]


def test_contradictions_do_not_end_the_check(nuscenes):
    table = nuscenes / "v1.0-trainval/sample_data.json"
    rows = json.loads(table.read_text())
    rows[0]["calibrated_sensor_token"] = "nowhere"  # a LiDAR keyframe
    table.write_text(json.dumps(rows))
    report = check_dataset(nuscenes)
    assert report.inventories[0].num_scans == 3
    assert any("nowhere" in defect for defect in report.defects)
    assert any("has no usable LIDAR_TOP row" in defect for defect in report.defects)


def test_unreadable_table_leaves_the_other_defects(nuscenes):
    (nuscenes / "v1.0-trainval/ego_pose.json").write_text("{")
    (nuscenes / "v1.0-trainval/map.json").write_text("nothing")
    report = check_dataset(nuscenes)
    assert not report.inventories
    assert [("ego_pose" in d, "map.json" in d) for d in report.defects].count((True, False)) == 1
    assert len(report.defects) == 2


def test_absent_tables_that_are_not_needed_are_a_note(nuscenes):
    (nuscenes / "v1.0-trainval/visibility.json").unlink()
    report = check_dataset(nuscenes)
    assert report.ok
    assert any("visibility.json is absent" in note for note in report.notes)


def test_empty_tables_are_a_defect(nuscenes):
    edit_rows(nuscenes / "v1.0-trainval/sample.json", scene_token="x")
    report = check_dataset(nuscenes)
    assert any("no keyframe" in defect for defect in report.defects)


def test_every_damaged_file_of_semantic_kitti_is_named(kitti):
    sequences = kitti / "dataset/sequences"
    _truncate(sequences / "00/velodyne/000000.bin")
    _poison(sequences / "00/velodyne/000001.bin")
    (sequences / "08/labels/000001.label").unlink()
    (sequences / "08/image_2/000000.png").write_bytes(b"no image")
    write_semantic_kitti(kitti / "more", sequences=("05",))
    (kitti / "more/dataset/sequences/05").rename(sequences / "05")
    (sequences / "05/calib.txt").write_text("P2: 1")
    report = check_dataset(kitti)
    named = (
        "00/velodyne/000000.bin",
        "00/velodyne/000001.bin",
        "08/labels/000001.label",
        "08/image_2/000000.png",
        "05/calib.txt",
    )
    for name in named:
        assert sum(name in defect for defect in report.defects) == 1, name
    assert len(report.defects) == len(named)


def test_all_sequences_damaged(tmp_path):
    kitti = write_semantic_kitti(tmp_path, sequences=("00",))
    (kitti / "dataset/sequences/00/times.txt").write_text("x")
    report = check_dataset(kitti)
    assert any("times.txt" in defect for defect in report.defects)
    assert not report.inventories


def test_long_lists_are_cut_in_the_text_only(tmp_path):
    kitti = write_semantic_kitti(tmp_path, sequences=tuple(f"{k:02d}" for k in range(11)))
    for file in kitti.rglob("velodyne/*.bin"):
        _truncate(file)
    report = check_dataset(kitti)
    assert len([d for d in report.defects if "velodyne" in d]) == 22
    assert "and 2 more" in report.text()


def test_folders_that_hold_no_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="does not look like nuScenes or SemanticKITTI or"):
        check_dataset(tmp_path)
    (tmp_path / "training/label_2").mkdir(parents=True)
    with pytest.raises(DataError, match="holds KITTI object, not nuScenes or SemanticKITTI"):
        check_dataset(tmp_path)


def test_image_size_of_the_tiny_world_is_what_the_tables_say(nuscenes):
    edit_rows(nuscenes / "v1.0-trainval/sample_data.json", width=IMAGE_SIZE[0] + 1)
    report = check_dataset(nuscenes)
    assert sum("but its calibration is for" in defect for defect in report.defects) == 8


def test_files_that_belong_to_no_scan(nuscenes, kitti):
    (nuscenes / "samples/CAM_FRONT/stray.png").touch()
    (nuscenes / "samples/CAM_FRONT/stray.txt").touch()
    (note,) = [note for note in check_dataset(nuscenes).notes if "belong to no scan" in note]
    assert note.endswith("CAM_FRONT: 1 of its .png files belong to no scan, the first is stray.png")
    labels = kitti / "dataset/sequences/08/labels"
    (labels / "000099.label").touch()
    notes = [note for note in check_dataset(kitti).notes if "belong to no scan" in note]
    assert notes == [
        f"{labels}: 1 of its .label files belong to no scan, the first is 000099.label"
    ]
    assert not any("belong to no scan" in note for note in check_dataset(kitti).defects)
