import dataclasses
import io

import numpy as np
import pytest
from pc_data.colors import class_colors
from pc_data.errors import DataError
from pc_data.readers.nuscenes import NuScenes
from pc_data.readers.semantic_kitti import SemanticKITTI
from pc_data.scan import Scan
from pc_data.show_superpixels import show_superpixels
from pc_geometry import project_points
from pc_geometry.cameras import visible_points
from PIL import Image

from tests.pc_data.tiny_worlds import write_nuscenes, write_semantic_kitti
from tests.real_data import REAL_DATA, needs_real_data


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]


def quarters(scan):
    """0 to 3, a quarter of each image."""
    maps = []
    for camera in scan.cameras:
        width, height = camera.image_size
        v, u = np.arange(height)[:, None], np.arange(width)
        maps.append((2 * (v >= height // 2) + (u >= width // 2)).astype(np.int32))
    return maps


def seen(scan, camera, *, min_depth=1.0):
    pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
    mask = visible_points(pixel, depth, camera.image_size, min_depth=min_depth)
    return np.flatnonzero(mask), pixel[mask].astype(int)


def axes_of(figure, start):
    (axes,) = (one for one in figure.axes if one.get_title().startswith(start))
    return axes


def above(figure):
    (axes,) = (one for one in figure.axes if one.get_title().endswith("from above"))
    return axes


@pytest.fixture
def scan(tmp_path):
    return NuScenes(write_nuscenes(tmp_path))[0]


@pytest.mark.parametrize("names", [(), ("road", "car", "building", "sky")])
def test_points_have_the_colour_of_the_superpixel_they_fall_on(scan, names):
    maps = quarters(scan)
    figure = show_superpixels(scan, maps, names)
    (dots,) = above(figure).collections
    drawn = {
        tuple(xy): color[:3]
        for xy, color in zip(dots.get_offsets().data, dots.get_facecolor(), strict=True)
    }
    assert len(drawn) == len(scan)
    groups = {}
    for k, (camera, own) in enumerate(zip(scan.cameras, maps, strict=True)):
        for index, (u, v) in zip(*seen(scan, camera), strict=True):
            groups.setdefault((own[v, u], -1 if names else k), []).append(
                tuple(drawn[tuple(scan.xyz[index, :2])])
            )
    assert len(groups) > 2
    assert all(len(set(colors)) == 1 for colors in groups.values())
    assert len({colors[0] for colors in groups.values()}) == len(groups)
    if names:
        for (number, _), colors in groups.items():
            np.testing.assert_allclose(colors[0], class_colors(names)[number], atol=1e-6)


def test_titles_count_superpixels_points_and_superpoints(scan):
    maps = quarters(scan)
    figure = show_superpixels(scan, maps)
    written = texts(figure)
    total, points = 0, set()
    for camera, own in zip(scan.cameras, maps, strict=True):
        index, (u, v) = seen(scan, camera)[0], seen(scan, camera)[1].T
        superpoints = np.unique(own[v, u]).size
        assert camera.name in written
        assert f"{len(index):,} points, {superpoints} superpoints" in written
        total, points = total + superpoints, points | set(index)
    assert written.count("4 superpixels") == len(scan.cameras)
    assert f"{total} superpoints of {len(scan.cameras)} images, from above" in written
    share = f"{len(points) / len(scan):.0%} of them on a superpixel"
    assert any(scan.name in text and share in text for text in written)
    assert render(figure).std() > 10


def test_the_images_that_see_most_points_are_drawn_in_the_scans_order(scan):
    counts = [len(seen(scan, camera)[0]) for camera in scan.cameras]
    assert len(set(counts)) == 2
    best = scan.cameras[int(np.argmax(counts))]
    one = show_superpixels(scan, quarters(scan), max_cameras=1)
    assert [title for title in texts(one) if title.startswith("CAM_")] == [best.name]
    assert len(one.axes) == 4
    two = show_superpixels(scan, quarters(scan), max_cameras=5)
    names = [axes.get_title() for axes in two.axes if axes.get_title().startswith("CAM_")]
    assert names == [camera.name for camera in scan.cameras]


def test_pixels_and_points_without_a_superpixel_are_grey(scan):
    nothing = [np.full_like(own, -1) for own in quarters(scan)]
    figure = show_superpixels(scan, nothing)
    assert "0 superpoints of 2 images, from above" in texts(figure)
    for axes in (above(figure), axes_of(figure, f"{len(seen(scan, scan.cameras[0])[0])} points")):
        colors = axes.collections[0].get_facecolor()[:, :3]
        assert np.ptp(colors, axis=1).max(initial=0) < 0.12
    picture = figure.axes[1].images[0].get_array()
    assert np.ptp(picture, axis=2).max() == 0


def test_borders_are_bright_and_the_superpixels_tinted(scan):
    figure = show_superpixels(scan, quarters(scan), max_cameras=1)
    picture = np.asarray(figure.axes[1].images[0].get_array())
    height, width = picture.shape[:2]
    np.testing.assert_array_equal(picture[height // 2], 1)
    np.testing.assert_array_equal(picture[:, width // 2], 1)
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    hues = corners / corners.max(axis=1, keepdims=True)
    assert len(np.unique(hues.round(4), axis=0)) == 4


def test_the_legend_names_the_most_frequent_classes(scan):
    names = [f"cluster {k}" for k in range(200)]
    maps = [np.arange(own.size).reshape(own.shape) % 200 for own in quarters(scan)]
    of_point = np.full(len(scan), -1)
    for camera, own in reversed(list(zip(scan.cameras, maps, strict=True))):
        index, pixel = seen(scan, camera)
        of_point[index] = own[pixel[:, 1], pixel[:, 0]]
    number, counts = np.unique(of_point[of_point >= 0], return_counts=True)
    figure = show_superpixels(scan, maps, names)
    written = [text.get_text() for text in above(figure).get_legend().get_texts()]
    best = number[np.argsort(-counts, kind="stable")][:16]
    assert [text.split("  ")[0] for text in written[: len(best)]] == [names[k] for k in best]
    assert written[0].endswith(f"{counts.max() / counts.sum():.1%}")
    if len(number) > 16:
        assert written[-2] == f"and {len(number) - 16} more"
    assert written[-1] == "no superpixel"
    marks = [line.get_color() for line in above(figure).get_legend().get_lines()[: len(best)]]
    assert len(np.unique(marks, axis=0)) == len(best)


def test_min_depth_keeps_near_points_off(scan):
    far = show_superpixels(scan, quarters(scan), min_depth=1000.0)
    assert "0 superpoints of 2 images, from above" in texts(far)
    assert texts(far).count("0 points, 0 superpoints") == 2


def test_a_wide_image_is_stacked(tmp_path):
    scan = SemanticKITTI(write_semantic_kitti(tmp_path))[0]
    camera = dataclasses.replace(scan.cameras[0], image_size=(1240, 370))
    Image.new("RGB", (1240, 370), (90, 120, 60)).save(camera.image_file)
    scan = dataclasses.replace(scan, cameras=(camera,))
    figure = show_superpixels(scan, quarters(scan))
    render(figure)
    boxes = [axes.get_position() for axes in figure.axes[:3]]
    assert boxes[0].y0 > boxes[1].y0 > boxes[2].y0
    assert figure.axes[1].images[0].get_array().shape == (191, 640, 3)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("names", [(), ("road",)])
def test_tiny_scans_without_cameras(n, names):
    scan = Scan(name="tiny", xyz=np.zeros((n, 3), np.float32))
    figure = show_superpixels(scan, [], names)
    assert "0 superpoints of 0 images, from above" in texts(figure)
    assert render(figure).size


def test_a_scan_without_points_shows_its_images(scan):
    figure = show_superpixels(scan.select(np.zeros(0, np.int64)), quarters(scan))
    assert texts(figure).count("0 points, 0 superpoints") == 2
    assert render(figure).std() > 5


def test_what_does_not_fit_is_refused(scan):
    maps = quarters(scan)
    with pytest.raises(ValueError, match="each of the scan's 2 cameras, in their order, got 1"):
        show_superpixels(scan, maps[:1])
    with pytest.raises(ValueError, match=r"CAM_\w+ must be \[48, 64\] .*got \[48, 32\]"):
        show_superpixels(scan, [maps[0][:, ::2], maps[1]])
    with pytest.raises(ValueError, match=r"CAM_\w+ must be below 3 \(the class names\), got 3"):
        show_superpixels(scan, maps, ("road", "car", "sky"))
    with pytest.raises(ValueError, match="max_cameras must be 1 or more, got 0"):
        show_superpixels(scan, maps, max_cameras=0)
    scan.cameras[0].image_file.write_bytes(b"no image")
    with pytest.raises(DataError, match="image does not decode"):
        show_superpixels(scan, maps)


@needs_real_data
def test_real_keyframe():
    scan = NuScenes(REAL_DATA / "nuscenes", version="v1.0-mini")[0]
    figure = show_superpixels(scan, quarters(scan))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.tell() < 1.6e6
    assert "24 superpoints of 6 images, from above" in texts(figure)
    picture = render(figure)
    assert (np.ptp(picture.astype(int), axis=2) > 100).mean() > 0.02
