"""Damaged scans count once over processes, epochs and restarts."""

import json

import pytest
from pc_data import DataError
from pc_data.bad_samples import BadSamples, read_bad_samples
from pc_data.loading import Samples, StepLoader

from tests.pc_data.test_loading import Damaged, content, jitter

WORKERS = (0, 2)


def _samples(num, broken, limit, file=None):
    samples = Samples(
        [(Damaged(num, broken), jitter)], seed=0, on_error="skip", max_bad_samples=limit
    )
    if file is not None:
        samples.bad.keep_in(file)
    return samples


@pytest.mark.filterwarnings("ignore:scan left out")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_each_scan_counts_once(tmp_path, num_workers):
    """Two epochs, two processes that share the record, and a second start."""
    file = tmp_path / "bad.jsonl"
    for rank in (0, 1, 0):
        loader = StepLoader(
            _samples(8, {2, 5}, 2, file),
            batch_size=2,
            num_steps=4,
            rank=rank,
            world_size=2,
            num_workers=num_workers,
        )
        assert len(content(loader)) == 4
    assert sorted(read_bad_samples(file)) == [2, 5]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["reason"] for row in rows} == {
        f"{i}.bin: scan was cut off, fetch it again" for i in (2, 5)
    }


@pytest.mark.filterwarnings("ignore:scan left out")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_too_many(tmp_path, num_workers):
    samples = _samples(8, {2, 5, 6}, 2, tmp_path / "bad.jsonl")
    loader = StepLoader(samples, batch_size=2, num_steps=8, num_workers=num_workers)
    with pytest.raises(DataError, match=r"3 scans are damaged, more than max_bad_samples 2; .*bad"):
        content(loader)
    assert sorted(read_bad_samples(tmp_path / "bad.jsonl")) == [2, 5, 6]
    again = _samples(8, {2, 5, 6}, 2, tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match="3 scans are damaged"):
        again[0, 2]
    more = _samples(8, {2, 5, 6}, 3, tmp_path / "bad.jsonl")
    assert len(content(StepLoader(more, batch_size=2, num_steps=8))) == 8


@pytest.mark.filterwarnings("ignore:scan left out")
def test_the_rest_of_a_run_is_as_if_counted_alone(tmp_path):
    alone = content(StepLoader(_samples(8, {2, 5}, 9), batch_size=2, num_steps=8))
    shared = _samples(8, {2, 5}, 9, tmp_path / "bad.jsonl")
    assert content(StepLoader(shared, batch_size=2, num_steps=8, num_workers=2)) == alone


@pytest.mark.parametrize(("num", "limit"), [(1, 1), (100, 1), (101, 2), (28_130, 282)])
def test_one_in_a_hundred_by_default(num, limit):
    assert _samples(num, (), 0).bad.limit == limit


def test_what_was_known_before_the_file_is_written_too(tmp_path):
    record = BadSamples(9)
    assert record.note(3, DataError("cut off"))
    assert not record.note(3, DataError("cut off"))
    record.keep_in(tmp_path / "bad.jsonl")
    assert read_bad_samples(tmp_path / "bad.jsonl") == {3: "cut off"}


def test_a_torn_line_costs_itself_alone(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"scan": 1, "reason": "a"}\n{"scan": 2, "rea')
    record = BadSamples(9)
    record.keep_in(file)
    assert record.note(4, DataError("b"))
    assert read_bad_samples(file) == {1: "a", 4: "b"}


def test_a_disk_that_takes_no_record_ends_no_run(tmp_path):
    record = BadSamples(9)
    record.keep_in(tmp_path / "nowhere" / "bad.jsonl")
    assert record.note(4, DataError("b"))
    assert not record.note(4, DataError("b"))
