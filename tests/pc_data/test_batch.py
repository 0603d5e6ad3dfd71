"""Packing scans end to end, and what belongs to each point."""

import dataclasses

import numpy as np
import pytest
import torch
from pc_data import Scan
from pc_data.batch import (
    Movable,
    PointBatch,
    nearest_neighbors,
    pack,
    to_batch,
)


def sample(n, *, seed=0):
    """Return one scan with every field."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(n, 3)).astype(np.float32)
    scan = Scan(name=f"scan {seed}", xyz=xyz, labels=rng.integers(-1, 3, n))
    one = to_batch(
        scan,
        rng.random((n, 5), np.float32),
        num_neighbors=3,
        image=torch.rand(3, 4, 6),
        pixel=rng.random((n, 2)),
    )
    nearest = torch.from_numpy(rng.integers(0, n, 2 * n))
    return dataclasses.replace(
        one, nearest=nearest, all_labels=torch.from_numpy(rng.integers(-1, 3, 2 * n))
    )


def brute_force(xyz, k):
    distance = np.linalg.norm(xyz[:, None] - xyz, axis=2)
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1, kind="stable")[:, : min(k, len(xyz) - 1)]
    return np.pad(near, ((0, 0), (0, k - near.shape[1])), mode="edge")


def test_pack_and_unpack():
    """Every scan can be read back out of the pack."""
    scans = [sample(n, seed=n) for n in (5, 1, 8)]
    joint = pack(scans)
    assert len(joint) == 3
    assert joint.names == ("scan 5", "scan 1", "scan 8")
    assert joint.batch.tolist() == [0] * 5 + [1] + [2] * 8
    read = 0
    for index, scan in enumerate(scans):
        mine = (joint.batch == index).nonzero()[:, 0]
        for field in ("xyz", "feat", "labels", "pixel"):
            assert torch.equal(getattr(joint, field)[mine], getattr(scan, field)), field
        assert torch.equal(joint.images[index], scan.images[0])
        assert torch.equal(joint.xyz[joint.neighbors[mine]], scan.xyz[scan.neighbors])
        originals = slice(read, read := read + len(scan.nearest))
        assert torch.equal(joint.xyz[joint.nearest[originals]], scan.xyz[scan.nearest])
        assert torch.equal(joint.all_labels[originals], scan.all_labels)
    assert read == len(joint.nearest) == len(joint.all_labels)


def test_packs_pack():
    """Packing packs is packing their scans."""
    scans = [sample(n, seed=n) for n in (4, 2, 3)]
    nested, flat = pack([pack(scans[:2]), scans[2]]), pack(scans)
    for field in dataclasses.fields(PointBatch):
        one, other = getattr(nested, field.name), getattr(flat, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_pack_of_one():
    one = sample(4)
    joint = pack([one])
    assert torch.equal(joint.neighbors, one.neighbors)
    assert joint.names == one.names


OPTIONAL = ("neighbors", "labels", "images", "pixel", "nearest", "all_labels")


@pytest.mark.parametrize("field", OPTIONAL)
def test_a_field_that_one_scan_lacks_is_left_out(field):
    joint = pack([sample(4), _without(field)])
    assert getattr(joint, field) is None
    others = [name for name in OPTIONAL if name != field]
    assert all(getattr(joint, name) is not None for name in others)


def _without(field):
    return dataclasses.replace(sample(3, seed=1), **{field: None})


def test_pack_of_nothing():
    with pytest.raises(ValueError, match="pack needs at least one batch, got none"):
        pack([])


def test_need():
    assert torch.equal(sample(4).need("labels"), sample(4).labels)
    with pytest.raises(ValueError, match=r"the batch of scans scan 1 has no pixel; use a"):
        _without("pixel").need("pixel")


def test_to_another_device():
    """Every tensor moves; what is not there stays away."""
    moved = _without("pixel").to("meta")
    for field in dataclasses.fields(PointBatch):
        value = getattr(moved, field.name)
        assert not isinstance(value, torch.Tensor) or value.device.type == "meta"
    assert moved.pixel is None
    assert moved.names == ("scan 1",)


def test_to_batch():
    scan = Scan(name="a", xyz=np.float32([[0, 0, 0], [1, 0, 0], [3, 0, 0]]))
    one = to_batch(scan, np.zeros((3, 5), np.float32), num_neighbors=2, pixel=np.zeros((3, 2)))
    assert one.batch.tolist() == [0, 0, 0]
    assert one.neighbors.tolist() == [[1, 2], [0, 2], [1, 0]]
    assert one.pixel.dtype == torch.float32
    assert one.labels is None
    assert one.images is None
    types = {one.xyz.dtype, one.feat.dtype, one.batch.dtype, one.neighbors.dtype}
    assert types == {torch.float32, torch.int64}


def test_no_neighbors_unless_asked_for():
    scan = Scan(name="a", xyz=np.zeros((3, 3), np.float32))
    one = to_batch(scan, np.zeros((3, 5), np.float32))
    assert one.neighbors is None
    assert pack([one, one]).neighbors is None


@dataclasses.dataclass(frozen=True)
class Pair:
    """A class of samples as a method may bring its own."""

    names: tuple[str, ...]
    both: tuple[PointBatch, PointBatch]

    @classmethod
    def pack(cls, samples):
        both = tuple(pack([sample.both[i] for sample in samples]) for i in range(2))
        return cls(tuple(name for sample in samples for name in sample.names), both)


def test_samples_of_another_class_are_packed_their_own_way():
    ones = [Pair((f"p{n}",), (sample(n), sample(n + 1))) for n in (2, 4)]
    joint = pack(ones)
    assert isinstance(joint, Pair)
    assert joint.names == ("p2", "p4")
    assert [part.batch.tolist() for part in joint.both] == [[0] * 2 + [1] * 4, [0] * 3 + [1] * 5]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted(PointBatch):
    weight: torch.Tensor


def test_a_subclass_stays_one():
    fields = {f.name: getattr(sample(4), f.name) for f in dataclasses.fields(PointBatch)}
    joint = pack([Weighted(**fields, weight=torch.arange(4.0))] * 2).to("cpu")
    assert isinstance(joint, Weighted)
    assert joint.weight.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("n", [2, 3, 17, 60])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_nearest_neighbors(n, k):
    xyz = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    found = nearest_neighbors(xyz, k)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, brute_force(xyz, k))


def test_nearest_neighbors_of_one_point():
    assert nearest_neighbors(np.zeros((1, 3), np.float32), 4).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("copies", [2, 4, 9])
def test_nearest_neighbors_among_duplicates(copies):
    """A point never lists itself, though its copies may crowd it out of the search."""
    xyz = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32).repeat(copies, 0)
    found = nearest_neighbors(xyz, 3)
    assert not (found == np.arange(len(xyz))[:, None]).any()
    distance = np.linalg.norm(xyz[found] - xyz[:, None], axis=2)
    expected = np.linalg.norm(xyz[brute_force(xyz, 3)] - xyz[:, None], axis=2)
    np.testing.assert_allclose(distance, expected, atol=1e-6)


def test_nearest_neighbors_of_equal_points_are_the_lowest():
    found = nearest_neighbors(np.ones((6, 3), np.float32), 2)
    assert found.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_movable_moves_what_it_holds():
    """Tensors, batches within, and nothing else; absent fields stay absent."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Pair(Movable):
        first: PointBatch
        mark: torch.Tensor
        second: PointBatch | None = None
        title: str = "pair"

    pair = Pair(first=sample(3), mark=torch.arange(2))
    moved = pair.to("meta")
    assert isinstance(moved, Pair)
    assert moved.mark.is_meta
    assert moved.first.xyz.is_meta
    assert moved.first.neighbors.is_meta
    assert (moved.second, moved.title) == (None, "pair")
    assert moved.first.names == pair.first.names
    assert not pair.first.xyz.is_meta
