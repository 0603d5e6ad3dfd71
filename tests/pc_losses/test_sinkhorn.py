import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses.sinkhorn import column_potential, sinkhorn

from tests.lanes import unchecked_only
from tests.processes import run_in_processes


def random_scores(n, k, seed=0, spread=0.2):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, k, generator=generator, dtype=torch.float64)


def shares(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + torch.rand(n, generator=generator, dtype=torch.float64)


def oracle(scores, sharpness, row, column, num_iterations):
    """Scale columns, then rows, in turn."""
    table = np.exp(sharpness * scores.numpy())
    for _ in range(num_iterations):
        table = table * (column / table.sum(0))
        table = table * (row / table.sum(1))[:, None]
    return table


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.sampled_from([1.0, 20.0, 25.0]),
    st.integers(1, 4),
    st.integers(0, 2**16),
)
def test_each_iteration_equals_the_loop(n, k, sharpness, num_iterations, seed):
    scores = random_scores(n, k, seed)
    got = sinkhorn(scores, sharpness=sharpness, num_iterations=num_iterations, tolerance=0.0)
    want = oracle(scores, sharpness, np.full(n, 1 / n), np.full(k, 1 / k), num_iterations)
    np.testing.assert_allclose(got, want, atol=1e-10)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 3), (30, 7)])
def test_given_marginals_end_where_the_loop_does(n, k):
    scores, row, column = random_scores(n, k), shares(n, 1), shares(k, 2)
    got = sinkhorn(scores, row_marginal=3 * row, column_marginal=column, tolerance=1e-10)
    want = oracle(scores, 25.0, (row / row.sum()).numpy(), (column / column.sum()).numpy(), 1000)
    np.testing.assert_allclose(got, want, atol=1e-8)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**16), st.booleans())
def test_marginals_hold(n, k, seed, uniform):
    row, column = (None, None) if uniform else (shares(n, seed), shares(k, seed + 1))
    # At the default of 25, two rows of two columns may need more iterations than any limit.
    scores = random_scores(n, k, seed)
    table = sinkhorn(scores, sharpness=2.0, row_marginal=row, column_marginal=column)
    for marginal, num, dim in ((row, n, 1), (column, k, 0)):
        want = torch.ones(num).double() if marginal is None else marginal
        torch.testing.assert_close(table.sum(dim), want / want.sum(), atol=1e-6, rtol=0)
    assert (table >= 0).all()


def test_it_is_the_optimal_transport_of_pot():
    ot = pytest.importorskip("ot")
    scores, row, column = random_scores(30, 7), shares(30, 1), shares(7, 2)
    row, column = row / row.sum(), column / column.sum()
    want = ot.sinkhorn(row.numpy(), column.numpy(), -scores.numpy(), 1 / 25, stopThr=1e-12)
    got = sinkhorn(scores, row_marginal=row, column_marginal=column, tolerance=1e-10)
    np.testing.assert_allclose(got, want, atol=1e-8)


def test_it_has_the_factors_of_an_optimum():
    """exp(sharpness * scores) times a factor a row and one a column."""
    scores = random_scores(20, 4)
    rest = sinkhorn(scores, sharpness=25.0).log() - 25 * scores
    torch.testing.assert_close(rest - rest[:1] - rest[:, :1] + rest[0, 0], torch.zeros_like(rest))


def test_the_power_of_probabilities_is_that_of_scores():
    """Asano's P^lambda: what a softmax takes off a row, the row's factor puts back."""
    scores = random_scores(20, 4)
    torch.testing.assert_close(
        sinkhorn(scores.log_softmax(dim=1)), sinkhorn(scores), atol=1e-6, rtol=0
    )


def test_swav_by_hand():
    """Its three iterations on exp(scores / 0.05): prototypes, then samples."""
    scores = random_scores(6, 3, seed=4)
    q = torch.exp(scores / 0.05).T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True) * 3
        q /= q.sum(dim=0, keepdim=True) * 6
    got = sinkhorn(scores, sharpness=20.0, num_iterations=3, tolerance=0.0)
    torch.testing.assert_close(got, q.T)


