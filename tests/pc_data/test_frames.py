"""Pickled tables, read beside pandas; pickles that are damaged or want to run something."""

import gzip
import os
import pickle

import numpy as np
import pandas as pd
import pytest
from pc_data.errors import DataError
from pc_data.files import frames
from pc_data.files.frames import read_frame

from tests.real_data import REAL_DATA, needs_real_data

TABLE = pd.DataFrame(
    {
        "x": [0.1, 0.2, 0.3],
        "label": np.array(["Car", None, "Bus"], object),
        "i": [1, 2, 3],
        "y": [3.0, np.nan, 5.0],
        "still": [True, False, True],
    }
)


@pytest.mark.parametrize("columns", [list("xy"), ["i"], ["still", "label"], list(TABLE.columns)])
@pytest.mark.parametrize("protocol", [2, 5])
def test_reads_what_pandas_wrote(tmp_path, columns, protocol):
    file = tmp_path / "00.pkl.gz"
    TABLE[columns].to_pickle(file, protocol=protocol)
    found = read_frame(file)
    assert list(found) == columns
    for name in columns:
        assert found[name].dtype == TABLE[name].dtype
        np.testing.assert_array_equal(found[name], TABLE[name].to_numpy())


@needs_real_data
def test_real_tables():
    for file in REAL_DATA.glob("pandaset/002/**/*.pkl.gz"):
        expected = pd.read_pickle(file)  # noqa: S301
        found = read_frame(file)
        assert list(found) == list(expected.columns)
        for name, values in found.items():
            pd.testing.assert_series_equal(
                pd.Series(values, name=name), expected[name].reset_index(drop=True)
            )


class Attack:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def test_executes_nothing(tmp_path):
    for content in (Attack(tmp_path / "run"), {"_mgr": [Attack(tmp_path / "run")]}):
        file = write(tmp_path, pickle.dumps(content))
        with pytest.raises(
            DataError, match=r"00\.pkl\.gz: pickle asks for posix\.mkdir, .* was not"
        ):
            read_frame(file)
        assert not (tmp_path / "run").exists()
    hidden = pd.DataFrame({"x": np.array([Attack(tmp_path / "run")], object)})
    hidden.to_pickle(tmp_path / "00.pkl.gz")
    with pytest.raises(DataError, match=r"asks for posix\.mkdir"):
        read_frame(tmp_path / "00.pkl.gz")
    assert not (tmp_path / "run").exists()


def test_refuses_damage(tmp_path):
    with pytest.raises(DataError, match="table is missing; restore it"):
        read_frame(tmp_path / "01.pkl.gz")
    whole = gzip.compress(pickle.dumps(TABLE))
    file = tmp_path / "00.pkl.gz"
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"00\.pkl\.gz: .*fetch it again"):
            read_frame(file)
    file.write_bytes(b"x,y\n1,2\n")
    with pytest.raises(DataError, match="Not a gzipped file"):
        read_frame(file)
    with pytest.raises(DataError, match="not a pickled table"):
        read_frame(write(tmp_path, pickle.dumps(TABLE)[:-40]))
    for other in ({"x": [1]}, [1, 2], np.zeros(3), None):
        with pytest.raises(DataError, match="holds no pandas DataFrame"):
            read_frame(write(tmp_path, pickle.dumps(other)))
    with pytest.raises(DataError, match="table of an unknown layout"):
        read_frame(write(tmp_path, pickle.dumps(pd.DataFrame(np.zeros((2, 2))))))


def test_takes_no_memory_for_what_is_claimed(tmp_path, monkeypatch):
    for claim in (b"r\xff\xff\xff\x7f", b"p2147483647\n"):
        with pytest.raises(DataError, match=r"part number 2147483647 in \d+ bytes"):
            read_frame(write(tmp_path, b"\x80\x04N" + claim + b"."))
    monkeypatch.setattr(frames, "_RATIO", 0)
    monkeypatch.setattr(frames, "_SPARE", 1000)
    with pytest.raises(DataError, match=r"00\.pkl\.gz: unpacks to more than 1000 bytes"):
        read_frame(write(tmp_path, bytes(1001)))


def write(folder, content):
    file = folder / "00.pkl.gz"
    file.write_bytes(gzip.compress(content))
    return file
