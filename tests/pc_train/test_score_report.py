"""Classes and confusions in reports, with a few classes and with 200."""

import numpy as np
import pytest
from pc_train.reports.figures import plot_confusion, plot_iou, short_count
from pc_train.reports.scores import mistake_rows
from pc_train.scores import Score, read_confusion, write_score


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def _labels(ticks):
    return [text.get_text() for text in ticks]


def test_confusion_rows_are_percents_of_the_true_class():
    counts = np.array([[30, 10, 0, 0], [0, 4000, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    axes = plot_confusion(counts, ("car", "road", "never", "traffic_cone")).axes[0]
    assert _labels(axes.get_yticklabels()) == ["car (40)", "road (4k)", "traffic cone (2)"]
    assert _labels(axes.get_xticklabels()) == ["car", "road", "traffic cone"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[75, 25, 0], [0, 100, 0], [50, 50, 0]])
    assert _texts(axes) == ["75", "25", "100", "50", "50"]


def test_confusion_of_200_classes_shows_the_worst_and_all_others():
    rng = np.random.default_rng(0)
    counts = np.diag(rng.integers(1000, 2000, 200))
    worst = np.sort(rng.choice(200, 25, replace=False))
    counts[worst, (worst + 1) % 200] += 500  # wrong in both, but most where it is the row
    counts[worst, worst - 3] += 500
    axes = plot_confusion(counts, [f"class {k}" for k in range(200)]).axes[0]
    share = np.asarray(axes.images[0].get_array())
    assert share.shape == (25, 26)
    np.testing.assert_allclose(share.sum(axis=1), 100)
    assert _labels(axes.get_xticklabels())[-1] == "all others"
    shown = {int(text.split()[1]) for text in _labels(axes.get_yticklabels())}
    assert len(shown & set(worst.tolist())) >= 20


@pytest.mark.parametrize("num_classes", [1, 20, 50])
def test_bars_show_every_class_from_best_to_worst(num_classes):
    iou = {f"c_{k}": k / 100 for k in range(num_classes)} | {"absent": float("nan")}
    axes = plot_iou({"IoU": iou}).axes[0]
    names = [f"c {k}" for k in reversed(range(num_classes))]
    assert _labels(axes.get_yticklabels()) == names
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(
        [float(k) for k in reversed(range(num_classes))]
    )
    assert axes.get_title() == ""


def test_bars_of_200_classes_show_both_ends():
    iou = {f"c{k}": k / 200 for k in range(200)}
    axes = plot_iou({"a": iou, "b": iou | {"c0": float("nan")}}).axes[0]
    names = _labels(axes.get_yticklabels())
    assert names == [f"c{k}" for k in [*range(199, 174, -1), *range(24, -1, -1)]]
    assert axes.get_title() == "the best and the worst 25 of 200 classes"


def test_short_counts():
    numbers = [0, 999, 1000, 12_345, 1.5e6, 2e9]
    assert [short_count(n) for n in numbers] == ["0", "999", "1k", "12.3k", "1.5M", "2G"]


def test_mistakes_come_by_frequency():
    counts = np.array([[5, 2, 0], [30, 70, 0], [0, 1, 9]])
    assert mistake_rows(counts, ("car", "road", "traffic_cone")) == [
        ["road", "car", "30", "30.0"],
        ["car", "road", "2", "28.6"],
        ["traffic cone", "road", "1", "10.0"],
    ]


def test_score_and_confusion_are_read_back(tmp_path):
    counts = np.array([[3, 1], [0, 4]])
    iou = {"car, red": 0.75, 'a "quoted" one': 0.8}
    score = Score(miou=0.775, iou=iou, num_scans=2, confusion=counts)
    assert score == Score(miou=0.775, iou=iou, num_scans=2)
    write_score(tmp_path, score)
    names, read = read_confusion(tmp_path)
    assert names == tuple(iou)
    np.testing.assert_array_equal(read, counts)
    assert "confusion" not in (tmp_path / "scores.json").read_text()
    assert read_confusion(tmp_path / "elsewhere") is None
