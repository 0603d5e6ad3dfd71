import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses.contrast import unit_rows
from pc_losses.queue import FeatureQueue, queue_info_nce
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes


def random_rows(n, c=4, seed=0, dtype=torch.float64):
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(0, 20), max_size=6))
def test_it_holds_the_last_rows_in_a_ring(size, pushes):
    queue = FeatureQueue(3, size)
    want, at = queue.feature.tolist(), 0
    rows = unit_rows(random_rows(sum(pushes), 3, dtype=torch.float32))
    for part in rows.split(pushes):
        written = queue.push(5 * part)
        places = [(at + i) % size for i in range(len(part))]
        for place, row in zip(places, part.tolist(), strict=True):
            want[place] = row
        at += len(part)
        assert written.tolist() == places[-size:]
        torch.testing.assert_close(queue.feature, torch.tensor(want))
        assert queue.position == at % size
        assert int(queue.num_pushed) == at
        assert queue.num_filled == min(at, size)
        assert queue.full == (at >= size)


def test_it_starts_with_random_unit_rows_everywhere_the_same():
    queue = FeatureQueue(16, 500)
    torch.testing.assert_close(queue.feature.norm(dim=1), torch.ones(500))
    assert queue.feature.mean(dim=0).norm() < 0.1
    assert torch.equal(queue.feature, FeatureQueue(16, 500).feature)
    assert not queue.full
    assert FeatureQueue().feature.shape == (300_000, 128)


def test_a_resumed_run_has_the_same_queue():
    queue, other = FeatureQueue(4, 10), FeatureQueue(4, 10)
    queue.push(random_rows(13))
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.push(random_rows(5, seed=1))
    assert torch.equal(queue.feature, other.feature)
    assert queue.position == other.position == 8
    assert other.full


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rows_are_kept_in_single_and_without_a_graph(dtype):
    queue = FeatureQueue(4, 10)
    queue.push(random_rows(3, dtype=dtype).requires_grad_(True))
    assert queue.feature.dtype == torch.float32
    assert not queue.feature.requires_grad
    torch.testing.assert_close(queue.feature[:3].norm(dim=1), torch.ones(3))


def oracle(query, key, queue, temperature):
    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    terms = []
    for q, k in zip(query.tolist(), key.tolist(), strict=True):
        own = math.exp(cosine(q, k) / temperature)
        others = sum(math.exp(cosine(q, row) / temperature) for row in queue.tolist())
        terms.append(-math.log(own / (own + others)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("v", "q"), [(1, 1), (2, 5), (9, 30)])
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_nce_equals_the_double_loop(v, q, temperature):
    query, key = random_rows(v), random_rows(v, seed=1)
    queue = unit_rows(random_rows(q, seed=2))
    got = queue_info_nce(query, key, queue, temperature=temperature)
    assert float(got) == pytest.approx(oracle(query, key, queue, temperature), abs=1e-10)
    if temperature == 0.1:
        assert torch.equal(got, queue_info_nce(query, key, queue))


def test_nce_gradcheck_of_both_sides():
    query, key = (random_rows(4, 3, seed).requires_grad_(True) for seed in (0, 1))
    queue = unit_rows(random_rows(6, 3, 2))
    assert torch.autograd.gradcheck(lambda q, k: queue_info_nce(q, k, queue), (query, key))


def test_the_queue_may_move_on_before_the_backward_pass():
    query, key = (random_rows(4, seed=seed, dtype=torch.float32) for seed in (0, 1))
    query.requires_grad_(True)
    queue = FeatureQueue(4, 10)
    (want,) = torch.autograd.grad(queue_info_nce(query, key, queue.feature), query)
    loss = queue_info_nce(query, key, queue.feature)
    queue.push(key)
    (got,) = torch.autograd.grad(loss, query)
    assert torch.equal(got, want)


def test_no_queries_give_a_zero_that_back_propagates():
    query, key = (torch.zeros(0, 4, requires_grad=True) for _ in range(2))
    loss = queue_info_nce(query, key, FeatureQueue(4, 5).feature)
    loss.backward()
    assert loss == 0
    assert query.grad.shape == (0, 4)


def test_halves_are_computed_in_single():
    query, key = (random_rows(9, seed=seed).half() for seed in (0, 1))
    queue = FeatureQueue(4, 50).feature
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = queue_info_nce(query, key, queue)
    assert got.dtype == torch.float32
    assert torch.equal(got, queue_info_nce(query.float(), key.float(), queue))


COUNTS = [(3, 3), (5, 0), (2, 7), (9, 9)]


def inputs(rank, count):
    return random_rows(2 * count, 5, seed=20 + rank, dtype=torch.float32).view(2, count, 5)


def network():
    layer = torch.nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_rows(4, 5, seed=1))
    return layer


def train(rank):
    """A step a count, the queue being pushed to in between."""
    layer = DistributedDataParallel(network())
    queue = FeatureQueue(4, 11)
    steps = []
    for counts in COUNTS:
        layer.zero_grad()
        query, key = layer(inputs(rank, counts[rank]))
        loss = queue_info_nce(query, key, queue.feature)
        loss.backward()
        queue.push(key)
        steps.append((loss.detach(), layer.module.weight.grad.clone(), queue.feature.clone()))
    return steps


def test_two_processes_learn_and_queue_as_one_does_on_the_joint_batch():
    both = run_in_processes(train)
    layer, queue = network(), FeatureQueue(4, 11)
    for case, counts in enumerate(COUNTS):
        layer.zero_grad()
        sides = zip(*(inputs(rank, counts[rank]) for rank in range(2)), strict=True)
        query, key = (layer(torch.cat(side)) for side in sides)  # in order of rank
        want = queue_info_nce(query, key, queue.feature)
        want.backward()
        queue.push(key)
        losses, gradients, features = zip(*(steps[case] for steps in both), strict=True)
        torch.testing.assert_close(sum(losses) / 2, want.detach())
        assert torch.equal(*features)
        torch.testing.assert_close(features[0], queue.feature)
        for gradient in gradients:
            torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-5, atol=1e-5)


@unchecked_only
def test_wrong_shapes_are_refused():
    queue = FeatureQueue(4, 5)
    with pytest.raises(ValueError, match=r"feature must be \[b, 4\], got \[2, 3\]; give"):
        queue.push(torch.zeros(2, 3))
    query = random_rows(3)
    with pytest.raises(ValueError, match=r"query and key must both be \[v, c\], got"):
        queue_info_nce(query, query[:2], queue.feature)
    with pytest.raises(ValueError, match=r"the queue must be \[q, 4\], .* got \[5, 3\]"):
        queue_info_nce(query, query, torch.zeros(5, 3))


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match=r"dim must be at least 1, got 0"):
        FeatureQueue(0, 5)
    with pytest.raises(ValueError, match=r"size must be at least 1, got -1"):
        FeatureQueue(4, -1)
    query = random_rows(3, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
        queue_info_nce(query, query, FeatureQueue(4, 5).feature, temperature=0.0)
