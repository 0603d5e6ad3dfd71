"""The plane of t-SNE: its points, its neighbours, its errors."""

import numpy as np
import pytest
from pc_data.colors import class_colors
from pc_train.reports.pictures import picture_of_tsne

NAMES = ("chair", "shower_curtain", "wall")


def blobs(n=150, noise=0.1, seed=0):
    """Features around one direction a class; a tenth of the points have none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    feature = rng.normal(size=(3, 8))[labels] + noise * rng.normal(size=(n, 8))
    labels[::10] = -1
    return feature.astype(np.float32), labels


def panels_of(figure):
    """Positions, colours of each panel."""
    drawn = [axes.collections[0] for axes in figure.axes]
    return [(np.asarray(each.get_offsets()), each.get_facecolors()[:, :3]) for each in drawn]


def test_equal_classes_lie_together():
    feature, labels = blobs()
    noise = np.random.default_rng(1).normal(size=feature.shape)
    figure = picture_of_tsne({"good": feature, "poor": noise}, labels, NAMES)
    shares = []
    for place, color in panels_of(figure):
        assert len(place) == (labels >= 0).sum()
        distance = np.square(place[:, None] - place).sum(2)
        np.fill_diagonal(distance, np.inf)
        shares.append((color[distance.argmin(1)] == color).all(1).mean())
    assert shares[0] == 1
    assert shares[1] < 0.6
    assert [axes.get_title() for axes in figure.axes] == ["good", "poor"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["chair", "shower curtain", "wall"]


def test_the_length_of_a_feature_does_not_count():
    feature, labels = blobs()
    longer = feature * np.float32(2.0) ** np.arange(150)[:, None].clip(0, 20).astype(np.float32)
    (one, _), (other, _) = panels_of(
        picture_of_tsne({"a": feature, "b": longer}, labels, NAMES, max_points=40)
    )
    np.testing.assert_array_equal(one, other)


def test_one_call_has_one_picture():
    feature, labels = blobs()
    first, second, other = (
        panels_of(picture_of_tsne({"a": feature}, labels, NAMES, max_points=60, seed=seed))[0][0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_rare_classes_are_drawn_whole():
    feature, _ = blobs(300)
    labels = np.zeros(300, np.int64)
    labels[:7], labels[7:107] = 2, 1
    ((_, color),) = panels_of(picture_of_tsne({"a": feature}, labels, NAMES, max_points=57))
    count = [(np.abs(color - own).max(1) < 1e-6).sum() for own in class_colors(NAMES)]
    assert count == [25, 25, 7]


@pytest.mark.parametrize(
    "feature",
    [np.ones((9, 4)), np.zeros((9, 1)), np.arange(9.0)[:, None], np.eye(9)[[0, 1, 2] * 3]],
    ids=["collapsed", "zero", "one column", "duplicates"],
)
def test_degenerate_features(feature):
    ((place, _),) = panels_of(picture_of_tsne({"a": feature}, np.arange(9) % 3, NAMES))
    assert place.shape == (9, 2)
    assert np.isfinite(place).all()


def test_errors():
    feature, labels = blobs()
    with pytest.raises(ValueError, match="needs at least 4 points with a class, got 3"):
        picture_of_tsne({"a": feature}, np.append(np.full(147, -1), [0, 1, 2]), NAMES)
    with pytest.raises(ValueError, match=r"features of 'a' must be 150 finite rows, .* got 149"):
        picture_of_tsne({"a": feature[1:]}, labels, NAMES)
    feature[3, 2] = np.nan
    with pytest.raises(ValueError, match="got 150 rows, 1 not finite"):
        picture_of_tsne({"a": feature}, labels, NAMES)
