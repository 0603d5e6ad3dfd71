import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import balanced_info_nce, info_nce
from pc_losses.balanced import find_negatives
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes


def random_units(n, c=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, c, generator=generator, dtype=dtype) for _ in range(2))


def scans_of(*sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def negatives_of(guide, i, rank):
    """The others strictly below the rank-th smallest similarity; there is none to exceed at B."""
    similarity = {j: cosine(guide[i], guide[j]) for j in range(len(guide)) if j != i}
    ordered = sorted(similarity.values())
    limit = ordered[rank - 1] if rank <= len(ordered) else math.inf
    return [j for j, s in similarity.items() if s < limit - 1e-12]


def balanced_terms(query, key, guide, rank, temperature):
    """Loss of each unit of one scan: the paper's formula, written out."""
    query, key, guide = query.tolist(), key.tolist(), guide.tolist()
    terms = []
    for i in range(len(query)):
        negatives = negatives_of(guide, i, rank)
        term = 0.0
        for a, b in ((key, query), (query, key)):
            own = math.exp(cosine(a[i], b[i]) / temperature)
            other = sum(math.exp(cosine(a[i], b[j]) / temperature) for j in negatives)
            term -= math.log(own / (other + own)) / 2
        terms.append(term)
    return terms


def oracle(query, key, batch, rank, temperature=0.1, guide=None):
    guide = key if guide is None else guide
    terms = []
    for scan in batch.unique():
        of = batch == scan
        terms += balanced_terms(query[of], key[of], guide[of], rank, temperature)
    return sum(terms) / max(len(terms), 1)


@pytest.mark.parametrize("n", [1, 2, 3, 17])
@pytest.mark.parametrize("rank", [2, 3, 9, 17, 100])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_double_loop(n, rank, temperature):
    query, key = random_units(n)
    batch = scans_of(n)
    want = oracle(query, key, batch, rank, temperature)
    got = balanced_info_nce(query, key, rank=rank, temperature=temperature)
    assert float(got) == pytest.approx(want, abs=1e-10)
    single = balanced_info_nce(
        query.float(), key.float(), batch, rank=rank, temperature=temperature
    )
    assert float(single) == pytest.approx(want, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(2, 10), st.integers(0, 2**16)
)
def test_scans_of_a_batch_equal_the_double_loop(sizes, rank, seed):
    query, key = random_units(sum(sizes), seed=seed)
    guide = random_units(sum(sizes), c=3, seed=seed + 1)[0]
    batch = 2 * scans_of(*sizes)  # a scan may be without units
    got = balanced_info_nce(query, key, batch, rank=rank, guide=guide)
    want = oracle(query, key, batch, rank, guide=guide)
    assert float(got) == pytest.approx(want, abs=1e-10)


def test_negatives_lie_strictly_below_the_limit():
    guide = torch.tensor([[1.0, 0.0], [0.1, 1.0], [-1.0, 0.0], [1.0, 1.0], [3.0, 0.1]])
    for rank in range(2, 8):
        negatives = find_negatives(guide, rank=rank)
        assert not negatives.diagonal().any()
        assert negatives.sum(dim=1).tolist() == [min(rank, 5) - 1] * 5  # without ties
    order = torch.tensor([2, 1, 3, 4])  # as seen from unit 0, least similar first
    for rank in range(2, 6):
        assert set(find_negatives(guide, rank=rank)[0].nonzero()[:, 0].tolist()) == set(
            order[: rank - 1].tolist()
        )


def test_ties_with_the_limit_are_all_left_out():
    """From unit 0 the others are at cosine 0, 0, 0 and 1: a duplicate of it."""
    guide = torch.eye(4)[[0, 1, 2, 3, 0]]
    count = [int(find_negatives(guide, rank=rank)[0].sum()) for rank in (2, 3, 4, 5, 6)]
    assert count == [0, 0, 3, 4, 4]


def test_at_full_rank_even_duplicates_are_negatives():
    guide = torch.ones(5, 3)
    assert torch.equal(find_negatives(guide, rank=5), ~torch.eye(5, dtype=torch.bool))
    assert not find_negatives(guide, rank=4).any()  # all alike: all tie


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 2**16))
def test_at_full_rank_it_is_plain_info_nce_both_ways(n, more, seed):
    query, key = random_units(n, seed=seed)
    key[n // 2] = key[0]  # duplicates make no difference
    want = (info_nce(query, key, temperature=0.1) + info_nce(key, query, temperature=0.1)) / 2
    torch.testing.assert_close(balanced_info_nce(query, key, rank=max(n + more, 2)), want)


def test_by_hand():
    """Keys 0 and 1 are alike, 2 is not; from 2 both others tie."""
    key = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    e = math.e
    assert find_negatives(key, rank=2).nonzero().tolist() == [[0, 2], [1, 2]]
    unit_0 = 2 * math.log((e + 1) / e)
    unit_1 = math.log(1 + e) + math.log(2)
    loss = balanced_info_nce(query, key, rank=2, temperature=1.0)
    assert float(loss) == pytest.approx((unit_0 + unit_1) / 6, abs=1e-6)
    assert find_negatives(key, rank=3).sum(dim=1).tolist() == [2, 2, 2]
    unit_0 = math.log((2 * e + 1) / e) + math.log((e + 2) / e)
    unit_1 = 2 * math.log(2 + e)
    unit_2 = math.log((e + 2) / e) + math.log((2 * e + 1) / e)
    loss = balanced_info_nce(query, key, rank=3, temperature=1.0)
    assert float(loss) == pytest.approx((unit_0 + unit_1 + unit_2) / 6, abs=1e-6)


def test_swapping_the_modalities_changes_nothing_but_the_guide():
    query, key = random_units(12)
    loss = balanced_info_nce(query, key, rank=5)
    torch.testing.assert_close(balanced_info_nce(key, query, rank=5, guide=key), loss)
    assert not torch.isclose(balanced_info_nce(key, query, rank=5), loss)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 13), st.integers(0, 2**16), st.floats(0.01, 100))
