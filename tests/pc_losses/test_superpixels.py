import math
from functools import partial

import pytest
import torch
from pc_losses.contrast import info_nce
from pc_losses.superpixels import (
    dissimilarity,
    ignore_most_similar,
    ppkt_info_nce,
    rarity,
    superpixel_info_nce,
    tolerant_info_nce,
)
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rows(n, c=4, seed=0, dtype=torch.float64):
    return torch.randn(n, c, generator=seeded(seed), dtype=dtype)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def oracle(point, pixel, temperature=0.07, weight=None):
    """Loss of each superpixel, by a double loop."""
    point, pixel, terms = point.tolist(), pixel.tolist(), []
    for i, k in enumerate(point):
        scores = [
            dot(k, q) / temperature * (1 if weight is None or i == j else weight[i][j])
            for j, q in enumerate(pixel)
        ]
        most = max(scores)
        terms.append(most + math.log(sum(math.exp(s - most) for s in scores)) - scores[i])
    return terms


def cosines(guide):
    rows = [[x / math.sqrt(dot(g, g)) for x in g] for g in guide.tolist()]
    return [[min(max(dot(a, b), 0), 1) for b in rows] for a in rows]


def tolerant_oracle(point, pixel, guide, temperature=0.07):
    similar = cosines(guide)
    weight = [[1 - a for a in row] for row in similar]
    votes = [sum(a for a in row if a >= 0.5) for row in similar]
    low, high = min(votes), max(votes)
    balance = [1 - (v - low) / (high - low) if high - low > 1e-4 else 1 for v in votes]
    terms = oracle(point, pixel, temperature, weight)
    return dot(balance, terms) / sum(balance)


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("s", [1, 2, 9])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_loss_equals_the_double_loop(s, temperature):
    point, pixel = 0.3 * random_rows(s), 0.3 * random_rows(s, seed=1)
    got = superpixel_info_nce(point, pixel, temperature=temperature)
    assert float(got) == pytest.approx(mean(oracle(point, pixel, temperature)), abs=1e-10)
    if temperature == 0.07:
        assert torch.equal(got, superpixel_info_nce(point, pixel))


def test_means_are_not_normalised_again():
    """By hand: products 0.5, 0 and 0, 0.25 at temperature 0.5."""
    point, pixel = torch.diag(torch.tensor([0.5, 0.25])), torch.eye(2)
    want = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-0.5))) / 2
    assert float(superpixel_info_nce(point, pixel, temperature=0.5)) == pytest.approx(want)


def test_only_points_look_for_pixels():
    """All points alike, all pixels different: the other direction would give another value."""
    point, pixel = torch.ones(3, 2), random_rows(3, 2, dtype=torch.float32)
    there, back = superpixel_info_nce(point, pixel), superpixel_info_nce(pixel, point)
    assert float(back) == pytest.approx(math.log(3), abs=1e-5)
    assert abs(float(there - back)) > 0.1


@pytest.mark.parametrize("s", [1, 2, 3, 12])
def test_tolerant_loss_equals_the_double_loop(s):
    point, pixel, guide = (random_rows(s, c, seed) for seed, c in enumerate((4, 4, 2)))
    got = tolerant_info_nce(0.3 * point, 0.3 * pixel, guide)
    want = tolerant_oracle(0.3 * point, 0.3 * pixel, guide)
    assert float(got) == pytest.approx(want, abs=1e-9)


def test_tolerant_loss_by_hand():
    """1 and 2 look alike, 3 does not: those do not repel each other and do not count."""
    guide = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    point = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = tolerant_info_nce(point, point.detach(), guide, temperature=1.0)
    third = -math.log(math.e / (math.e + 2))
    assert loss.item() == pytest.approx(third, abs=1e-6)
    everyone = tolerant_info_nce(
        point, point.detach(), guide, temperature=1.0, weigh_superpixels=no_balance
    )
    first = -math.log(math.e / (math.e + 1 + 1))  # the one alike: exp(0), so is the other
    assert everyone.item() == pytest.approx((2 * first + third) / 3, abs=1e-6)


def no_balance(similarity):
    return similarity.new_ones(len(similarity))


def test_tolerating_nothing_is_the_plain_loss():
    point, pixel, guide = (random_rows(7, seed=seed) for seed in range(3))
    got = tolerant_info_nce(
        point, pixel, guide, weigh_negatives=torch.ones_like, weigh_superpixels=no_balance
    )
    torch.testing.assert_close(got, superpixel_info_nce(point, pixel))
    unlike = torch.eye(7)  # guides without anything in common
    torch.testing.assert_close(tolerant_info_nce(point, pixel, unlike), got)


