"""Normalisation of packed rows."""

import torch
from pc_backbones.norms import RowNorm


def test_a_single_row_meets_the_running_statistics():
    norm = RowNorm(3, eps=1e-3).train()
    norm.running_mean.fill_(2)
    row = torch.full((1, 3), 4.0, requires_grad=True)
    out = norm(row)
    torch.testing.assert_close(out, torch.full((1, 3), 2 / (1 + 1e-3) ** 0.5))
    assert norm.running_mean.tolist() == [2, 2, 2]
    out.sum().backward()
    assert (row.grad > 0).all()


def test_more_rows_meet_their_own():
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    ours, plain = RowNorm(3).train(), torch.nn.BatchNorm1d(3).train()
    assert torch.equal(ours(rows), plain(rows))
    assert torch.equal(ours.running_mean, plain.running_mean)
