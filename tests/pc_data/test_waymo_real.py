"""The one real frame of Waymo: it is stored as version 1 and has no range images.

Its calibration, poses, boxes and images are written as version 2 tables and read back; where the
dataset itself says that each box lies in each image tells whether the reader's cameras are right.
"""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pc_data.readers.waymo import Waymo
from pc_data.readers.waymo_ranges import row_inclinations
from pc_geometry import project_points
from pc_geometry.boxes import box_corners

from tests.real_data import REAL_DATA, needs_real_data

RECORD = REAL_DATA / "waymo/testdata/pvps_data_one_frame.tfrecord"
NAME, TIME = "key.segment_context_name", "key.frame_timestamp_micros"
SIDES = (*(f"center.{k}" for k in "xyz"), *(f"size.{k}" for k in "xyz"), "heading")


def _varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def _fields(data):
    """The fields of a protocol buffer by number."""
    at, found = 0, {}
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size, code = (8, "<d") if key & 7 == 1 else (4, "<f")
            value, at = struct.unpack(code, data[at : at + size])[0], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def _matrix(message):
    return _fields(message)[1]


@pytest.fixture(scope="module")
def frame():
    record = RECORD.read_bytes()
    return _fields(record[12 : 12 + struct.unpack("<Q", record[:8])[0]])


@pytest.fixture(scope="module")
def dataset(frame, tmp_path_factory):
    root = tmp_path_factory.mktemp("waymo-real")
    context = _fields(frame[1][0])
    name, time = context[1][0].decode(), frame[2][0]

    def write(component, columns, *, timed=True):
        count = len(next(iter(columns.values())))
        keys = {NAME: [name] * count} | ({TIME: [time] * count} if timed else {})
        (root / "validation" / component).mkdir(parents=True)
        pq.write_table(
            pa.table(keys | columns), root / "validation" / component / f"{name}.parquet"
        )

    prefix = "[VehiclePoseComponent].world_from_vehicle.transform"
    write("vehicle_pose", {prefix: [_matrix(frame[3][0])]})
    prefix = "[LiDARComponent].range_image_return1"
    image = np.full((2, 3, 4), 5.0, np.float32)
    write("lidar", {f"{prefix}.values": [image.ravel()], f"{prefix}.shape": [[2, 3, 4]]})
    _write_calibrations(context, write)
    images = [_fields(message) for message in frame[4]]
    prefix = "[CameraImageComponent]"
    columns = {
        "key.camera_name": [image[1][0] for image in images],
        f"{prefix}.image": [image[2][0] for image in images],
        f"{prefix}.pose.transform": [_matrix(image[3][0]) for image in images],
    }
    write("camera_image", columns)
    labels = [_fields(message) for message in frame[6]]
    boxes = [_fields(label[1][0]) for label in labels]
    order = dict(zip(SIDES, (1, 2, 3, 5, 4, 6, 7), strict=True))  # version 1: width, then length
    columns = {
        "key.laser_object_id": [label[4][0].decode() for label in labels],
        "[LiDARBoxComponent].type": [label[3][0] for label in labels],
    }
    for side, number in order.items():
        columns[f"[LiDARBoxComponent].box.{side}"] = [box[number][0] for box in boxes]
    write("lidar_box", columns)
    return Waymo(root, split="val")


def _write_calibrations(context, write):
    lenses = [_fields(message) for message in context[2]]
    prefix = "[CameraCalibrationComponent]"
    columns = {
        "key.camera_name": [lens[1][0] for lens in lenses],
        f"{prefix}.extrinsic.transform": [_matrix(lens[3][0]) for lens in lenses],
        f"{prefix}.width": [lens[4][0] for lens in lenses],
        f"{prefix}.height": [lens[5][0] for lens in lenses],
    }
    for place, part in enumerate(("f_u", "f_v", "c_u", "c_v")):
        columns[f"{prefix}.intrinsic.{part}"] = [lens[2][place] for lens in lenses]
    write("camera_calibration", columns, timed=False)
    lasers = [_fields(message) for message in context[3]]
    prefix = "[LiDARCalibrationComponent]"
    columns = {
        "key.laser_name": [laser[1][0] for laser in lasers],
        f"{prefix}.extrinsic.transform": [_matrix(laser[5][0]) for laser in lasers],
        f"{prefix}.beam_inclination.min": [laser[3][0] for laser in lasers],
        f"{prefix}.beam_inclination.max": [laser[4][0] for laser in lasers],
        f"{prefix}.beam_inclination.values": [laser.get(2) for laser in lasers],
    }
    write("lidar_calibration", columns, timed=False)


@needs_real_data
def test_real_calibration(dataset):
    lasers = dataset._segments[0].lasers()
    assert sorted(lasers) == [1, 2, 3, 4, 5]
    beams = np.degrees(row_inclinations(lasers[1], 64))
    assert beams[0] == pytest.approx(2.5, abs=0.05)  # the upper beam is row 0
    assert beams[-1] == pytest.approx(-17.5, abs=0.1)
    others = np.degrees(row_inclinations(lasers[2], 200))
    assert (others[0], others[-1]) == pytest.approx((29.7, -89.7))
    np.testing.assert_allclose(lasers[1].extrinsic[:3, 3], [1.43, 0, 2.184], atol=1e-3)


@needs_real_data
def test_real_boxes_and_images(dataset):
    boxes = dataset.load_boxes(0)
    assert len(boxes) == len(set(boxes.track)) == 75
    assert {0, 1, 2} <= set(boxes.labels.tolist())
    cars = boxes.cuboid[boxes.labels == 0]
    assert (cars[:, 3] > cars[:, 4]).all()  # length before width
    sizes = [camera.load_image().shape[:2] for camera in dataset.cameras(0)]
    assert sizes == [(1280, 1920)] * 3 + [(886, 1920)] * 2


@needs_real_data
def test_real_boxes_land_where_the_dataset_has_them(dataset, frame):
    """Corners through the reader's cameras against the dataset's boxes in the images.

    Only boxes well inside an image are compared: the others are cut off at its edge.
    """
    boxes, apart = dataset.load_boxes(0), []
    rows = {track: row for row, track in enumerate(boxes.track)}
    cameras = dict(enumerate(dataset.cameras(0), start=1))
    for message in frame[9]:
        group = _fields(message)
        camera = cameras[group[1][0]]
        for label in map(_fields, group[2]):
            track = label[4][0].decode().removesuffix(f"_{camera.name}")
            flat = _fields(label[1][0])
            u, v, length, width = (flat[number][0] for number in (1, 2, 5, 4))
            middle = abs(u - 960) + length / 2 < 500
            corners = box_corners(boxes.cuboid[[rows[track]]])[0].astype(np.float32)
            pixel, depth = project_points(corners, camera.from_scan, camera.intrinsics)
            if middle and depth.min() > 5:
                low, high = pixel.min(0), pixel.max(0)
                box = np.array([u - length / 2, v - width / 2, u + length / 2, v + width / 2])
                apart.append(np.abs(np.concatenate([low, high]) - box).max())
    assert len(apart) > 20
    assert np.median(apart) < 0.5
