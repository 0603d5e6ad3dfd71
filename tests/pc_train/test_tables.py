"""Tables beside the curve: torn rows, rows of steps that are made again, a disk that is full."""

import math

import numpy as np
import pytest
from pc_train.tables import StepTable, read_table, table_cell, table_line


def test_rows_read_back_as_they_were(tmp_path):
    table = StepTable(tmp_path / "table.csv", ("a", "b"))
    table.begin(0)
    table.append(1, (0.1, math.nan))
    table.append(10, (1 / 3, 2.0))
    read = read_table(table.file)
    assert list(read) == ["step", "a", "b"]
    np.testing.assert_array_equal(read["a"], [0.1, 1 / 3])
    np.testing.assert_array_equal(read["b"], [math.nan, 2.0])


def test_a_resumed_run_drops_what_it_makes_again_and_what_was_torn(tmp_path):
    table = StepTable(tmp_path / "table.csv", ("a",))
    table.begin(0)
    for step in (1, 10, 20):
        table.append(step, (step / 10,))
    with table.file.open("a") as stream:
        stream.write("30,3")
    assert read_table(table.file)["step"].tolist() == [1, 10, 20]
    table.begin(15)
    table.append(16, (7.0,))
    assert table.file.read_text() == "step,a\n1,0.1\n10,1.0\n16,7.0\n"


def test_a_new_column_is_empty_in_old_rows(tmp_path):
    old = StepTable(tmp_path / "table.csv", ("a",))
    old.begin(0)
    old.append(1, (5.0,))
    StepTable(old.file, ("a", "b")).begin(1)
    assert old.file.read_text() == "step,a,b\n1,5.0,\n"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step"])
def test_other_files_hold_no_columns(tmp_path, text):
    file = tmp_path / "table.csv"
    assert read_table(file) == {}
    file.write_text(text)
    assert read_table(file) == {}


def test_a_disk_that_takes_nothing_stops_no_run(tmp_path, monkeypatch):
    table = StepTable(tmp_path / "table.csv", ("a",))
    table.begin(0)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pc_train.tables.write_text", full)
    table.begin(0)
    monkeypatch.setattr("pathlib.Path.open", full)
    table.append(1, (1.0,))
    monkeypatch.undo()
    assert table.file.read_text() == "step,a\n"


def test_cells_and_lines():
    assert table_cell(math.nan) == ""
    assert float(table_cell(0.1 + 0.2)) == 0.1 + 0.2
    assert table_line(["a", "b,c"]) == 'a,"b,c"\n'