@pytest.mark.parametrize(("s", "share"), [(2, 0.01), (50, 0.01), (50, 0.1), (250, 0.01), (9, 1.0)])
def test_most_similar_are_those_below_a_quantile(s, share):
    guide = random_rows(s, 8).abs()
    unit = guide / guide.norm(dim=1, keepdim=True)
    similarity = (unit @ unit.T).clamp(0, 1)
    distance = (1 - similarity).fill_diagonal_(-1e-9)
    want = (distance >= distance.quantile(share, dim=1, keepdim=True)).double()
    got = ignore_most_similar(similarity, share=share)
    assert torch.equal(got, want)
    assert got.shape == (s, s)
    assert not got.diagonal().any() or math.ceil(share * (s - 1)) == 0


def test_those_that_tie_stay_negatives():
    """Rows of a quantile's oracle where many similarities are 0, or all the same."""
    rows = [[1, 0, 0, 0, 0, 0], [0, 1, 0.9, 0, 0, 0], [0, 0.9, 1, 0.5, 0.5, 0.5]]
    rows += [[0.5, 0.5, 0.5, 1, 0.5, 0.5], [0, 0, 0.5, 0.5, 1, 0.5], [0.3, 0.2, 0.1, 0, 0, 1]]
    similarity = torch.tensor(rows, dtype=torch.float64)
    for share in (0.01, 0.2, 0.3, 0.5, 0.9, 1.0):
        distance = (1 - similarity).fill_diagonal_(-1)
        want = (distance >= distance.quantile(share, dim=1, keepdim=True)).double()
        assert torch.equal(ignore_most_similar(similarity, share=share), want)
    few = ignore_most_similar(similarity, share=0.3)  # two of each row: itself and the next
    assert few[0].tolist() == [0, 1, 1, 1, 1, 1]
    assert few[1].tolist() == [1, 0, 0, 1, 1, 1]


def test_guides_without_anything_in_common_leave_all_negatives():
    point, pixel = random_rows(7), random_rows(7, seed=1)
    weigh = partial(ignore_most_similar, share=0.5)
    got = tolerant_info_nce(
        point, pixel, torch.eye(7), weigh_negatives=weigh, weigh_superpixels=no_balance
    )
    torch.testing.assert_close(got, superpixel_info_nce(point, pixel))


def test_no_share_tolerates_nothing():
    similarity = torch.ones(4, 4)
    assert torch.equal(ignore_most_similar(similarity), 1 - torch.eye(4))
    assert ignore_most_similar(similarity, share=0.0).all()
    assert ignore_most_similar(torch.ones(1, 1)).all()
    assert ignore_most_similar(torch.ones(0, 0)).shape == (0, 0)


def test_rarity_by_hand():
    similarity = torch.tensor([[1.0, 0.8, 0.1], [0.8, 1.0, 0.6], [0.1, 0.6, 1.0]])
    torch.testing.assert_close(rarity(similarity), torch.tensor([0.75, 0.0, 1.0]))
    torch.testing.assert_close(rarity(similarity, threshold=0.7), torch.tensor([0.0, 0.0, 1.0]))
    assert rarity(torch.zeros(0, 0)).shape == (0,)


@pytest.mark.parametrize("s", [1, 2, 500])
def test_superpixels_all_alike_weigh_the_same(s):
    """Their votes differ by rounding alone, which must not decide."""
    guide = torch.linspace(1, 3, s)[:, None] * random_rows(1, 64, dtype=torch.float32)
    unit = torch.nn.functional.normalize(guide)
    assert torch.equal(rarity((unit @ unit.T).clamp(0, 1)), torch.ones(s))


def test_superpixels_without_a_guide_are_left_out():
    point, pixel, guide = (random_rows(6, seed=seed) for seed in range(3))
    point.requires_grad_(True)
    known = torch.tensor([0, 2, 3, 5])
    blind = torch.zeros_like(guide).index_copy(0, known, guide[known])
    got = tolerant_info_nce(point, pixel, blind)
    torch.testing.assert_close(got, tolerant_info_nce(point[known], pixel[known], guide[known]))
    got.backward()
    assert point.grad.any(dim=1).tolist() == [True, False, True, True, False, True]


def test_gradcheck_of_both_sides_but_not_of_the_guide():
    point, pixel = (random_rows(5, 3, seed).requires_grad_(True) for seed in (0, 1))
    guide = random_rows(5, 2, 2)
    assert torch.autograd.gradcheck(partial(superpixel_info_nce, temperature=1.0), (point, pixel))
    for weigh in (dissimilarity, ignore_most_similar):
        assert torch.autograd.gradcheck(
            partial(tolerant_info_nce, guide=guide, temperature=1.0, weigh_negatives=weigh),
            (point, pixel),
        )
    guide.requires_grad_(True)
    tolerant_info_nce(point, pixel, guide).backward()
    assert point.grad.any()
    assert pixel.grad.any()
    assert guide.grad is None
    assert torch.autograd.gradcheck(
        lambda k, q: ppkt_info_nce(k, q, generator=seeded(), num_pairs=3, temperature=1.0),
        (point, pixel),
    )


