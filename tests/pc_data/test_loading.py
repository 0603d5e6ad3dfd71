"""What a step sees depends on seed and step alone."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_data import DataError, Scan
from pc_data.batch import to_batch
from pc_data.loading import (
    Samples,
    StepLoader,
    epoch_order,
    evaluation_loader,
    label_fraction,
    sample_rng,
)


def scans_of(num, *, first=0):
    return [
        Scan(name=str(first + i), xyz=np.full((2 + i % 3, 3), first + i, np.float32))
        for i in range(num)
    ]


def jitter(scan, rng):
    """A sample that shows its random numbers."""
    return to_batch(scan, rng.random((len(scan), 1), np.float32), num_neighbors=1)


def doubled(scan, rng):
    return to_batch(scan, 2 + rng.random((len(scan), 1), np.float32), num_neighbors=1)


def samples_of(num, *, seed=0):
    return Samples([(scans_of(num), jitter)], seed=seed)


def content(loader):
    """List of (names, features) of the remaining batches."""
    return [(batch.names, batch.feat[:, 0].tolist()) for batch in loader]


def names(loader):
    return [batch.names for batch in loader]


def test_sample_rng_is_pure_and_distinct():
    keys = list(itertools.product((0, 1, 12345), (0, 1, 7), (0, 1, 2, 50_000)))
    drawn = {key: sample_rng(*key).integers(2**62) for key in keys}
    assert drawn == {key: sample_rng(*key).integers(2**62) for key in reversed(keys)}
    assert len(set(drawn.values())) == len(keys)


@settings(max_examples=30, deadline=None)
@given(
    a=st.tuples(st.integers(0, 2**63), st.integers(0, 2**20), st.integers(0, 2**40 - 1)),
    b=st.tuples(st.integers(0, 2**63), st.integers(0, 2**20), st.integers(0, 2**40 - 1)),
)
def test_no_two_samples_share_their_numbers(a, b):
    draw = lambda key: sample_rng(*key).integers(2**62, size=2).tolist()  # noqa: E731
    assert (draw(a) == draw(b)) == (a == b)


def test_no_epoch_repeats_another_at_a_shifted_index():
    firsts = [sample_rng(0, 0, 2**bit) for bit in range(40)] + [sample_rng(0, 1, 0)]
    assert len({rng.integers(2**62) for rng in firsts}) == 41


def test_epoch_order_is_a_pure_permutation():
    orders = [tuple(epoch_order(seed, epoch, 30)) for seed in (0, 1) for epoch in range(4)]
    assert len(set(orders)) == 8
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert tuple(epoch_order(1, 3, 30)) == orders[-1]


def test_order_has_its_own_random_numbers():
    """An epoch's order is not drawn from the numbers of one of its samples."""
    assert epoch_order(0, 0, 30).tolist() != sample_rng(0, 0, 0).permutation(30).tolist()


def test_samples_end_to_end():
    """Several datasets, each with its own way to a sample."""
    samples = Samples(
        [(scans_of(3), jitter), ([], jitter), (scans_of(2, first=3), doubled)], seed=5
    )
    assert len(samples) == 5
    for index in range(5):
        sample = samples[4, index]
        assert sample.names == (str(index),)
        expected = (doubled if index >= 3 else jitter)(
            Scan(name="", xyz=sample.xyz.numpy()), sample_rng(5, 4, index)
        )
        assert torch.equal(sample.feat, expected.feat)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_number_of_workers_does_not_matter(num_workers):
    arguments = {"batch_size": 2, "num_steps": 7}
    expected = content(StepLoader(samples_of(7), **arguments))
    assert content(StepLoader(samples_of(7), **arguments, num_workers=num_workers)) == expected


def test_global_random_state_does_not_matter():
    expected = content(StepLoader(samples_of(7), batch_size=2, num_steps=7))
    torch.manual_seed(99)
    torch.rand(3)
    assert content(StepLoader(samples_of(7), batch_size=2, num_steps=7)) == expected