def test_depends_on_angles_alone_and_not_on_the_order(n, rank, seed, factor):
    query, key = random_units(n, seed=seed)
    loss = balanced_info_nce(query, key, rank=rank)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(balanced_info_nce(query[order], key[order], rank=rank), loss)
    torch.testing.assert_close(balanced_info_nce(factor * query, key / factor, rank=rank), loss)


def test_a_scan_does_not_see_its_batch_mates():
    query, key = (x.requires_grad_(True) for x in random_units(11))
    both = balanced_info_nce(query, key, scans_of(7, 4), rank=3)
    alone = [balanced_info_nce(query[of], key[of], rank=3) for of in (slice(0, 7), slice(7, None))]
    torch.testing.assert_close(both, (7 * alone[0] + 4 * alone[1]) / 11)
    (gradient,) = torch.autograd.grad(alone[0], query)
    assert not gradient[7:].any()


def test_more_negatives_repel_more():
    query, key = random_units(30)
    losses = [float(balanced_info_nce(query, key, rank=rank)) for rank in (2, 5, 15, 30)]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


@pytest.mark.parametrize("rank", [2, 4, 7])
def test_gradcheck_of_both_sides(rank):
    query, key = (x.requires_grad_(True) for x in random_units(7, 3))

    def loss(query, key):
        return balanced_info_nce(query, key, scans_of(5, 2), rank=rank)

    assert torch.autograd.gradcheck(loss, (query, key))


def test_the_guide_gets_no_gradient():
    query, key = random_units(6)
    guide = random_units(6, seed=1)[0].requires_grad_(True)
    query.requires_grad_(True)
    balanced_info_nce(query, key, rank=3, guide=guide).backward()
    assert guide.grad is None
    assert query.grad.any()


def test_descending_it_finds_the_partners():
    query, key = random_units(12, 6)
    for _ in range(200):
        query.requires_grad_(True)
        loss = balanced_info_nce(query, key, rank=12)
        (gradient,) = torch.autograd.grad(loss, query)
        query = (query - gradient).detach()
    nearest = torch.cosine_similarity(query[:, None], key[None], dim=2).argmax(dim=1)
    assert nearest.tolist() == list(range(12))


