import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import hardest_contrastive, info_nce, point_info_nce
from pc_losses.contrast import unit_rows
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes


def random_pair(n, c, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, c, generator=generator, dtype=dtype) for _ in range(2))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def nce_terms(query, key, temperature, first=0):
    """Loss of each query, its own key being `first` + its row."""
    terms = []
    for i, q in enumerate(query.tolist()):
        scores = [math.exp(cosine(q, k) / temperature) for k in key.tolist()]
        terms.append(-math.log(scores[first + i] / sum(scores)))
    return terms


@pytest.mark.parametrize(("n", "c"), [(1, 1), (1, 5), (2, 3), (40, 8)])
@pytest.mark.parametrize("temperature", [0.07, 0.4, 1.0])
def test_nce_equals_the_double_loop(n, c, temperature):
    query, key = random_pair(n, c)
    terms = nce_terms(query, key, temperature)
    got = info_nce(query, key, temperature=temperature)
    assert float(got) == pytest.approx(sum(terms) / n, abs=1e-10)
    single = info_nce(query.float(), key.float(), temperature=temperature, gather=True)
    assert float(single) == pytest.approx(sum(terms) / n, abs=1e-5)


def test_nce_by_hand():
    one_hot = torch.eye(3)
    assert float(info_nce(5 * one_hot, one_hot, temperature=1.0)) == pytest.approx(
        math.log((math.e + 2) / math.e), abs=1e-6
    )
    assert float(info_nce(one_hot, torch.ones(3, 3))) == pytest.approx(math.log(3), abs=1e-6)
    assert float(info_nce(one_hot[:1], one_hot[1:2])) == 0  # one pair has no negatives


def test_defaults_are_those_of_the_papers():
    query, key = random_pair(9, 4)
    assert torch.equal(info_nce(query, key), info_nce(query, key, temperature=0.4))
    assert torch.equal(point_info_nce(query, key), info_nce(query, key, temperature=0.07))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(2, 8), st.integers(0, 2**16), st.floats(0.01, 100))
def test_nce_depends_on_angles_alone_and_not_on_the_order(n, c, seed, factor):
    query, key = random_pair(n, c, seed)
    loss = info_nce(query, key)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    turn = torch.linalg.qr(torch.randn(c, c, generator=generator, dtype=query.dtype))[0]
    torch.testing.assert_close(info_nce(query[order], key[order]), loss)
    torch.testing.assert_close(info_nce(factor * query @ turn, key @ turn), loss)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(0, 2**16), st.floats(0.05, 2))
def test_nce_is_bounded_by_the_range_of_cosines(n, seed, temperature):
    loss = info_nce(*random_pair(n, 2, seed), temperature=temperature)
    assert 0 < loss < math.log(n) + 2 / temperature


def test_descending_the_nce_finds_the_partners():
    query, key = random_pair(12, 6)
    for _ in range(100):
        query.requires_grad_(True)
        (gradient,) = torch.autograd.grad(point_info_nce(query, key), query)
        query = (query - gradient).detach()
    nearest = (unit_rows(query) @ unit_rows(key).T).argmax(dim=1)
    assert nearest.tolist() == list(range(12))


def test_nce_gradcheck_of_both_sides():
    query, key = (x.requires_grad_(True) for x in random_pair(5, 3))
    assert torch.autograd.gradcheck(info_nce, (query, key))