@pytest.mark.parametrize("interruption", range(9))
def test_interruption_at_any_step(interruption):
    """Seven samples, three steps an epoch, eight steps: the seams of epochs are among them."""
    arguments = {"batch_size": 2, "num_steps": 8}
    expected = content(StepLoader(samples_of(7), **arguments))
    assert len(expected) == 8
    loader = StepLoader(samples_of(7), **arguments)
    seen = [
        (batch.names, batch.feat[:, 0].tolist())
        for batch in itertools.islice(iter(loader), interruption)
    ]
    state = loader.state_dict()
    assert state == {"next_step": interruption}
    fresh = StepLoader(samples_of(7), **arguments)
    fresh.load_state_dict(state)
    assert seen + content(fresh) == expected
    assert fresh.state_dict() == {"next_step": 8}


def test_interruption_with_workers():
    """The state counts batches handed out, not those that workers hold ready."""
    arguments = {"batch_size": 2, "num_steps": 8}
    expected = content(StepLoader(samples_of(7), **arguments))
    loader = StepLoader(samples_of(7), **arguments, num_workers=2)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    batches.close()
    fresh = StepLoader(samples_of(7), **arguments, num_workers=1)
    fresh.load_state_dict(state)
    assert content(fresh) == expected[3:]


def test_same_loader_goes_on_where_it_was_left():
    loader = StepLoader(samples_of(6), batch_size=2, num_steps=5)
    expected = content(StepLoader(samples_of(6), batch_size=2, num_steps=5))
    next(iter(loader))
    assert content(loader) == expected[1:]
    assert content(loader) == []


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_each_joint_batch(world_size):
    """Together the processes see what one process with the joint batch sees."""
    alone = StepLoader(samples_of(20), batch_size=2 * world_size, num_steps=9)
    ranks = [
        StepLoader(samples_of(20), batch_size=2, num_steps=9, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {rank.steps_per_epoch for rank in ranks} == {alone.steps_per_epoch}
    steps = zip(names(alone), *map(names, ranks), strict=True)
    for joint, *parts in steps:
        assert all(len(part) == 2 for part in parts)
        assert tuple(itertools.chain.from_iterable(parts)) == joint


def test_resume_with_another_number_of_processes():
    """One process may go on where two stopped, as long as the joint batch stays."""
    alone = names(StepLoader(samples_of(9), batch_size=4, num_steps=6))
    pair = StepLoader(samples_of(9), batch_size=2, num_steps=6, rank=1, world_size=2)
    for _ in itertools.islice(iter(pair), 3):
        pass
    single = StepLoader(samples_of(9), batch_size=4, num_steps=6)
    single.load_state_dict(pair.state_dict())
    assert names(single) == alone[3:]


def test_epochs_and_the_incomplete_batch():
    """Each epoch visits no sample twice, and leaves out what fills no batch."""
    loader = StepLoader(samples_of(7), batch_size=3, num_steps=40)
    assert loader.steps_per_epoch == 2
    assert len(loader) == 40
    batches = names(loader)
    visited = [tuple(itertools.chain.from_iterable(batches[i : i + 2])) for i in range(0, 40, 2)]
    assert all(len(set(epoch)) == 6 for epoch in visited)
    assert len(set(visited)) == 20
    assert {name for epoch in visited for name in epoch} == set("0123456")


def test_seed():
    one, other = (
        content(StepLoader(samples_of(9, seed=seed), batch_size=2, num_steps=4)) for seed in (0, 1)
    )
    assert one != other


def test_same_sample_differs_between_epochs():
    loader = StepLoader(samples_of(1), batch_size=1, num_steps=5)
    assert len({tuple(features) for _, features in content(loader)}) == 5


@pytest.mark.parametrize(("num", "batch_size", "world_size"), [(3, 4, 1), (7, 4, 2), (0, 1, 1)])
def test_too_few_samples(num, batch_size, world_size):
    joint = batch_size * world_size
    with pytest.raises(ValueError, match=rf"batch_size must be in \[1, {num}\] .* got {joint}"):
        StepLoader(samples_of(num), batch_size=batch_size, num_steps=1, world_size=world_size)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("num", [1, 2, 7, 9])
def test_evaluation_sees_every_sample_once(num, batch_size, world_size):
    seen = []
    for rank in range(world_size):
        loader = evaluation_loader(
            samples_of(num), batch_size=batch_size, rank=rank, world_size=world_size
        )
        batches = names(loader)
        assert len(loader) == len(batches)
        assert all(len(batch) <= batch_size for batch in batches)
        seen += itertools.chain.from_iterable(batches)
    assert sorted(seen) == sorted(str(i) for i in range(num))


def test_evaluation_is_the_same_each_time():
    loader = evaluation_loader(samples_of(5), batch_size=2)
    assert content(loader) == content(loader)
    assert names(loader) == [("0", "1"), ("2", "3"), ("4",)]
    assert content(evaluation_loader(samples_of(5), batch_size=2, num_workers=1)) == content(loader)


def test_label_fraction_is_nested_and_seeded():
    chosen = [set(label_fraction(1000, share, seed=3)) for share in (0.001, 0.01, 0.1, 0.5, 1)]
    assert [len(part) for part in chosen] == [1, 10, 100, 500, 1000]
    assert all(small < large for small, large in itertools.pairwise(chosen))
    again = label_fraction(1000, 0.1, seed=3)
    assert set(again) == chosen[2]
    assert (np.diff(again) > 0).all()
    assert set(label_fraction(1000, 0.1, seed=4)) != chosen[2]


def test_label_fraction_keeps_at_least_one():
    assert len(label_fraction(28_130, 1e-9, seed=0)) == 1
    assert label_fraction(1, 0.01, seed=0).tolist() == [0]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_label_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\], got {fraction}"):
        label_fraction(10, fraction, seed=0)


class Damaged:
    """Scans of which some cannot be read."""

    def __init__(self, num, broken):
        self.scans, self.broken = scans_of(num), broken

    def __len__(self):
        return len(self.scans)

    def __getitem__(self, index):
        if index in self.broken:
            raise DataError(f"{index}.bin: scan was cut off, fetch it again")
        return self.scans[index]


def test_damage_ends_the_run_unless_told_to_skip():
    with pytest.raises(DataError, match=r"2\.bin: scan was cut off"):
        content(StepLoader(Samples([(Damaged(5, {2}), jitter)], seed=0), batch_size=5, num_steps=1))
    with pytest.raises(ValueError, match="on_error must be raise or skip, got 'ignore'"):
        Samples([(Damaged(5, {2}), jitter)], seed=0, on_error="ignore")


def test_skipping_takes_the_next_scan_as_it_would_be():
    samples = Samples([(Damaged(5, {2, 4}), jitter)], seed=0, on_error="skip", max_bad_samples=2)
    with pytest.warns(UserWarning, match=r"scan left out: 2\.bin: scan was cut off"):
        batch = samples[3, 2]
    torch.testing.assert_close(batch.feat, samples_of(5)[3, 3].feat)
    with pytest.warns(UserWarning, match=r"scan left out: 4\.bin"):
        assert samples[3, 4].names == ("0",)
    assert samples[4, 2].names == ("3",)  # said once


def test_nothing_is_skipped_where_scores_are_taken():
    samples = Samples([(Damaged(5, {2}), jitter)], seed=0, on_error="skip")
    with pytest.raises(ValueError, match="must have on_error raise, got 'skip'"):
        evaluation_loader(samples)


@pytest.mark.filterwarnings("ignore:scan left out")
def test_a_mean_may_take_a_neighbour_twice():
    samples = Samples([(Damaged(5, {2}), jitter)], seed=0, on_error="skip")
    assert names(evaluation_loader(samples, repeats=True)) == [(name,) for name in "01334"]


@pytest.mark.filterwarnings("ignore:scan left out")
def test_all_scans_damaged():
    damaged = Damaged(3, {0, 1, 2})
    samples = Samples([(damaged, jitter)], seed=0, on_error="skip", max_bad_samples=3)
    with pytest.raises(DataError, match=r"none of the 3 scans can be used; the last: 0\.bin"):
        samples[0, 1]
