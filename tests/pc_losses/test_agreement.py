import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import alignment_score, contrastive_accuracy

from tests.lanes import unchecked_only


def random_units(n, c=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, c, generator=generator, dtype=torch.float64) for _ in range(2))


def cosine(a, b):
    return float(torch.cosine_similarity(a, b, dim=0))


def verdicts(query, key, batch, rank, guide):
    """True or False for each query with a negative."""
    found = []
    for i in range(len(query)):
        others = [j for j in range(len(query)) if j != i and batch[j] == batch[i]]
        alike = sorted(cosine(guide[i], guide[j]) for j in others)
        limit = alike[rank - 1] if rank is not None and rank <= len(alike) else math.inf
        negatives = [j for j in others if cosine(guide[i], guide[j]) < limit - 1e-12]
        if negatives:
            own = cosine(query[i], key[i])
            found.append(all(own > cosine(query[i], key[j]) for j in negatives))
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.none() | st.integers(2, 8),
    st.integers(0, 2**16),
)
def test_accuracy_equals_the_double_loop(sizes, rank, seed):
    query, key = random_units(sum(sizes), seed=seed)
    key = query + key
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    guide = random_units(sum(sizes), seed=seed + 1)[0]
    for options, chosen in (({}, key), ({"guide": guide}, guide)):
        want = verdicts(query, key, batch, rank, chosen)
        got = float(contrastive_accuracy(query, key, batch, rank=rank, **options))
        if want:
            assert got == pytest.approx(sum(want) / len(want))
        else:
            assert math.isnan(got)


def test_accuracy_by_hand():
    axes = torch.eye(3)
    assert contrastive_accuracy(axes, axes) == 1
    assert contrastive_accuracy(axes, axes[[1, 2, 0]]) == 0
    assert contrastive_accuracy(axes, axes[[0, 2, 1]]) == pytest.approx(1 / 3)
    apart = torch.arange(3)  # each in a scan of its own: nothing to tell from
    assert contrastive_accuracy(axes, axes, apart).isnan()


def test_collapsed_features_are_never_right():
    same = torch.ones(6, 3)
    assert contrastive_accuracy(same, same) == 0
    assert contrastive_accuracy(same, same, rank=3).isnan()  # all tie: no negatives


def test_fewer_negatives_are_easier():
    query, noise = random_units(200, 8)
    key = query + 2 * noise
    shares = [float(contrastive_accuracy(query, key, rank=rank)) for rank in (2, 20, 200)]
    assert shares[0] > shares[1] > shares[2] > 0
    assert shares[2] == contrastive_accuracy(query, key)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_alignment_equals_the_loop(n):
    query, key = random_units(n)
    want = sum(cosine(query[i], key[i]) for i in range(n)) / n
    assert float(alignment_score(query, key)) == pytest.approx(want, abs=1e-12)
    assert float(alignment_score(query, 3 * query)) == pytest.approx(1)
    assert float(alignment_score(query, -query)) == pytest.approx(-1)


def test_halves_are_measured_in_single():
    query, key = (x.half() for x in random_units(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = contrastive_accuracy(query, key), alignment_score(query, key)
    assert got[0] == contrastive_accuracy(query.float(), key.float())
    assert got[1] == alignment_score(query.float(), key.float())


def test_no_gradient_is_kept():
    query, key = (x.requires_grad_(True) for x in random_units(5))
    assert not contrastive_accuracy(query, key).requires_grad
    assert not alignment_score(query, key).requires_grad


def test_no_units_have_neither():
    none = torch.zeros(0, 3)
    assert contrastive_accuracy(none, none).isnan()
    assert contrastive_accuracy(none, none, torch.zeros(0, dtype=torch.int64), rank=3).isnan()
    assert alignment_score(none, none).isnan()


def test_wrong_values_are_refused():
    query, key = random_units(4)
    with pytest.raises(ValueError, match="batch must be sorted"):
        contrastive_accuracy(query, key, torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="rank must be at least 2, got 1"):
        contrastive_accuracy(query, key, rank=1)


@unchecked_only
def test_other_shapes_are_refused():
    query, key = random_units(4)
    for measure in (contrastive_accuracy, alignment_score):
        with pytest.raises(ValueError, match=r"must both be \[p, c\], got \[4, 3\] and \[3, 3\]"):
            measure(query, key[:3])
