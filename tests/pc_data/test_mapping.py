"""A function over a dataset: parallel, resumable, checked."""

import contextlib
import json
from functools import partial

import numpy as np
import pytest
from pc_data import DataError
from pc_data.datasets import DataConfig, open_dataset
from pc_data.mapping import Mapped, find_function, map_dataset, shard_file

from tests.pc_data.tiny_worlds import write_nuscenes

CALLS = []


def summarise(scan):
    CALLS.append(scan.name)
    return {"mean": scan.xyz.mean(0), "count": np.int64(len(scan))}


def nothing(scan):
    return None


def objects(scan):
    return {"name": np.array([scan.name, None], object)}


@pytest.fixture
def data(tmp_path):
    CALLS.clear()
    return DataConfig(root=write_nuscenes(tmp_path / "world"), split="all")


def test_results_of_every_scan(tmp_path, data):
    dataset, told = open_dataset(data), []
    mapped = map_dataset(
        summarise,
        data,
        tmp_path / "out",
        shard_size=3,
        backend="sequential",
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(mapped) == len(dataset) == 4
    assert told == [(3, 4), (4, 4)]
    for scan, result in zip(dataset, Mapped(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(result["mean"], scan.xyz.mean(0))
        assert result["count"] == len(scan)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_is_the_same(tmp_path, data, backend):
    serial = map_dataset(summarise, data, tmp_path / "a", shard_size=1, backend="sequential")
    parallel = map_dataset(
        summarise, data, tmp_path / "b", shard_size=1, backend=backend, num_jobs=2
    )
    for shard in range(serial.num_shards):
        contents = [shard_file(tmp_path / side, shard).read_bytes() for side in "ab"]
        assert contents[0] == contents[1]
    assert len(parallel) == 4


def test_only_missing_and_damaged_shards_are_computed_again(tmp_path, data):
    out = tmp_path / "out"
    run = {"shard_size": 1, "backend": "sequential"}
    map_dataset(summarise, data, out, **run)
    whole = [shard_file(out, shard).read_bytes() for shard in range(4)]
    shard_file(out, 1).unlink()
    shard_file(out, 2).write_bytes(whole[2][:-1])
    lines = (out / "shards.jsonl").read_text().splitlines()
    (out / "shards.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:20]]))  # a kill
    CALLS.clear()
    map_dataset(summarise, data, out, **run)
    assert [open_dataset(data)[index].name for index in (1, 2, 3)] == CALLS
    assert [shard_file(out, shard).read_bytes() for shard in range(4)] == whole
    CALLS.clear()
    map_dataset(summarise, data, out, **run)
    assert CALLS == []


def test_damage_is_named(tmp_path, data):
    out = tmp_path / "out"
    mapped = map_dataset(summarise, data, out, shard_size=2, backend="sequential")
    shard_file(out, 1).write_bytes(b"PK")
    with pytest.raises(DataError, match=r"shard-000001\.npz: damaged .*run the same pc-data map"):
        mapped[3]
    whole = shard_file(out, 0).read_bytes()
    for place in range(40, len(whole), 7):  # some of these are no error, but all others are named
        shard_file(out, 0).write_bytes(
            whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
        )
        with contextlib.suppress(DataError):
            mapped[0]
    (out / "shards.jsonl").unlink()
    with pytest.raises(DataError, match=r"shard-000000\.npz: not computed yet"):
        Mapped(out)[0]
    with pytest.raises(DataError, match="holds no results of pc-data map"):
        Mapped(tmp_path)
    with pytest.raises(IndexError):
        mapped[4]


def test_refuses(tmp_path, data):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="shard_size must be at least 1, got 0"):
        map_dataset(summarise, data, out, shard_size=0)
    with pytest.raises(ValueError, match=r"backend must be one of loky, .*, got 'dask'"):
        map_dataset(summarise, data, out, backend="dask")
    with pytest.raises(DataError, match="must return arrays by name, got NoneType"):
        map_dataset(nothing, data, out, backend="sequential")
    with pytest.raises(ValueError, match=r"function .*nothing', not .*summarise"):
        map_dataset(summarise, data, out)
    with pytest.raises(DataError, match="name must be numbers, got objects"):
        map_dataset(objects, data, tmp_path / "other", backend="sequential")
    with pytest.raises(ValueError, match=r"must be one of a module, .* wrap it in a def"):
        map_dataset(partial(summarise), data, tmp_path / "other")
    (out / "map.json").write_text('{"num')
    with pytest.raises(DataError, match=r"map\.json: damaged .*; choose another folder"):
        map_dataset(summarise, data, out)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ValueError, match=r"new or empty folder, but .*used is in use"):
        map_dataset(summarise, data, tmp_path / "used")


def test_a_failed_scan_leaves_finished_shards(tmp_path, data):
    dataset, out = open_dataset(data), tmp_path / "out"
    file = dataset.scan_file(2)
    content = file.read_bytes()
    file.write_bytes(content[:-3])
    with pytest.raises(DataError, match=str(file)):
        map_dataset(summarise, data, out, shard_size=1, backend="sequential")
    file.write_bytes(content)
    CALLS.clear()
    map_dataset(summarise, data, out, shard_size=1, backend="sequential")
    assert [dataset[index].name for index in (2, 3)] == CALLS
    assert json.loads((out / "map.json").read_text())["num_scans"] == 4


def test_find_function():
    assert find_function("numpy.linalg:norm") is np.linalg.norm
    for name in ("numpy.linalg", "numpy.linalg:nonesuch", "no.such:thing", ":x", ""):
        with pytest.raises(ValueError, match=r"given as package\.module:function, got"):
            find_function(name)
    with pytest.raises(ValueError, match=r"must be a function, but numpy:pi is a float"):
        find_function("numpy:pi")
