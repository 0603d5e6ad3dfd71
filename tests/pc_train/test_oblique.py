"""What an oblique view shows and what it hides."""

import numpy as np
import pytest
from pc_train.reports.oblique import REACH, is_room, oblique_view, view_middle


def _box(size, step=0.05):
    """Floor, ceiling and four walls around the origin, and which of them a point is of."""
    x, y = (np.arange(-s / 2, s / 2 + step / 2, step) for s in size[:2])
    z = np.arange(0, size[2] + step / 2, step)
    parts = {
        "floor": np.stack(np.meshgrid(x, y, [0.0]), -1),
        "ceiling": np.stack(np.meshgrid(x, y, [size[2]]), -1),
        "left": np.stack(np.meshgrid(x[:1], y, z), -1),
        "right": np.stack(np.meshgrid(x[-1:], y, z), -1),
        "front": np.stack(np.meshgrid(x, y[:1], z), -1),
        "back": np.stack(np.meshgrid(x, y[-1:], z), -1),
    }
    points = [part.reshape(-1, 3).astype(np.float32) for part in parts.values()]
    return np.concatenate(points), np.repeat(list(parts), [len(p) for p in points])


def test_a_room_is_open_toward_the_eye():
    xyz, part = _box((5, 4, 2.6))
    middle = np.array([[0, 0, 1.0]], np.float32)
    view = oblique_view(np.concatenate([xyz, middle]))
    shown = view.is_visible()
    share = {name: shown[:-1][part == name].mean() for name in np.unique(part)}
    assert share["floor"] > 0.9
    assert share["ceiling"] == 0
    assert share["right"] < 0.15  # the eye is at the right and in front
    assert share["front"] < 0.15
    assert share["left"] > 0.6
    assert share["back"] > 0.6
    assert shown[-1]


def test_points_lie_where_orthographic_projection_puts_them():
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, size=(200, 3)).astype(np.float32) * np.float32([1, 1, 0.2])
    pixel = oblique_view(xyz).pixel
    assert pixel[:, 0].min() > 0
    assert 795 > pixel[:, 0].max() > 700
    # Affine in the position; straight up is straight up in the picture.
    homogeneous = np.column_stack((xyz, np.ones(200)))
    matrix, *_ = np.linalg.lstsq(homogeneous, pixel, rcond=None)
    np.testing.assert_allclose(homogeneous @ matrix, pixel, atol=1e-2)
    assert abs(matrix[2, 0]) < 1e-2
    assert matrix[2, 1] < 0
    scale = np.linalg.norm(matrix[:3, 0])
    np.testing.assert_allclose(np.linalg.norm(matrix[:3, 1]), scale, rtol=1e-3)


def test_the_higher_of_two_points_covers_the_lower():
    xyz, _ = _box((0.5, 0.5, 0.5))
    view = oblique_view(xyz)
    column, row = view.pixel[0].astype(int)
    shown = view.index[row, column]
    same = np.abs(view.pixel - view.pixel[0]).max(axis=1) < 1
    assert xyz[shown, 2] >= xyz[same, 2].max() - 0.06


def test_paint_gives_each_point_its_color_and_the_rest_the_ground():
    xyz, _ = _box((3, 3, 2.5))
    view = oblique_view(xyz, width=200)
    image = view.paint(np.tile([1.0, 0.5, 2.0], (len(xyz), 1)))
    assert image.shape == (*view.index.shape, 3)
    assert image.min() >= 0
    assert image.max() == 1
    seen = view.index >= 0
    np.testing.assert_allclose(image[seen][:, 1], image[seen][:, 0] / 2, rtol=1e-5)
    assert len(np.unique(image[~seen], axis=0)) == 1
    assert view.light.min() < 0.9  # corners are darker
    assert not view.is_visible().all()


def test_street_and_room():
    rng = np.random.default_rng(0)
    street = rng.uniform(-60, 60, size=(3000, 3)) * (1, 1, 0.02)
    assert not is_room(street)
    assert is_room(street / 5)
    assert is_room(street[:0])
    assert view_middle(street).tolist() == [0, 0]
    assert view_middle(street[street[:, 0] > 3]).tolist() == [0, 0]  # what a camera sees ahead
    np.testing.assert_allclose(view_middle(street + 500), [500, 500], atol=5)
    inside = np.abs(street[:, :2]).max(axis=1) < REACH
    shown = oblique_view(street).is_visible()
    assert not shown[~inside].any()
    assert shown[inside].mean() > 0.8


@pytest.mark.parametrize("num_points", [0, 1, 2, 5])
def test_few_points(num_points):
    xyz = np.zeros((num_points, 3), np.float32)
    xyz[:, 0] = np.arange(num_points) // 2  # some twice
    view = oblique_view(xyz)
    image = view.paint(np.ones((num_points, 3)))
    assert np.isfinite(image).all()
    assert (view.index >= 0).any() == (num_points > 0)
    assert len(view.pixel) == num_points
