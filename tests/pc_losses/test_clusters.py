import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses.clusters import (
    _STRATEGIES,
    ClusteredQueue,
    cluster_classification,
    cluster_info_nce,
    nearest_rows,
)
from pc_losses.contrast import unit_rows
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rows(n, c=4, seed=0, dtype=torch.float64):
    return torch.randn(n, c, generator=seeded(seed), dtype=dtype)


def random_queue(q, num_clusters, seed=0, c=4):
    labels = torch.randint(-1, num_clusters, (q,), generator=seeded(seed + 9))
    return unit_rows(random_rows(q, c, seed + 5)), labels


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(row):
    return [x / math.sqrt(dot(row, row)) for x in row]


def oracle(query, key, feature, labels, negatives, num_clusters, temperature=0.1):
    """All rows that may be negatives are taken; of each cluster the volumes' possible terms."""
    query, key, feature = (side.tolist() for side in (query, key, feature))
    labels, terms = labels.tolist(), {}
    known = [r for r in range(len(feature)) if labels[r] >= 0]
    for q, k in zip(query, key, strict=True):
        row = max(known, key=lambda r: dot(k, feature[r]))
        own = labels[row]
        allowed = {
            "other": [r for r in known if labels[r] != own],
            "hard": [r for r in known if labels[r] == own and r != row],
            "random": [r for r in known if r != row],
        }[negatives]
        scores = [math.exp(dot(unit(q), feature[r]) / temperature) for r in (row, *allowed)]
        terms.setdefault(own, []).append(-math.log(scores[0] / sum(scores)))
    return terms


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 30),
    st.integers(2, 5),
    st.integers(0, 2**16),
    st.sampled_from(sorted(_STRATEGIES)),
)
def test_loss_is_the_mean_of_one_term_of_each_cluster(v, q, num_clusters, seed, negatives):
    query, key = random_rows(v, seed=seed), random_rows(v, seed=seed + 1)
    feature, labels = random_queue(q, num_clusters, seed)
    got = float(
        cluster_info_nce(
            query,
            key,
            feature,
            labels,
            num_clusters=num_clusters,
            generator=seeded(),
            negatives=negatives,
        )
    )
    if (labels < 0).all():
        assert got == 0
        return
    terms = oracle(query, key, feature, labels, negatives, num_clusters)
    means = [0.0]
    for of_cluster in terms.values():  # any of a cluster's volumes may have been drawn
        means = [mean + term / len(terms) for mean in means for term in of_cluster]
    assert min(abs(got - mean) for mean in means) < 1e-9


def test_each_volume_of_a_cluster_is_drawn_now_and_then():
    feature, labels = torch.eye(3), torch.tensor([0, 0, 1])
    key = torch.eye(3)[[0, 1, 2, 0]]
    query = random_rows(4, 3, dtype=torch.float32)
    values = {round(float(draw_loss(query, key, feature, labels, seed)), 5) for seed in range(40)}
    assert len(values) == 3  # of cluster 0 any of three, of cluster 1 the only one


def draw_loss(query, key, feature, labels, seed=0, **settings):
    return cluster_info_nce(
        query, key, feature, labels, num_clusters=2, generator=seeded(seed), **settings
    )


def test_by_hand():
    """The nearest row at cosine 1, a row of another cluster at 0, one of the own at -1."""
    feature = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.9, 0.1]])
    labels = torch.tensor([0, 1, 0, -1])  # the last one is nobody's
    volume = torch.tensor([[2.0, 0.2]])
    query = torch.tensor([[3.0, 0.0]])
    e = math.e
    for negatives, want in (
        ("other", math.log((e + 1) / e)),
        ("hard", math.log((e + 1 / e) / e)),
        ("random", math.log((e + 1 + 1 / e) / e)),
    ):
        got = draw_loss(query, volume, feature, labels, negatives=negatives, temperature=1.0)
        assert float(got) == pytest.approx(want, abs=1e-6)


