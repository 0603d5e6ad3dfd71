import numpy as np
import pytest
from pc_train.reports.first_batch import (
    CloudPanel,
    ImagePanel,
    draw_batch,
    place_colors,
    write_picture,
)
from PIL import Image


def _colors(count, seed=0):
    return np.random.default_rng(seed).random((count, 3))


def _street(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((count, 3)) - 0.5) * (90, 90, 4)


def _dots(axes):
    (dots,) = axes.collections
    return np.asarray(dots.get_offsets()), np.asarray(dots.get_facecolors())[:, :3]


def test_points_keep_their_colours_in_cloud_and_image():
    xyz, color = _street(), _colors(300)
    pixel = np.random.default_rng(1).random((40, 2)) * (64, 32)
    image = np.full((3, 32, 64), 0.5)
    figure = draw_batch(
        "scan a",
        [CloudPanel("cloud", xyz, color)],
        [ImagePanel("camera", image, pixel, color[:40])],
    )
    assert figure.get_suptitle() == "scan a"
    camera, cloud = figure.axes
    assert (camera.get_title(), cloud.get_title()) == ("camera", "cloud")
    place, shown = _dots(camera)
    np.testing.assert_allclose(place, pixel)
    np.testing.assert_allclose(shown, color[:40], atol=1e-6)
    assert camera.get_xlim() == (0, 64)
    assert camera.get_ylim() == (32, 0)
    order = np.argsort(xyz[:, 2], kind="stable")  # what is high lies on top
    place, shown = _dots(cloud)
    np.testing.assert_allclose(place, xyz[order, :2])
    np.testing.assert_allclose(shown, color[order], atol=1e-6)


def test_a_room_is_seen_obliquely():
    figure = draw_batch("room", [CloudPanel("view", 4 * _colors(500), _colors(500))])
    (axes,) = figure.axes
    assert len(axes.images) == 1
    assert not axes.collections


@pytest.mark.parametrize("num_images", [1, 3, 4, 6])
def test_three_images_in_a_row(num_images):
    panels = [
        ImagePanel(f"image {k}", np.zeros((3, 4, 8)), np.zeros((0, 2)), np.zeros((0, 3)))
        for k in range(num_images)
    ]
    figure = draw_batch("scan", [CloudPanel("cloud", _street(), _colors(300))] * 2, panels)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title] == [panel.title for panel in panels] + ["cloud"] * 2


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_a_point(count, tmp_path):
    panel = CloudPanel("cloud", np.zeros((count, 3)), np.ones((count, 3)))
    write_picture(tmp_path / "sheet.png", draw_batch("scan", [panel]))
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 300
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_place_colors_tell_places_apart():
    pixel = np.array([[0, 0], [63, 0], [0, 31], [63, 31], [0, 0]], float)
    color = place_colors(pixel, (32, 64))
    assert color.shape == (5, 3)
    assert ((color >= 0) & (color <= 1)).all()
    np.testing.assert_array_equal(color[0], color[4])
    apart = np.abs(color[:4, None] - color[None, :4]).max(2)
    assert apart[~np.eye(4, dtype=bool)].min() > 0.2
    assert color[0].max() > color[2].max()  # lower rows are darker
