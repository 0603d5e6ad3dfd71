"""Tables written without pandas, read by pandas and by the reader that does not need it."""

import gzip

import numpy as np
import pandas as pd
import pytest
from pc_data.files.frames import read_frame
from pc_data.synthetic.frames import dump_frame, write_frame

COLUMNS = {
    "x": np.array([0.1, -np.inf, np.nan]),
    "label": np.array(["Car", None, "Straßenbahn \U0001f68b"], object),
    "i": np.array([1, -(1 << 62), 1 << 40]),
    "y": np.array([3.0, 4.0, 5.0]),
    "mixed": np.array([np.nan, -3, 1 << 40], object),
    "still": np.array([True, False, True]),
}


@pytest.mark.parametrize("names", [[], ["i"], ["x", "y"], ["still", "label"], list(COLUMNS)])
@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_pandas_and_the_reader_agree(tmp_path, names, num_rows):
    columns = {name: COLUMNS[name][:num_rows] for name in names}
    file = tmp_path / "00.pkl.gz"
    write_frame(file, columns)
    table, found = pd.read_pickle(file), read_frame(file)  # noqa: S301
    assert list(found) == names
    expected = pd.DataFrame(columns)
    pd.testing.assert_frame_equal(table, expected, check_column_type=bool(names))
    for name in names:
        assert found[name].dtype == columns[name].dtype
        pd.testing.assert_series_equal(pd.Series(found[name]), pd.Series(columns[name]))


def test_table_can_be_worked_with(tmp_path):
    write_frame(tmp_path / "00.pkl.gz", COLUMNS)
    table = pd.read_pickle(tmp_path / "00.pkl.gz")  # noqa: S301
    table["new"] = 7
    assert table[table["still"]]["i"].tolist() == [1, 1 << 40]
    assert isinstance(table.index, pd.RangeIndex)
    table.to_pickle(tmp_path / "01.pkl.gz")
    assert list(read_frame(tmp_path / "01.pkl.gz")) == [*COLUMNS, "new"]


def test_strided_columns(tmp_path):
    rows = np.arange(12.0).reshape(4, 3)
    write_frame(tmp_path / "00.pkl.gz", {"a": rows[:, 1], "b": rows[::-1, 2]})
    found = read_frame(tmp_path / "00.pkl.gz")
    assert found["a"].tolist() == [1, 4, 7, 10]
    assert found["b"].tolist() == [11, 8, 5, 2]


def test_same_columns_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_frame(tmp_path / name, COLUMNS)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert content[4:8] == bytes(4)  # no time stamp
    assert gzip.decompress(content) == dump_frame(COLUMNS)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"x": np.zeros(3, np.float32)}, "'x' must be float64, int64, bool or object, got float32"),
        ({"x": np.array(["a"])}, "'x' must be float64, int64, bool or object, got <U1"),
        ({"x": np.zeros(3), "y": np.zeros(2)}, r"column 'y' must be \[3\], got \[2\]"),
        ({"x": np.zeros((3, 2))}, r"column 'x' must be \[3\], got \[3, 2\]"),
        ({"x": np.array([{1, 2}], object)}, r"texts, numbers or None, got \{1, 2\}"),
    ],
)
def test_columns_that_cannot_be_written(columns, reason):
    with pytest.raises(ValueError, match=reason):
        dump_frame(columns)