def test_defaults_are_those_of_the_paper():
    query, key = random_rows(6), random_rows(6, seed=1)
    feature, labels = random_queue(40, 2)
    want = draw_loss(
        query, key, feature, labels, negatives="other", num_negatives=20_000, temperature=0.1
    )
    assert torch.equal(draw_loss(query, key, feature, labels), want)


@pytest.mark.parametrize("num", [1, 10, 90, 10_000])
@pytest.mark.parametrize("negatives", sorted(_STRATEGIES))
def test_strategies_draw_of_the_right_clusters(negatives, num):
    labels = torch.randint(-1, 4, (400,), generator=seeded())
    counts = labels[labels >= 0].bincount().tolist()
    cluster = torch.tensor([0, 3])
    pool, is_negative = _STRATEGIES[negatives](labels, cluster, 4, num, seeded(1))
    assert len(set(pool.tolist())) == len(pool)
    for own, row in zip(cluster.tolist(), is_negative, strict=True):
        drawn = labels[pool[row]]
        assert (drawn >= 0).all()
        each = {c: int((drawn == c).sum()) for c in range(4)}
        if negatives == "other":
            per = math.ceil(num / 3)
            assert each == {c: 0 if c == own else min(per, counts[c]) for c in range(4)}
        elif negatives == "hard":
            assert each == {c: min(num, counts[c]) if c == own else 0 for c in range(4)}
        else:
            assert len(drawn) == min(num, sum(counts))


def test_rows_of_a_cluster_are_drawn_evenly():
    labels = torch.tensor([0, 1, 0, 1, 0, -1])
    times = torch.zeros(6)
    generator = seeded()
    for _ in range(600):
        pool, _ = _STRATEGIES["other"](labels, torch.tensor([0]), 2, 1, generator)
        times[pool] += 1
    assert times[5] == 0
    torch.testing.assert_close(
        times[:5], torch.tensor([200, 300, 200, 300, 200.0]), rtol=0, atol=60
    )


def test_only_so_many_volumes_are_looked_up(monkeypatch):
    seen = []

    def counting(key, feature, labels):
        seen.append(len(key))
        return nearest_rows(key, feature, labels)

    monkeypatch.setattr("pc_losses.clusters.nearest_rows", counting)
    key = random_rows(50)
    feature, labels = random_queue(30, 2)
    draw_loss(key, key, feature, labels)
    draw_loss(key, key, feature, labels, max_lookups=5)
    draw_loss(key[:3], key[:3], feature, labels)
    assert seen == [16, 5, 3]


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_nearest_row_equals_the_loop(block, monkeypatch):
    monkeypatch.setattr("pc_losses.clusters._BLOCK", block)
    key = random_rows(5)
    feature, labels = random_queue(20, 3)
    for some in (labels, labels.clamp(min=0), torch.full_like(labels, -1)):
        known = [r for r in range(20) if some[r] >= 0]
        want = [
            max(known, key=lambda r: dot(k, feature[r].tolist()), default=-1) for k in key.tolist()
        ]
        assert nearest_rows(key, feature, some).tolist() == want
    assert nearest_rows(key[:0], feature, labels).shape == (0,)


@pytest.mark.parametrize("negatives", sorted(_STRATEGIES))
def test_gradcheck(negatives):
    query, key = random_rows(6, 3).requires_grad_(True), random_rows(6, 3, 1).requires_grad_(True)
    feature, labels = random_queue(20, 2, c=3)

    def loss(query):
        return draw_loss(query, key, feature, labels, negatives=negatives)

    assert torch.autograd.gradcheck(loss, (query,))
    loss(query).backward()
    assert key.grad is None


def test_nothing_to_learn_from_gives_a_zero_that_back_propagates():
    feature, labels = random_queue(20, 2)
    for n, some in ((0, labels), (3, torch.full_like(labels, -1))):
        query = random_rows(n).requires_grad_(True)
        loss = draw_loss(query, query.detach(), feature, some)
        loss.backward()
        assert loss == 0
        assert not query.grad.any()
    query = random_rows(3).requires_grad_(True)  # a single cluster: no negatives
    loss = draw_loss(query, query.detach(), feature, torch.zeros_like(labels))
    loss.backward()
    assert loss == 0
    assert query.grad.isfinite().all()