def test_pairs_are_drawn_without_replacement():
    point, pixel = random_rows(30), random_rows(30, seed=1)
    torch.testing.assert_close(
        ppkt_info_nce(point, pixel, generator=seeded()),
        info_nce(point, pixel, temperature=0.07),
    )
    gradient = []
    for seed in range(2):
        some = point.clone().requires_grad_(True)
        ppkt_info_nce(some, pixel, generator=seeded(seed), num_pairs=7).backward()
        assert some.grad.any(dim=1).sum() == 7
        gradient.append(some.grad)
    assert not torch.equal(*gradient)
    unit = 5 * torch.nn.functional.normalize(point)
    torch.testing.assert_close(  # on unit rows it is the loss of superpixels
        ppkt_info_nce(unit, pixel, generator=seeded()),
        superpixel_info_nce(unit / 5, torch.nn.functional.normalize(pixel)),
    )


def losses(point, pixel, guide):
    yield superpixel_info_nce(point, pixel)
    yield ppkt_info_nce(point, pixel, generator=seeded())
    yield tolerant_info_nce(point, pixel, guide)
    yield tolerant_info_nce(point, pixel, guide, weigh_negatives=ignore_most_similar)


def test_nothing_gives_a_zero_that_back_propagates():
    for case in range(5):
        num = 3 if case == 4 else 0
        point, pixel = (torch.ones(num, 4, requires_grad=True) for _ in range(2))
        guide = torch.zeros(num, 2)  # in the last case: superpixels, but no guide
        loss = list(losses(point, pixel, guide))[2 if case == 4 else case]
        assert loss == 0
        loss.backward()
        for side in (point, pixel):
            assert torch.equal(side.grad, torch.zeros(num, 4))


def test_alone_there_is_nothing_to_tell_apart():
    for loss in losses(*(random_rows(1, seed=seed) for seed in range(3))):
        assert float(loss) == pytest.approx(0, abs=1e-12)


def test_halves_are_computed_in_single():
    sides = [random_rows(9, seed=seed).half() for seed in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = list(losses(*sides))
    want = list(losses(*(side.float() for side in sides)))
    assert all(loss.dtype == torch.float32 for loss in got)
    assert torch.equal(torch.stack(got), torch.stack(want))


COUNTS = [(3, 3), (5, 0), (2, 7), (1, 9), (0, 0)]


def inputs(rank, count):
    rows = random_rows(3 * count, 5, seed=20 + rank, dtype=torch.float32)
    return rows.view(3, count, 5)


def network():
    layer = torch.nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_rows(4, 5, seed=1))
    return layer


def train(rank):
    layer = DistributedDataParallel(network())
    steps = []
    for counts in COUNTS:
        sides = inputs(rank, counts[rank])
        for which in range(4):
            layer.zero_grad()
            point, pixel = layer(sides[:2])
            loss = list(losses(point, pixel, sides[2]))[which]
            loss.backward()
            steps.append((loss.detach(), layer.module.weight.grad.clone()))
    return steps


def test_two_processes_learn_the_mean_over_all_superpixels():
    """Negatives are a process's own; every superpixel weighs the same, wherever it is."""
    both = run_in_processes(train)
    layer = network()
    for case, counts in enumerate(COUNTS):
        for which in range(4):
            layer.zero_grad()
            parts = []
            for rank, count in enumerate(counts):
                sides = inputs(rank, count)
                point, pixel = layer(sides[:2])
                parts.append(count * list(losses(point, pixel, sides[2]))[which])
            want = sum(parts) / max(sum(counts), 1)
            want.backward()
            (loss, gradient), (other, same) = (steps[4 * case + which] for steps in both)
            torch.testing.assert_close((loss + other) / 2, want.detach(), rtol=1e-5, atol=1e-6)
            assert torch.equal(gradient, same)
            torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-4, atol=1e-4)


@unchecked_only
def test_wrong_shapes_are_refused():
    point = random_rows(3)
    for loss in (
        superpixel_info_nce,
        partial(ppkt_info_nce, generator=seeded()),
        partial(tolerant_info_nce, guide=point),
    ):
        with pytest.raises(ValueError, match=r"point and pixel must both be \[s, c\], got \[3, 4"):
            loss(point, point[:2])
    with pytest.raises(ValueError, match=r"guide must be \[s, d\] .* the 3 superpixels, got \[2"):
        tolerant_info_nce(point, point, point[:2])


def test_wrong_values_are_refused():
    point = random_rows(3)
    for loss in (
        superpixel_info_nce,
        partial(ppkt_info_nce, generator=seeded()),
        partial(tolerant_info_nce, guide=point),
    ):
        with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
            loss(point, point, temperature=0.0)
    with pytest.raises(ValueError, match=r"num_pairs must be at least 1, got 0"):
        ppkt_info_nce(point, point, generator=seeded(), num_pairs=0)
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        ignore_most_similar(torch.eye(2), share=2.0)