def test_nce_of_collapsed_features_is_that_of_a_guess():
    features = torch.ones(50, 4)
    assert float(info_nce(features, features)) == pytest.approx(math.log(50), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nce_of_halves_is_computed_in_single(dtype):
    query, key = (x.to(dtype) for x in random_pair(30, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = point_info_nce(query, key)
    assert got.dtype == torch.float32
    assert torch.equal(got, point_info_nce(query.float(), key.float()))


@pytest.mark.parametrize("gather", [False, True])
def test_no_pairs_give_a_zero_that_back_propagates(gather):
    query, key = (torch.zeros(0, 4, requires_grad=True) for _ in range(2))
    loss = info_nce(query, key, gather=gather)
    loss.backward()
    assert loss == 0
    assert query.grad.shape == key.grad.shape == (0, 4)


def test_features_of_length_zero_get_no_gradient():
    query, key = (x.clone() for x in random_pair(4, 3))
    query[1] = 0
    query.requires_grad_(True)
    info_nce(query, key).backward()
    assert not query.grad[1].any()
    assert query.grad[0].any()
    assert query.grad.isfinite().all()
    assert not unit_rows(torch.full((1, 3), 1e-8)).any()


@unchecked_only
def test_nce_refuses_wrong_input():
    query, key = random_pair(3, 4)
    with pytest.raises(ValueError, match=r"must both be \[p, c\], got \[3, 4\] and \[2, 4\]; give"):
        info_nce(query, key[:2])
    with pytest.raises(ValueError, match=r"must both be \[p, c\], got \[4\] and \[4\]"):
        info_nce(query[0], key[0])
    for wrong in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"temperature must be above 0, got .*; papers use"):
            info_nce(query, key, temperature=wrong)


def hardest_terms(query, key, pairs, drawn=None, among=(None, None), margins=(0.1, 1.4)):
    """Terms of the drawn pairs, and of the hardest negatives in either direction."""
    query, key = unit_rows(query).tolist(), unit_rows(key).tolist()
    known = {tuple(pair) for pair in pairs.tolist()}
    among_queries = range(len(query)) if among[0] is None else among[0].tolist()
    among_keys = range(len(key)) if among[1] is None else among[1].tolist()
    positive, to_key, to_query = [], [], []
    for i, j in pairs.tolist() if drawn is None else drawn.tolist():
        positive.append(max(0, math.dist(query[i], key[j]) - margins[0]) ** 2)
        distance, k = min((math.dist(query[i], key[k]), k) for k in among_keys)
        if (i, k) not in known:
            to_key.append(max(0, margins[1] - distance) ** 2)
        distance, k = min((math.dist(query[k], key[j]), k) for k in among_queries)
        if (k, j) not in known:
            to_query.append(max(0, margins[1] - distance) ** 2)
    return positive, to_key, to_query


def weighted(terms, weight=0.5):
    positive, to_key, to_query = (sum(x) / max(len(x), 1) for x in terms)
    return positive + weight * (to_key + to_query)


def random_matches(n, m, p, c=4, seed=0, noise=0.3):
    """Pairs that are near each other, several of them of the same point."""
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(k, c, generator=generator, dtype=torch.float64) for k in (n, m))
    pairs = torch.stack([torch.randint(k, (p,), generator=generator) for k in (n, m)], dim=1)
    query[pairs[:, 0]] = key[pairs[:, 1]] + noise * query[pairs[:, 0]]
    return query, key, pairs


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**16))
def test_hardest_equals_the_double_loop(n, m, p, seed):
    query, key, pairs = random_matches(n, m, p, seed=seed)
    got = hardest_contrastive(query, key, pairs, generator=draws())
    assert float(got) == pytest.approx(weighted(hardest_terms(query, key, pairs)), abs=1e-9)
    swapped = hardest_contrastive(key, query, pairs.flip(1), generator=draws())
    torch.testing.assert_close(swapped, got)


def test_hardest_draws_pairs_then_keys_then_queries():
    query, key, pairs = random_matches(30, 25, 40)
    generator = draws(7)
    order = [torch.randperm(k, generator=generator) for k in (40, 25, 30)]
    drawn, among = pairs[order[0][:11]], (order[2][:6], order[1][:6])
    terms = hardest_terms(query, key, pairs, drawn, among)
    options = {"num_pairs": 11, "num_candidates": 6}
    got = hardest_contrastive(query, key, pairs, generator=draws(7), **options)
    assert float(got) == pytest.approx(weighted(terms), abs=1e-9)
    again = hardest_contrastive(query, key, pairs, generator=draws(7), **options)
    other = hardest_contrastive(query, key, pairs, generator=draws(8), **options)
    assert torch.equal(got, again)
    assert not torch.equal(got, other)


