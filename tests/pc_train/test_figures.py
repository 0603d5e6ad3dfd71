"""Pictures of runs, classes, features and colours."""

import io

import numpy as np
import pytest
import torch
from pc_data.batch import PointBatch
from pc_train.reports.figures import (
    features_as_colors,
    plot_classes,
    plot_colors,
    plot_correlation,
    plot_watched,
)
from pc_train.reports.oblique import oblique_view
from pc_train.reports.pictures import picture_of_correlation
from torch import nn


@pytest.fixture(scope="module")
def street():
    return np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32) * np.float32(
        [25, 25, 1]
    )


@pytest.fixture(scope="module")
def room():
    return np.random.default_rng(0).uniform(0, 1, size=(400, 3)).astype(np.float32) * np.float32(
        [5, 4, 2.5]
    )


def _pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    return buffer.getvalue()


def test_streets_are_seen_from_above_40_m_around_the_sensor(street):
    labels = np.arange(400) % 3 - 1
    for figure in (
        plot_classes(street, {"truth": labels, "answer": labels}, ("car", "road")),
        plot_correlation(street, {"a": street, "b": street}, 3),
    ):
        views = [axes for axes in figure.axes if axes.get_title()]
        assert len(views) == 2
        assert all(axes.get_xlim() == (-40, 40) == axes.get_ylim() for axes in views)
    offset = street + np.float32([300, -200, 0])  # a tile of a map
    axes = plot_classes(offset, {"truth": labels}, ("car", "road")).axes[0]
    assert axes.get_xlim() == pytest.approx((260, 340), abs=10)
    assert axes.get_ylim() == pytest.approx((-240, -160), abs=10)


def test_rooms_fill_their_picture_and_have_a_legend(room):
    labels = np.arange(400) % 3 - 1
    figure = plot_classes(room, {"truth": labels, "answer": labels}, ("chair", "shower_curtain"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "chair",
        "shower curtain",
    ]
    shown = figure.axes[0].images[0].get_array()
    ground = shown[0, 0]
    rows, columns = np.nonzero((shown != ground).any(axis=-1))
    assert np.ptp(columns) > 0.85 * shown.shape[1]
    assert np.ptp(rows) > 0.85 * shown.shape[0]
    assert _pixels(figure)


def test_cross_marks_the_point_in_a_room(room):
    figure = plot_correlation(room, {"a": room, "b": room}, 7)
    for axes in [axes for axes in figure.axes if axes.get_title()]:
        np.testing.assert_allclose(
            np.ravel(axes.lines[0].get_data()), oblique_view(room).pixel[7], rtol=1e-6
        )
    assert _pixels(figure)


@pytest.mark.parametrize("world", ["street", "room"])
def test_colors_are_shown_side_by_side(world, request):
    xyz = request.getfixturevalue(world)
    red, blue = (np.tile(color, (400, 1)) for color in ((1.0, 0, 0), (0, 0, 1.0)))
    figure = plot_colors(xyz, {"original": red, "reconstruction": blue})
    assert [axes.get_title() for axes in figure.axes] == ["original", "reconstruction"]
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_array_equal(first[..., 0] == 0, second[..., 2] == 0)
    assert first[..., 0].max() == 1
    assert first[..., 0].shape == second[..., 0].shape
    assert len(plot_colors(xyz, {"one": red}).axes) == 1


def test_features_as_colors_are_the_three_main_components():
    rng = np.random.default_rng(0)
    score = rng.normal(size=(500, 3)) * (9, 4, 2)
    score -= score.mean(axis=0)
    basis, _ = np.linalg.qr(rng.normal(size=(10, 3)))
    feat = score @ basis.T + 5
    color = features_as_colors(feat)
    assert color.dtype == np.float32
    assert color.min() == 0
    assert color.max() == 1
    for channel in range(3):
        inside = (color[:, channel] > 0) & (color[:, channel] < 1)
        assert 0.95 <= inside.mean() <= 0.97
        assert abs(np.corrcoef(score[inside, channel], color[inside, channel])[0, 1]) > 0.98
    np.testing.assert_allclose(features_as_colors(feat * 3 + 1), color, atol=1e-5)
    order = rng.permutation(500)
    np.testing.assert_allclose(features_as_colors(feat[order]), color[order], atol=1e-5)


def test_features_as_colors_do_not_depend_on_the_sign_that_a_solver_picks():
    feat = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    feat[:, 2] *= 9  # the first component is +channel 2
    color = features_as_colors(feat)
    assert np.corrcoef(feat[:, 2], color[:, 0])[0, 1] > 0.9


def test_features_as_colors_of_little_or_nothing():
    for feat in (np.zeros((0, 4)), np.ones((1, 4)), np.ones((9, 4)), np.zeros((9, 1))):
        np.testing.assert_array_equal(features_as_colors(feat), np.full((len(feat), 3), 0.5))
    line = features_as_colors(np.arange(10.0)[:, None])
    assert np.all(np.diff(line[:, 0]) >= 0)
    assert np.all(line[:, 1:] == 0.5)


def test_watched_values_have_a_panel_each():
    steps = np.arange(1.0, 41)
    seen = np.where(steps % 10 == 0, steps / 8, np.nan)
    names = ("contrast", "color", "feature spread", "negative similarity")
    curve = {"step": steps, "loss": steps, "lr": steps, **dict.fromkeys(names, seen)}
    figure = plot_watched(curve)
    assert tuple(axes.get_title() for axes in figure.axes) == names
    assert figure.axes[0].lines[0].get_xdata().tolist() == [10, 20, 30, 40]
    with pytest.raises(ValueError, match="no watched values, only step, loss, lr; draw those"):
        plot_watched(dict.fromkeys(("step", "loss", "lr"), steps))


class _Position(nn.Module):
    def forward(self, xyz, feat, batch, *, neighbors=None):  # noqa: ARG002
        return xyz + 1


def _marked(xyz, labels, names, **more):
    """Where the cross of the picture is."""
    points = torch.from_numpy(xyz)
    sample = PointBatch(
        names=("a",),
        xyz=points,
        feat=points,
        batch=torch.zeros(len(xyz), dtype=torch.int64),
        labels=None if labels is None else torch.from_numpy(labels),
    )
    figure = picture_of_correlation({"a": _Position()}, sample, names, **more)
    return np.ravel(figure.axes[0].lines[0].get_data())


def test_correlation_prefers_an_object(street, room):
    names = ("wall", "table", "chair")
    labels = np.zeros(400, np.int64)
    labels[50:100], labels[100:140] = 1, 2
    pixel = oblique_view(room).pixel
    shown = oblique_view(room).is_visible()

    def marked_label(xyz, place, **more):
        return labels[np.abs(place - _marked(xyz, labels, names, **more)).sum(axis=1).argmin()]

    assert marked_label(room, pixel) == 2
    assert marked_label(room, pixel, prefer=("sofa", "table")) == 1
    assert marked_label(street, street[:, :2]) == 2
    at = np.abs(pixel - _marked(room, None, names)).sum(axis=1).argmin()
    assert shown[at]
    distance = np.linalg.norm(street, axis=1)
    np.testing.assert_allclose(_marked(street, None, ()), street[distance.argmin(), :2])
    far = np.where(labels == 1, np.abs(distance - 12), np.inf).argmin()
    np.testing.assert_allclose(_marked(street, labels, ("wall", "car", "road")), street[far, :2])