def test_the_queue_may_move_on_before_the_backward_pass():
    queue = ClusteredQueue(4, 30, num_clusters=2)
    queue.push(random_rows(30))
    query = random_rows(5, dtype=torch.float32).requires_grad_(True)
    grads = []
    for push in (False, True):
        loss = draw_loss(query, query.detach(), queue.feature, queue.labels)
        if push:
            queue.push(random_rows(30, seed=1))
        grads += torch.autograd.grad(loss, query)
    assert torch.equal(*grads)


def test_halves_are_computed_in_single():
    query = random_rows(9).half()
    feature, labels = (x.float() if x.is_floating_point() else x for x in random_queue(20, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = draw_loss(query, query, feature, labels)
    assert got.dtype == torch.float32
    assert torch.equal(got, draw_loss(query.float(), query.float(), feature, labels))


def narrow_features(n, c=8, seed=0):
    """A cone, as of a network at its start: all rows score alike."""
    return 3 + random_rows(n, c, seed, dtype=torch.float32)


def small_queue(**settings):
    torch.manual_seed(0)
    return ClusteredQueue(8, 600, num_clusters=6, **settings)


def test_refresh_balances_clusters_and_labels_pushed_rows_alone():
    queue = small_queue()
    assert (queue.labels == -1).all()
    queue.refresh()  # nothing to balance yet
    queue.push(narrow_features(400))
    assert (queue.labels[:400] >= 0).all()
    assert queue.labels[:400].bincount(minlength=6).max() > 200  # the head alone
    queue.refresh()
    counts = queue.labels[:400].bincount(minlength=6)
    assert counts.min() > 20
    assert counts.max() < 150
    assert (queue.labels[400:] == -1).all()
    scores = 25 * queue.head(queue.feature[:400]) + queue.potential
    share = scores.softmax(dim=1).mean(dim=0)
    assert (share - 1 / 6).abs().sum() <= 0.02 + 1e-4


def test_rows_pushed_after_a_refresh_are_labelled_in_the_same_balance():
    queue = small_queue()
    queue.push(narrow_features(600))
    queue.refresh()
    before = queue.labels.clone()
    written = queue.push(narrow_features(300, seed=1))
    assert torch.equal(queue.labels[300:], before[300:])
    assert torch.equal(queue.labels[written], queue.assign(narrow_features(300, seed=1)))
    assert queue.labels[:300].bincount(minlength=6).max() < 120


def test_the_head_learns_the_labels_and_nothing_else():
    queue = small_queue()
    assert queue.head_loss(generator=seeded()) == 0
    queue.push(narrow_features(600))
    queue.refresh()
    optimizer = torch.optim.SGD(queue.parameters(), lr=20.0)
    losses = []
    for step in range(60):
        loss = queue.head_loss(generator=seeded(step), num_rows=256)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    assert not queue.feature.requires_grad


def test_a_resumed_run_has_the_same_clusters():
    queue = small_queue()
    queue.push(narrow_features(500))
    queue.refresh()
    other = ClusteredQueue(8, 600, num_clusters=6)
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.push(narrow_features(300, seed=1))
    assert torch.equal(queue.labels, other.labels)
    for each in (queue, other):
        each.refresh()
    assert torch.equal(queue.labels, other.labels)


@pytest.mark.parametrize("v", [1, 2, 9])
def test_classification_equals_the_double_loop(v):
    query, key = random_rows(v), random_rows(v, seed=1)
    labels = torch.randint(-1, 4, (v,), generator=seeded(2))
    labels[0] = 3
    terms = [
        -sum(math.log(math.exp(row[own]) / sum(map(math.exp, row))) for row in (a, b))
        for a, b, own in zip(query.tolist(), key.tolist(), labels.tolist(), strict=True)
        if own >= 0
    ]
    got = cluster_classification(query, key, labels)
    assert float(got) == pytest.approx(sum(terms) / len(terms))
    sides = [side.requires_grad_(True) for side in (query, key)]
    assert torch.autograd.gradcheck(lambda a, b: cluster_classification(a, b, labels), sides)
    nothing = cluster_classification(*sides, torch.full_like(labels, -1))
    nothing.backward()
    assert nothing == 0


SIZES = (5, 2)


def network():
    layer = torch.nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_rows(4, 5, seed=1))
    return layer


def inputs(rank):
    return random_rows(SIZES[rank], 5, seed=20 + rank, dtype=torch.float32)


def labels_of(rank):
    return torch.arange(SIZES[rank]) % 3 - rank


def contrast(rank, feature):
    """Each process draws from its own volumes, so one process on the joint batch draws others."""
    queue, labels = random_queue(40, 3)
    return cluster_info_nce(
        feature, feature.detach(), queue.float(), labels, num_clusters=3, generator=seeded(rank)
    )


def train(rank):
    results = {}
    for name in ("contrast", "classify"):
        layer = DistributedDataParallel(network())
        feature = layer(inputs(rank))
        if name == "contrast":
            loss = contrast(rank, feature)
        else:
            loss = cluster_classification(feature, 2 * feature, labels_of(rank))
        loss.backward()
        results[name] = loss.detach(), layer.module.weight.grad
    queue = small_queue()
    queue.push(narrow_features(350, seed=rank))
    queue.refresh()
    results["queue"] = queue.state_dict()
    return results


def test_two_processes_learn_and_cluster_as_one():
    both = run_in_processes(train)
    layer = network()
    feature = torch.cat([layer(inputs(rank)) for rank in range(2)])
    joint = cluster_classification(feature, 2 * feature, torch.cat([labels_of(0), labels_of(1)]))
    parts, queue_labels = [], random_queue(40, 3)
    for rank in range(2):
        own = layer(inputs(rank))
        found = nearest_rows(own, queue_labels[0].float(), queue_labels[1])
        parts.append((contrast(rank, own), len(queue_labels[1][found].unique())))
    pooled = sum(loss * n for loss, n in parts) / sum(n for _, n in parts)  # of all terms
    for name, want in (("classify", joint), ("contrast", pooled)):
        (gradient,) = torch.autograd.grad(want, layer.weight, retain_graph=True)
        torch.testing.assert_close(sum(r[name][0] for r in both) / 2, want.detach())
        for result in both:
            torch.testing.assert_close(result[name][1], gradient, rtol=1e-4, atol=1e-5)
    queue = small_queue()
    queue.push(torch.cat([narrow_features(350, seed=rank) for rank in range(2)]))
    queue.refresh()
    for name, value in queue.state_dict().items():
        assert torch.equal(both[0]["queue"][name], both[1]["queue"][name])
        torch.testing.assert_close(both[0]["queue"][name], value)


@unchecked_only
def test_wrong_shapes_are_refused():
    query = random_rows(3)
    feature, labels = random_queue(9, 2)
    with pytest.raises(ValueError, match=r"labels must be \[9\], a label a row .* got \[8\]"):
        draw_loss(query, query, feature, labels[:8])
    with pytest.raises(ValueError, match=r"query and key must both be \[v, c\], got"):
        draw_loss(query, query[:2], feature, labels)
    with pytest.raises(ValueError, match=r"must both be \[v, k\] and labels \[v\], got"):
        cluster_classification(query, query, labels)
    with pytest.raises(ValueError, match=r"negatives must be one of other, .* mean 'other'"):
        draw_loss(query, query, feature, labels, negatives="others")


def test_wrong_values_are_refused():
    query = random_rows(3)
    feature, labels = random_queue(9, 2)
    for name, wrong in (("num_negatives", 0), ("max_lookups", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            draw_loss(query, query, feature, labels, **{name: wrong})
    with pytest.raises(ValueError, match=r"labels must be below num_clusters, 2, got 5; pass"):
        draw_loss(query, query, feature, labels.clamp(min=5))
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
        draw_loss(query, query, feature, labels, temperature=0.0)
    with pytest.raises(ValueError, match=r"num_clusters must be at least 2, got 1; SSPL uses 64"):
        ClusteredQueue(4, 9, num_clusters=1)
