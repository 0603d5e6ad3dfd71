"""What a page's interactive view is given: places, classes, colours."""

import base64
import json
import re

import numpy as np
import pytest
from pc_data.colors import IGNORED, class_colors
from pc_train.reports.page import Report
from pc_train.reports.viewer import (
    ClassColors,
    Cloud,
    NumberColors,
    PointColors,
    cloud_figure,
    error_colors,
)

NAMES = ("car", "road", "traffic_cone")


def _content(cloud, caption="A cloud."):
    text = re.search(
        r'<script type="application/json">(.*?)</script>', cloud_figure(cloud, caption)
    )[1]
    return json.loads(text)


def _values(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def _places(content):
    steps = _values(content["xyz"], "<u2").reshape(-1, 3)
    return np.array(content["low"]) + steps * content["step"]


def test_places_are_kept_to_millimetres():
    xyz = np.random.default_rng(0).uniform(-50, 50, size=(500, 3)).astype(np.float32)
    content = _content(Cloud(xyz=xyz, colorings={}))
    np.testing.assert_allclose(_places(content), xyz, atol=1e-3)
    assert [layer["title"] for layer in content["layers"]] == ["height"]


def test_classes_come_by_frequency_with_the_colors_of_pictures():
    labels = np.array([2, 1, 1, -1, 1, 2])
    cloud = Cloud(
        xyz=np.eye(6, 3),
        colorings={"ground truth": ClassColors(labels=labels, names=NAMES)},
    )
    layer = _content(cloud)["layers"][0]
    assert layer["names"] == ["road", "traffic cone", "no label"]
    assert _values(layer["data"], "u1").tolist() == [1, 0, 0, 2, 0, 1]
    expected = np.rint(255 * np.vstack([class_colors(["road", "traffic_cone"]), IGNORED]))
    np.testing.assert_array_equal(layer["colors"], expected)


def test_more_than_256_classes_take_two_bytes():
    labels = np.arange(300)
    names = [f"class {k}" for k in labels]
    cloud = Cloud(
        xyz=np.random.default_rng(0).normal(size=(300, 3)),
        colorings={"truth": ClassColors(labels=labels, names=names)},
    )
    layer = _content(cloud)["layers"][0]
    assert layer["wide"]
    assert [layer["names"][k] for k in _values(layer["data"], "<u2")] == names


def test_errors():
    coloring = error_colors(np.array([0, 1, -1, 2]), np.array([0, 2, 2, 2]))
    layer = coloring.encode(np.arange(4))
    answers = [layer["names"][k] for k in _values(layer["data"], "u1")]
    assert answers == ["right", "wrong", "no label", "right"]


def test_numbers_and_colors():
    numbers = NumberColors(numbers=np.linspace(0, 100, 101), unit=" m").encode(np.arange(101))
    steps = _values(numbers["data"], "u1")
    assert (steps[0], steps[-1], numbers["low"], numbers["high"]) == (0, 255, "2 m", "98 m")
    assert np.all(np.diff(steps.astype(int)) >= 0)
    assert len(_values(numbers["ramp"], "u1")) == 3 * 256
    constant = NumberColors(numbers=np.ones(3), unit="").encode(np.arange(3))
    assert _values(constant["data"], "u1").tolist() == [0, 0, 0]
    colors = PointColors(colors=np.array([[0, 0.5, 1.5]]), note="n").encode(np.arange(1))
    assert _values(colors["data"], "u1").tolist() == [0, 128, 255]


def test_large_clouds_are_thinned_and_say_so():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 70_000)
    xyz = rng.normal(size=(70_000, 3)) + 100 * np.eye(3)[labels]  # a place for each class
    xyz[:5] = np.nan
    cloud = Cloud(xyz=xyz, colorings={"truth": ClassColors(labels=labels, names=NAMES)})
    assert "60,000 of 70,000 points" in cloud_figure(cloud, "A cloud.")
    content = _content(cloud)
    places, layer = _places(content), content["layers"][0]
    assert len(places) == 60_000
    assert np.isfinite(places).all()
    names = np.array(layer["names"])[_values(layer["data"], "u1")]
    expected = np.array([name.replace("_", " ") for name in NAMES])[places.argmax(axis=1)]
    np.testing.assert_array_equal(names, expected)
    assert cloud_figure(cloud, "A cloud.") == cloud_figure(cloud, "A cloud.")


@pytest.mark.parametrize("num_points", [0, 1, 2])
def test_few_points(num_points):
    xyz = np.ones((num_points, 3), np.float32)  # the same twice
    labels = np.zeros(num_points, np.int64)
    colorings = {
        "truth": ClassColors(labels=labels, names=NAMES),
        "features": PointColors(colors=xyz, note=""),
    }
    content = _content(Cloud(xyz=xyz, colorings=colorings))
    np.testing.assert_allclose(_places(content).reshape(-1, 3), xyz, atol=1e-4)
    assert np.isfinite([*content["view"]["middle"], content["view"]["distance"]]).all()


def test_first_view_of_streets_and_rooms():
    rng = np.random.default_rng(0)
    street = rng.uniform(-60, 60, size=(4000, 3)) * (1, 1, 0.05)
    view = _content(Cloud(xyz=street, colorings={}))["view"]
    assert view["shown"] == 1
    assert view["middle"][:2] == pytest.approx([0, 0], abs=2)
    ahead = street[(np.abs(street[:, 1]) < 10) & (street[:, 0] > 2)]  # what a camera sees
    view = _content(Cloud(xyz=ahead, colorings={}))["view"]
    assert view["middle"][:2] == pytest.approx([21, 0], abs=3)
    assert view["distance"] < 30
    room = rng.uniform(0, 1, size=(4000, 3)) * (5, 4, 2.6)
    view = _content(Cloud(xyz=room, colorings={}))["view"]
    assert view["shown"] == 0.8  # without its ceiling
    assert view["middle"] == pytest.approx([2.5, 2, 1.3], abs=0.1)
    assert view["distance"] < 10


def test_names_cannot_leave_their_element(tmp_path):
    evil = '</script><script>document.title = "owned"</script>'
    coloring = ClassColors(labels=np.zeros(2, np.int64), names=(evil,))
    report = Report(evil, evil)
    report.cloud(Cloud(xyz=np.eye(2, 3), colorings={evil: coloring}), evil)
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<script") == 2  # the data and the viewer
    assert evil not in page
