import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses.pooling import pool_groups
from torch.overrides import TorchFunctionMode

from tests.lanes import unchecked_only


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rows(n, c=3, seed=0, dtype=torch.float64):
    return torch.randn(n, c, generator=seeded(seed), dtype=dtype)


def random_groups(n, num_groups, seed=0):
    return torch.randint(-2, num_groups, (n,), generator=seeded(seed + 1))


def oracle(features, group, num_groups, rows, weight):
    pooled = torch.zeros(num_groups, features.shape[1], dtype=features.dtype)
    for g in range(num_groups):
        mine = [m for m in range(len(group)) if group[m] == g]
        total = sum(float(weight[m]) for m in mine)
        for m in mine if total else []:
            pooled[g] += weight[m] * features[rows[m]] / total
    return pooled


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 14),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_means_equal_the_loop(r, m, num_groups, with_rows, with_weight, seed):
    features = random_rows(r, seed=seed)
    m = m if with_rows and r else r
    rows = torch.randint(max(r, 1), (m,), generator=seeded(seed + 2))
    group = random_groups(m, num_groups, seed)
    weight = torch.randint(3, (m,), generator=seeded(seed + 3)).double()
    got = pool_groups(
        features,
        group,
        num_groups,
        rows=rows if with_rows else None,
        weight=weight if with_weight else None,
    )
    want = oracle(
        features,
        group,
        num_groups,
        rows if with_rows else torch.arange(r),
        weight if with_weight else torch.ones(m),
    )
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_by_hand():
    features = torch.tensor([[1.0], [3.0], [10.0], [99.0]])
    group = torch.tensor([2, 2, 0, -1])
    assert pool_groups(features, group, 4).tolist() == [[10], [0], [2], [0]]
    weight = torch.tensor([1.0, 3.0, 0.0, 1.0])  # all of group 0 is weightless
    assert pool_groups(features, group, 4, weight=weight).tolist() == [[0], [0], [2.5], [0]]
    twice = torch.tensor([1, 1, 3])
    assert pool_groups(features, torch.tensor([0, 1, 1]), 2, rows=twice).tolist() == [[3], [51]]
    assert pool_groups(features, torch.full((4,), -1), 0).shape == (0, 1)


def test_rows_of_no_group_are_not_read():
    """Not even summed: what they hold reaches nothing, and the bags begin after them."""
    features = random_rows(6)
    features[[1, 4]] = torch.nan
    group = torch.tensor([1, -1, 0, 1, -2, 0])
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pc_losses.pooling.functional.embedding_bag", _counted(seen))
        got = pool_groups(features, group, 2)
    assert seen == [[2, 5, 0, 3]]
    torch.testing.assert_close(
        got, torch.stack([features[[2, 5]].mean(0), features[[0, 3]].mean(0)])
    )
    assert pool_groups(features, torch.full((6,), -1), 2).tolist() == [[0] * 3] * 2


def _counted(seen):
    sum_bags = torch.nn.functional.embedding_bag

    def spy(rows, *arguments, **options):
        seen.append(rows.tolist())
        return sum_bags(rows, *arguments, **options)

    return spy


def test_the_host_reads_from_the_device_once():
    features, group = random_rows(5), torch.tensor([1, -1, 0, 1, 0])
    reads = []

    class Spy(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in ("tolist", "item", "__bool__", "__int__"):
                reads.append(function)
            return function(*args, **(kwargs or {}))

    with Spy():
        pool_groups(features, group, 2, rows=torch.arange(5), weight=torch.ones(5))
    assert len(reads) == 1


@pytest.mark.parametrize("with_rows", [False, True])
def test_gradcheck_of_features_and_weights(with_rows):
    features = random_rows(5).requires_grad_(True)
    rows = torch.tensor([4, 0, 0, 2, 1, 4]) if with_rows else None
    m = 6 if with_rows else 5
    group = torch.tensor([1, 0, -1, 1, 3, 3])[:m]
    weight = random_rows(m, 1, seed=3)[:, 0].abs().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: pool_groups(x, group, 4, rows=rows), features)
    assert torch.autograd.gradcheck(
        lambda x, w: pool_groups(x, group, 4, rows=rows, weight=w), (features, weight)
    )


def test_rows_of_no_group_get_no_gradient():
    features = random_rows(3).requires_grad_(True)
    pool_groups(features, torch.tensor([0, -1, 0]), 2).sum().backward()
    assert features.grad[:, 0].tolist() == [0.5, 0, 0.5]


def test_nothing_to_pool_back_propagates():
    features = torch.zeros(0, 3, requires_grad=True)
    pooled = pool_groups(features, torch.zeros(0, dtype=torch.long), 2)
    pooled.sum().backward()
    assert pooled.tolist() == [[0] * 3] * 2
    assert features.grad.shape == (0, 3)


def test_same_bits_each_time_and_for_any_layout():
    image = torch.randn(2, 8, 40, 50, generator=seeded()).requires_grad_(True)
    group = random_groups(2 * 40 * 50, 30)
    pixels = image.permute(0, 2, 3, 1).flatten(0, 2)
    first, second = (pool_groups(pixels, group, 30) for _ in range(2))
    assert torch.equal(first, second)
    view = torch.cat([pixels, pixels], dim=1)[:, :8]  # not contiguous
    assert torch.equal(pool_groups(view, group, 30), first)
    first.square().sum().backward()
    assert image.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_summed_in_single(dtype):
    features = torch.ones(5000, 2, dtype=dtype)
    group = torch.zeros(5000, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pool_groups(features, group, 1, weight=torch.ones(5000, dtype=dtype))
    assert got.dtype == torch.float32
    assert got.tolist() == [[1, 1]]


@unchecked_only
def test_wrong_shapes_are_refused():
    features, group = random_rows(3), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"group \[3\], a group a row, got \[3, 3\] and \[2\]"):
        pool_groups(features, group[:2], 1)
    with pytest.raises(ValueError, match=r"weight must be \[3\], a weight a row, got \[2\]"):
        pool_groups(features, group, 1, weight=torch.ones(2))


def test_wrong_values_are_refused():
    features, group = random_rows(3), torch.tensor([0, 2, 1])
    with pytest.raises(ValueError, match=r"groups must be below num_groups, 2, got 2; number"):
        pool_groups(features, group, 2)
    with pytest.raises(ValueError, match=r"rows must be in \[0, 3\), .* got 0 to 3; number"):
        pool_groups(features, group, 3, rows=torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match=r"rows must be in .* got -1 to 1"):
        pool_groups(features, group, 3, rows=torch.tensor([0, 1, -1]))
    with pytest.raises(ValueError, match=r"weights must not be negative, got -2"):
        pool_groups(features, group, 3, weight=torch.tensor([1.0, -2.0, 0.0]))