def test_units_that_are_all_alike_have_no_negatives():
    query, key = random_units(6)
    query.requires_grad_(True)
    loss = balanced_info_nce(query, key, rank=4, guide=torch.ones(6, 2))
    loss.backward()
    assert loss == 0
    assert not query.grad.any()


@pytest.mark.parametrize("batch", [None, torch.zeros(0, dtype=torch.int64)])
def test_no_units_give_a_zero_that_back_propagates(batch):
    query, key = (torch.zeros(0, 4, requires_grad=True) for _ in range(2))
    loss = balanced_info_nce(query, key, batch, rank=5)
    loss.backward()
    assert loss == 0
    assert query.grad.shape == key.grad.shape == (0, 4)


def test_features_of_length_zero_stay_finite():
    query, key = (x.clone() for x in random_units(5))
    query[1] = key[2] = 0
    query.requires_grad_(True)
    key.requires_grad_(True)
    balanced_info_nce(query, key, rank=3).backward()
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_single(dtype):
    query, key = (x.to(dtype) for x in random_units(30, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = balanced_info_nce(query, key, rank=9)
    assert got.dtype == torch.float32
    assert torch.equal(got, balanced_info_nce(query.float(), key.float(), rank=9))


def one_step(rank, sizes):
    layer = DistributedDataParallel(network())
    query, key = layer(torch.cat(inputs(rank, sum(sizes)))).split(sum(sizes))
    value = balanced_info_nce(query, key, scans_of(*sizes), rank=3)
    value.backward()
    return value.detach(), layer.module.weight.grad


def network():
    layer = torch.nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_units(4, 5, seed=1, dtype=torch.float32)[0])
    return layer


def inputs(rank, count):
    return random_units(count, 5, seed=20 + rank, dtype=torch.float32)


SIZES = [[(5, 3), (4,)], [(6,), (1,)]]


def all_steps(rank):
    return [one_step(rank, sizes[rank]) for sizes in SIZES]


def test_two_processes_learn_as_one_does_on_the_joint_batch():
    steps = run_in_processes(all_steps)
    for case, sizes in enumerate(SIZES):
        layer = network()
        features = [inputs(rank, sum(sizes[rank])) for rank in range(2)]
        query, key = (layer(torch.cat(side)) for side in zip(*features, strict=True))
        want = balanced_info_nce(query, key, scans_of(*sizes[0], *sizes[1]), rank=3)
        want.backward()
        assert want > 0.01
        torch.testing.assert_close(sum(step[case][0] for step in steps) / 2, want.detach())
        for step in steps:
            torch.testing.assert_close(step[case][1], layer.weight.grad, rtol=1e-5, atol=1e-5)


@unchecked_only
def test_wrong_input_is_refused():
    query, key = random_units(4)
    with pytest.raises(ValueError, match=r"must both be \[p, c\], got \[4, 4\] and \[3, 4\]; give"):
        balanced_info_nce(query, key[:3], rank=2)
    with pytest.raises(ValueError, match=r"guide must be \[p, d\] .* the 4 units, got \[3, 4\]"):
        balanced_info_nce(query, key, rank=2, guide=key[:3])
    with pytest.raises(ValueError, match=r"batch must be \[4\], a scan a unit, got \[3\]"):
        balanced_info_nce(query, key, torch.zeros(3, dtype=torch.int64), rank=2)


def test_wrong_values_are_refused():
    query, key = random_units(4)
    with pytest.raises(ValueError, match=r"batch must be sorted, .*; sort by scan first"):
        balanced_info_nce(query, key, torch.tensor([0, 1, 0, 1]), rank=2)
    for wrong in (1, 0, -3):
        with pytest.raises(ValueError, match=rf"rank must be at least 2, got {wrong}; the neg"):
            balanced_info_nce(query, key, rank=wrong)
    for wrong in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"temperature must be above 0, got .*; papers use"):
            balanced_info_nce(query, key, rank=2, temperature=wrong)
