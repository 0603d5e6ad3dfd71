import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import feature_spread, negative_similarity
from pc_losses.health import effective_rank

from tests.lanes import unchecked_only


def random_pair(n, c, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, c, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize(("n", "c"), [(2, 1), (2, 3), (30, 5)])
def test_equal_the_double_loops(n, c):
    query, key = random_pair(n, c)
    unit = [[x / math.hypot(*row) for x in row] for row in query.tolist()]
    spreads = []
    for column in zip(*unit, strict=True):
        mean = sum(column) / n
        spreads.append(math.sqrt(sum((x - mean) ** 2 for x in column) / n))
    assert float(feature_spread(query)) == pytest.approx(sum(spreads) / c, abs=1e-12)
    cosines = [
        float(torch.cosine_similarity(query[i], key[j], dim=0))
        for i in range(n)
        for j in range(n)
        if i != j
    ]
    got = float(negative_similarity(query, key))
    assert got == pytest.approx(sum(cosines) / len(cosines), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_collapsed_features(dtype):
    features = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=dtype).expand(4000, 4)
    lengths = torch.arange(1, 4001, dtype=torch.float32)[:, None].to(dtype) / 4000
    features = features * lengths  # the same direction, whatever the length
    tolerance = 1e-3 if dtype == torch.float16 else 1e-5
    assert float(feature_spread(features)) == pytest.approx(0, abs=tolerance)
    assert float(negative_similarity(features, features)) == pytest.approx(1, abs=tolerance)


def test_isotropic_features():
    query, key = random_pair(20000, 16)
    assert float(feature_spread(query)) == pytest.approx(1 / math.sqrt(16), rel=0.01)
    assert float(negative_similarity(query, key)) == pytest.approx(0, abs=0.01)


def test_by_hand():
    axes = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert float(feature_spread(axes)) == pytest.approx(0.5)
    assert float(negative_similarity(axes, axes)) == 0
    assert float(negative_similarity(axes, axes.flip(0))) == 1
    assert float(negative_similarity(axes, -axes.flip(0))) == -1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 2**16))
def test_bounds_and_symmetry(n, c, seed):
    query, key = random_pair(n, c, seed)
    assert 0 <= float(feature_spread(query)) <= 1 / math.sqrt(c) + 1e-9
    similarity = negative_similarity(query, key)
    assert abs(float(similarity)) <= 1 + 1e-9
    torch.testing.assert_close(negative_similarity(key, query), similarity)


def test_no_gradient_is_kept():
    features = torch.randn(5, 3, requires_grad=True)
    assert not feature_spread(features).requires_grad
    assert not effective_rank(features).requires_grad
    assert not negative_similarity(features, features).requires_grad


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_have_neither(n):
    features = torch.ones(n, 3)
    assert feature_spread(features).isnan()
    assert negative_similarity(features, features).isnan()


@unchecked_only
def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must both be \[p, c\], got \[3, 4\] and \[2, 4\]; give"):
        negative_similarity(torch.zeros(3, 4), torch.zeros(2, 4))


@pytest.mark.parametrize(("n", "c"), [(1, 1), (1, 4), (3, 7), (40, 6)])
def test_effective_rank_by_singular_values(n, c):
    features, _ = random_pair(n, c)
    values = torch.linalg.svdvals(features)
    share = (values / values.sum()).tolist()
    expected = math.exp(-sum(p * math.log(p) for p in share))
    assert float(effective_rank(features)) == pytest.approx(expected, rel=1e-9)


def test_effective_rank_of_known_features():
    assert float(effective_rank(torch.eye(5).repeat(3, 1))) == pytest.approx(5)
    assert float(effective_rank(torch.diag(torch.tensor([2.0, 2, 0, 0])))) == pytest.approx(2)
    collapsed = torch.linspace(0.1, 1, 4000)[:, None] * torch.tensor([1.0, -2, 0.5, 3])
    assert float(effective_rank(collapsed)) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank(collapsed.half())) == pytest.approx(1, abs=1e-2)
    assert effective_rank(torch.zeros(4, 3)).isnan()
    assert effective_rank(torch.zeros(0, 3)).isnan()