def test_hardest_by_hand():
    """Equal, orthogonal and opposite unit vectors are 0, sqrt 2 and 2 apart."""
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pairs = torch.tensor([[0, 0], [1, 1]])
    near = hardest_contrastive(query, query, pairs, generator=draws())
    assert near == 0  # each one's nearest is its match, so there is no negative
    swapped = hardest_contrastive(query, query.flip(0), pairs, generator=draws())
    negative = 1.4**2  # the nearest, 0 away, is of the other pair
    assert float(swapped) == pytest.approx((math.sqrt(2) - 0.1) ** 2 + negative, abs=1e-5)
    alone = hardest_contrastive(
        query, query.flip(0), pairs, generator=draws(), negative_weight=0.0, positive_margin=0.4
    )
    assert float(alone) == pytest.approx((math.sqrt(2) - 0.4) ** 2, abs=1e-5)


def test_a_known_match_is_no_negative_even_where_the_drawn_pair_is_another():
    """Query 0 matches both keys, which coincide: neither may repel it."""
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    both = torch.tensor([[0, 0], [0, 1]])
    for seed in range(4):
        loss = hardest_contrastive(query, key, both, generator=draws(seed), num_pairs=1)
        assert loss == 0
    one = hardest_contrastive(query, key, both[1:], generator=draws())
    assert float(one) == pytest.approx(0.5 * 1.4**2)  # key 0, no match of its own, is as near


def test_hardest_gradcheck_of_both_sides():
    query, key, pairs = random_matches(6, 5, 4, seed=3, noise=1.0)

    def loss(query, key):
        return hardest_contrastive(query, key, pairs, generator=draws())

    assert weighted(hardest_terms(query, key, pairs)) > 0.1
    assert torch.autograd.gradcheck(loss, (query.requires_grad_(True), key.requires_grad_(True)))


def test_hardest_of_halves_is_computed_in_single():
    query, key, pairs = random_matches(20, 20, 20)
    query, key = query.half(), key.half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = hardest_contrastive(query, key, pairs, generator=draws())
    want = hardest_contrastive(query.float(), key.float(), pairs, generator=draws())
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


@pytest.mark.parametrize(("n", "m"), [(3, 2), (0, 2), (0, 0)])
def test_no_matches_give_a_zero_that_back_propagates(n, m):
    query, key = (torch.ones(k, 4, requires_grad=True) for k in (n, m))
    loss = hardest_contrastive(
        query, key, torch.zeros(0, 2, dtype=torch.int64), generator=draws(), num_candidates=2
    )
    loss.backward()
    assert loss == 0
    assert not query.grad.any()
    assert not key.grad.any()


@unchecked_only
def test_hardest_refuses_wrong_input():
    query, key, pairs = random_matches(3, 2, 4)
    with pytest.raises(ValueError, match=r"got \[3, 4\] and \[2, 3\]; take both from"):
        hardest_contrastive(query, key[:, :3], pairs, generator=draws())
    with pytest.raises(ValueError, match=r"pairs must be \[p, 2\], got \[2, 4\]; give"):
        hardest_contrastive(query, key, pairs.T, generator=draws())
    for wrong in ([0, 2], [3, 0], [-1, 0]):
        text = rf"query \(below 3\) and key \(below 2\), got \[{wrong[0]}, {wrong[1]}\]; number"
        with pytest.raises(ValueError, match=text):
            hardest_contrastive(query, key, torch.tensor([[0, 0], wrong]), generator=draws())
    with pytest.raises(ValueError, match="num_pairs must be at least 1, got 0"):
        hardest_contrastive(query, key, pairs, generator=draws(), num_pairs=0)
    with pytest.raises(ValueError, match="num_candidates must be at least 1, got -1"):
        hardest_contrastive(query, key, pairs, generator=draws(), num_candidates=-1)


COUNTS = [(6, 6), (7, 3), (5, 0), (0, 4), (0, 0)]
LOSSES = ["local", "gathered", "hardest"]


