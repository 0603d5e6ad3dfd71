import math

import pytest
import torch
from pc_losses import uniformity
from pc_losses.uniformity import uniformity_score


@pytest.mark.parametrize(("n", "c", "sharpness"), [(2, 1, 2.0), (2, 3, 2.0), (30, 5, 0.5)])
def test_equals_the_double_loop(n, c, sharpness, monkeypatch):
    monkeypatch.setattr(uniformity, "_ROWS", 7)
    feat = torch.randn(n, c, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    unit = [[x / math.hypot(*row) for x in row] for row in feat.tolist()]
    weights = [
        math.exp(-sharpness * math.dist(unit[i], unit[j]) ** 2)
        for i in range(n)
        for j in range(n)
        if i != j
    ]
    wanted = math.log(sum(weights) / len(weights))
    assert float(uniformity_score(feat, sharpness=sharpness)) == pytest.approx(wanted, abs=1e-9)


def test_from_collapse_to_evenly_spread():
    assert abs(float(uniformity_score(torch.full((50, 8), 3.0)))) < 1e-5
    directions = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
    assert float(uniformity_score(directions)) == pytest.approx(-4, abs=0.1)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(uniformity_score(opposite)) == pytest.approx(-8)


def test_length_does_not_count_and_zeros_have_no_direction():
    feat = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    scaled = feat * torch.arange(1, 21)[:, None]
    torch.testing.assert_close(uniformity_score(scaled), uniformity_score(feat))
    # Two zeros are at squared distance 2 of each other, as of all others.
    assert float(uniformity_score(torch.zeros(2, 4))) == pytest.approx(-4)


def test_too_few_points_and_wrong_sharpness():
    assert uniformity_score(torch.ones(1, 3)).isnan()
    assert uniformity_score(torch.ones(0, 3)).isnan()
    with pytest.raises(ValueError, match=r"sharpness must be above 0, got 0\.0; the paper's is 2"):
        uniformity_score(torch.ones(2, 3), sharpness=0.0)
