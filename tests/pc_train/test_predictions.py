"""What predictions leave on disk: rows in any order, names that stay inside, what is done."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_train.prediction.results import clear_remains, feature_colors, finished_files, result_folder
from pc_train.prediction.row_files import feature_file
from pc_train.reports.feature_colors import color_scale
from safetensors.numpy import load_file


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["npy", "safetensors", "none"])
def test_rows_in_any_order(tmp_path, kind, dtype):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 3)).astype(np.float32)
    parts = np.split(rng.permutation(500), [1, 7, 300])
    with feature_file(tmp_path, kind, rows.shape, dtype) as file:
        for part in parts:
            file.write(np.sort(part), rows[np.sort(part)])
        np.testing.assert_array_equal(file.read(20, 90), rows[20:90].astype(dtype))
        assert not list(tmp_path.glob("features*"))
    if kind == "none":
        assert not list(tmp_path.iterdir())
        return
    (path,) = tmp_path.iterdir()
    found = np.load(path) if kind == "npy" else load_file(path)["features"]
    np.testing.assert_array_equal(found, rows.astype(dtype))


def test_fault_leaves_no_file(tmp_path):
    with (
        pytest.raises(ValueError, match=r"features reach 1e[+]05, which float16 does not hold"),
        feature_file(tmp_path, "npy", (2, 1), "float16") as file,
    ):
        file.write(np.array([0]), np.float32([[1e5]]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_rows", [1, 2, 5, 100_003])
def test_colours_are_those_of_all_features(tmp_path, num_rows):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(num_rows, 4)) * [9, 3, 1, 0.1]).astype(np.float32)
    with feature_file(tmp_path, "none", rows.shape, "float32") as file:
        file.write(np.arange(num_rows), rows)
        colors = feature_colors(file)
    expected = color_scale(rows[:: max(1, num_rows // 50_000)]).paint(rows)
    np.testing.assert_array_equal(colors, np.round(255 * expected).astype(np.uint8))


PLAIN = ["a.ply", "08/000123", "scene 1/coord.npy", "n015-2018+0800__LIDAR@x=1.bin", "straße/ü.las"]
HOSTILE = [
    *("..", "../a", "/etc/passwd", "a/../../b", ".", "", "/", "a//b", "~/.ssh/id", "a\\..\\b"),
    *(
        "a\nb",
        "a\0b",
        ".hidden",
        "a/.git/config",
        "x" * 300,
        "ä" * 300,
        "\udcff",
        "\ud800",
        "C:\\x",
    ),
]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_stay(name):
    assert result_folder(Path("out"), name) == Path("out") / name


def test_hostile_names_stay_inside(tmp_path):
    folders = {result_folder(tmp_path, name) for name in (*HOSTILE, *PLAIN)}
    assert len(folders) == len(HOSTILE) + len(PLAIN)
    for folder in folders:
        assert folder != tmp_path
        assert folder.resolve().is_relative_to(tmp_path)
        folder.mkdir(parents=True, exist_ok=True)


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
@settings(max_examples=60, deadline=None)
def test_names_do_not_meet(names):
    out = Path("/out")
    first, second = (result_folder(out, name) for name in names)
    assert first != second
    for folder in (first, second):
        assert ".." not in folder.parts
        assert out in folder.parents


@pytest.mark.parametrize("summary", ["", "[]", "{}", '{"files": 3}', '{"files": ["classes.npy"]}'])
def test_what_is_not_finished(tmp_path, summary):
    assert finished_files(tmp_path) == ()
    (tmp_path / "prediction.json").write_text(summary)
    assert finished_files(tmp_path) == ()
    (tmp_path / "classes.npy").touch()
    done = ("classes.npy", "prediction.json") if "classes" in summary else ()
    assert finished_files(tmp_path) == done


def test_remains_are_cleared(tmp_path):
    for name in (".features.npy.ab12", ".classes.ply.77.part", ".lock", "features.npy"):
        (tmp_path / name).touch()
    clear_remains(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "features.npy"}
