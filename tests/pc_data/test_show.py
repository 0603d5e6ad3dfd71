import dataclasses
import io

import numpy as np
import pytest
from pc_data.colors import class_colors
from pc_data.errors import DataError
from pc_data.readers.nuscenes import CLASS_NAMES, NuScenes
from pc_data.readers.semantic_kitti import CLASS_NAMES as KITTI_NAMES
from pc_data.readers.semantic_kitti import SemanticKITTI
from pc_data.scan import Scan
from pc_data.show import show_scan
from PIL import Image

from tests.pc_data.tiny_worlds import NUM_POINTS, write_nuscenes, write_semantic_kitti


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.fixture
def scan(tmp_path):
    return NuScenes(write_nuscenes(tmp_path))[0]


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]


def test_labelled_scan_names_its_classes_in_a_legend(scan):
    figure = show_scan(scan, CLASS_NAMES)
    written = " ".join(texts(figure))
    for label in np.unique(scan.labels[scan.labels >= 0]):
        assert CLASS_NAMES[label] in written
    assert "CAM_FRONT" in written
    assert "CAM_BACK" in written
    assert scan.name in written
    assert render(figure).std() > 5


def test_image_titles_count_the_points_drawn(scan):
    behind = dataclasses.replace(scan, labels=None, xyz=-np.abs(scan.xyz))
    assert any(text.startswith("CAM_FRONT   0 points") for text in texts(show_scan(behind)))


def test_min_x_removes_points_from_the_images_only(scan):
    everything = show_scan(scan, CLASS_NAMES, min_x=1000.0)
    assert any(text.startswith("CAM_FRONT   0 points") for text in texts(everything))


def test_unlabelled_scan_is_coloured_by_intensity_else_by_height(scan):
    by_intensity = dataclasses.replace(scan, labels=None)
    assert "from above, coloured by intensity" in texts(show_scan(by_intensity))
    by_height = dataclasses.replace(by_intensity, intensity=None)
    assert "from above, coloured by height" in texts(show_scan(by_height))


def test_without_class_names_labels_are_numbered(scan):
    assert any(text.startswith("class ") for text in texts(show_scan(scan)))


def test_wide_image_stands_above(tmp_path):
    scan = SemanticKITTI(write_semantic_kitti(tmp_path))[0]
    tall = show_scan(scan, KITTI_NAMES)
    camera = dataclasses.replace(scan.cameras[0], image_size=(1240, 370))
    Image.new("RGB", (1240, 370)).save(camera.image_file)
    wide = show_scan(dataclasses.replace(scan, cameras=(camera,)), KITTI_NAMES)
    assert render(wide).shape[0] > render(tall).shape[0]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_scans_without_cameras(n):
    xyz = np.zeros((n, 3), dtype=np.float32)
    assert render(show_scan(Scan(name="tiny", xyz=xyz))).size
    labelled = Scan(name="tiny", xyz=xyz, labels=np.full(n, -1, dtype=np.int64))
    assert render(show_scan(labelled)).size


def test_damaged_image_is_named(scan):
    scan.cameras[0].image_file.write_bytes(b"no image")
    with pytest.raises(DataError, match="image does not decode"):
        show_scan(scan)


def test_colors_follow_the_name_alone():
    names = ("car", "Traffic-Sign", "something new")
    colors = class_colors(names)
    assert colors.shape == (3, 3)
    assert colors.dtype == np.float32
    np.testing.assert_array_equal(class_colors(names[::-1]), colors[::-1])
    np.testing.assert_array_equal(class_colors(["traffic_sign"])[0], colors[1])
    assert ((colors >= 0) & (colors <= 1)).all()
    assert class_colors([]).shape == (0, 3)


@pytest.mark.parametrize("names", [CLASS_NAMES, KITTI_NAMES])
def test_colors_of_a_dataset_differ(names):
    colors = class_colors(names)
    distance = np.abs(colors[:, None] - colors[None]).sum(2) + np.eye(len(names)) * 9
    assert distance.min() > 0.1


def test_every_point_is_drawn_from_above(scan):
    figure = show_scan(dataclasses.replace(scan, cameras=()), CLASS_NAMES)
    (dots,) = figure.axes[0].collections
    assert len(dots.get_offsets()) == NUM_POINTS