@pytest.mark.parametrize("sharpness", [25.0, 1e4])
def test_extreme_scores_do_not_overflow(sharpness):
    scores = 50 * random_scores(40, 4).float()
    table = sinkhorn(scores, sharpness=sharpness, num_iterations=50)
    assert table.isfinite().all()
    assert table.dtype == torch.float32
    torch.testing.assert_close(table.sum(1), torch.full((40,), 1 / 40))


def test_alike_rows_are_spread_evenly():
    table = sinkhorn(torch.tensor([[9.0, 0.0, -9.0]]).expand(4, 3))
    torch.testing.assert_close(table, torch.full((4, 3), 1 / 12))


def test_it_stops_once_the_columns_are_right():
    scores = random_scores(50, 5, spread=0.05)
    loose, tight = (
        (sinkhorn(scores, tolerance=limit).sum(0) - 0.2).abs().sum() for limit in (0.05, 1e-9)
    )
    assert 1e-9 < loose <= 0.05
    assert tight <= 1e-9


def test_the_potential_makes_the_table_a_softmax_and_can_be_gone_on_from():
    scores = random_scores(30, 5)
    potential = column_potential(scores, tolerance=1e-9)
    torch.testing.assert_close(
        (25 * scores + potential).softmax(dim=1) / 30, sinkhorn(scores), atol=1e-6, rtol=0
    )
    once = column_potential(scores, start=potential.float(), num_iterations=1)
    torch.testing.assert_close(once, potential, atol=1e-4, rtol=0)
    cold = column_potential(scores, num_iterations=1)
    assert (cold - potential).abs().max() > 0.1


def test_many_rows_are_taken_in_blocks(monkeypatch):
    scores = random_scores(50, 5)
    want = sinkhorn(scores)
    monkeypatch.setattr("pc_losses.sinkhorn._BLOCK", 35)
    torch.testing.assert_close(sinkhorn(scores), want)


def test_no_rows_give_no_table():
    assert sinkhorn(torch.zeros(0, 3)).shape == (0, 3)


CASES = [(7, 5), (12, 0), (0, 1)]


def spread(rank):
    tables = []
    for counts in CASES:
        own = slice(0, counts[0]) if rank == 0 else slice(counts[0], None)
        scores, row = random_scores(sum(counts), 3), shares(sum(counts), 1)
        tables.append(sinkhorn(scores[own], over_processes=True))
        tables.append(sinkhorn(scores[own], row_marginal=row[own], over_processes=True))
    return tables


def test_rows_may_be_spread_over_processes():
    both = run_in_processes(spread)
    for case, counts in enumerate(CASES):
        scores, row = random_scores(sum(counts), 3), shares(sum(counts), 1)
        for which, want in enumerate((sinkhorn(scores), sinkhorn(scores, row_marginal=row))):
            got = torch.cat([tables[2 * case + which] for tables in both])
            torch.testing.assert_close(got, want)


@unchecked_only
def test_wrong_shapes_are_refused():
    scores = random_scores(4, 3)
    with pytest.raises(
        ValueError, match=r"scores must be \[n, k\] with a column or more, got \[4\]"
    ):
        sinkhorn(scores[:, 0])
    with pytest.raises(ValueError, match=r"row_marginal must be \[4\], a share a row, got \[3\]"):
        sinkhorn(scores, row_marginal=torch.ones(3))
    with pytest.raises(ValueError, match=r"column_marginal must be \[3\], a share a column"):
        sinkhorn(scores, column_marginal=torch.ones(4))


def test_wrong_values_are_refused():
    scores = random_scores(4, 3)
    for wrong in (0.0, math.nan):
        with pytest.raises(ValueError, match=r"sharpness must be above 0, got .*; papers use"):
            sinkhorn(scores, sharpness=wrong)
    with pytest.raises(ValueError, match=r"num_iterations must be at least 1, got 0; SwAV"):
        sinkhorn(scores, num_iterations=0)
    with pytest.raises(ValueError, match=r"column_marginal must be above 0, got 0.0; leave out"):
        sinkhorn(scores, column_marginal=torch.tensor([1.0, 0.0, 1.0]))