def network():
    layer = torch.nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_pair(4, 5, seed=1, dtype=torch.float32)[0])
    return layer


def views(rank, count):
    """Inputs of the matching points of two views, near each other."""
    query, noise = random_pair(8, 5, seed=20 + rank, dtype=torch.float32)
    return query[:count], (query + 0.5 * noise)[:count]


def matched(count):
    """Every second point is matched: the others are candidates only."""
    return torch.arange(count)[::2, None].expand(-1, 2)


def one_step(rank, loss, count):
    layer = DistributedDataParallel(network())
    inputs = torch.cat([*views(rank, count), torch.ones(2, 5)])  # the last two match nothing
    query, key, _ = layer(inputs).split([count, count, 2])
    if loss == "hardest":
        value = hardest_contrastive(query, key, matched(count), generator=draws())
    else:
        value = info_nce(query, key, gather=loss == "gathered")
    value.backward()
    return value.detach(), layer.module.weight.grad


def nothing_without_gradient(rank):
    """Process 1 has no pairs and no graph; process 0 must not wait for it."""
    query, key = (torch.ones(3 * (1 - rank), 4) for _ in range(2))
    if rank == 0:
        query, key = (x.requires_grad_(True) for x in random_pair(3, 4))
    else:
        query, key = query.double(), key.double()
    info_nce(query, key, gather=True).backward()
    return key.grad


def all_steps(rank, counts):
    steps = {(loss, case): one_step(rank, loss, case[rank]) for loss in LOSSES for case in counts}
    return steps, nothing_without_gradient(rank)


@pytest.fixture(scope="module")
def steps():
    return run_in_processes(all_steps, COUNTS)


def joint_loss(loss, layer, case):
    """What one process computes on both batches."""
    pairs = [[layer(view) for view in views(rank, case[rank])] for rank in range(2)]
    total = max(sum(case), 1)
    if loss == "gathered":
        return info_nce(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    if loss == "local":  # mean over all pairs, negatives from the own process
        return sum(len(query) * info_nce(query, key) for query, key in pairs) / total
    terms = [[], [], []]
    for query, key in pairs:
        found = matched(len(query))
        distance = torch.cdist(unit_rows(query), unit_rows(key))
        terms[0] += [(distance[i, j] - 0.1).relu() ** 2 for i, j in found.tolist()]
        known = {tuple(pair) for pair in found.tolist()}
        for i, _ in found.tolist():
            k, q = int(distance[i].argmin()), int(distance[:, i].argmin())
            terms[1] += [(1.4 - distance[i, k]).relu() ** 2] * ((i, k) not in known)
            terms[2] += [(1.4 - distance[q, i]).relu() ** 2] * ((q, i) not in known)
    means = [sum(x) / max(len(x), 1) for x in terms]
    return means[0] + 0.5 * (means[1] + means[2])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", COUNTS, ids=str)
def test_two_processes_learn_as_one_does_on_the_joint_batch(steps, loss, case):
    layer = network()
    want = joint_loss(loss, layer, case) + 0 * layer.weight.sum()
    want.backward()
    values, gradients = zip(*(step[loss, case] for step, _ in steps), strict=True)
    torch.testing.assert_close(sum(values) / 2, want.detach(), rtol=1e-5, atol=1e-5)
    for gradient in gradients:
        torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-5, atol=1e-5)
    if sum(case):
        assert want > 0.01


def test_gathering_is_another_loss_than_not_gathering(steps):
    values = {loss: sum(step[loss, (6, 6)][0] for step, _ in steps) for loss in LOSSES}
    assert values["gathered"] > values["local"] + 0.1  # more negatives


def test_a_process_without_pairs_or_graph_keeps_nobody_waiting(steps):
    query, key = (x.requires_grad_(True) for x in random_pair(3, 4))
    info_nce(query, key).backward()
    torch.testing.assert_close(steps[0][1], 2 * key.grad)  # averaged over two processes later
    assert steps[1][1] is None
