import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses.contrast import info_nce
from pc_losses.volumes import byol_loss, volume_info_nce
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes

LOSSES = [volume_info_nce, byol_loss]


def random_volumes(n, c=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, c, generator=generator, dtype=dtype) for _ in range(2))


def scans_of(*sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def nce_term(query, key, j, temperature):
    scores = [
        math.exp(sum(a * b for a, b in zip(query[j], other, strict=True)) / temperature)
        for other in key
    ]
    return -math.log(scores[j] / sum(scores))


def byol_term(query, key, j):
    return sum((a - b) ** 2 for a, b in zip(query[j], key[j], strict=True))


def oracle(query, key, scan, term, *args):
    means = []
    for number in sorted(set(scan.tolist())):
        own = (scan == number).nonzero()[:, 0].tolist()
        sides = [[unit(side[i].tolist()) for i in own] for side in (query, key)]
        terms = [term(*sides, j, *args) for j in range(len(own))]
        means.append(sum(terms) / len(terms))
    return sum(means) / max(len(means), 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 2**16),
    st.sampled_from([0.07, 0.1, 1.0]),
)
def test_losses_equal_the_double_loop(sizes, seed, temperature):
    query, key = random_volumes(sum(sizes), seed=seed)
    query[-1] = query[0]  # duplicates
    scan = 3 * scans_of(*sizes)  # a scan may be without volumes
    got = volume_info_nce(query, key, scan, temperature=temperature)
    assert float(got) == pytest.approx(oracle(query, key, scan, nce_term, temperature), abs=1e-10)
    got = byol_loss(query, key, scan)
    assert float(got) == pytest.approx(oracle(query, key, scan, byol_term), abs=1e-10)


def test_by_hand():
    one_hot = torch.eye(3)
    scan = scans_of(2, 1)
    want = math.log((math.e + 1) / math.e) / 2  # the second scan has no negatives
    assert float(volume_info_nce(one_hot, one_hot, scan, temperature=1.0)) == pytest.approx(want)
    assert float(byol_loss(one_hot, -5 * one_hot, scan)) == pytest.approx(4.0)
    assert float(byol_loss(one_hot, one_hot.roll(1, 0), scan)) == pytest.approx(2.0)
    assert float(byol_loss(one_hot, 7 * one_hot, scan)) == 0


def test_the_default_temperature_is_that_of_the_paper():
    query, key = random_volumes(9)
    scan = scans_of(9)
    assert torch.equal(
        volume_info_nce(query, key, scan), volume_info_nce(query, key, scan, temperature=0.1)
    )
    torch.testing.assert_close(
        volume_info_nce(query, key, scan), info_nce(query, key, temperature=0.1)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_scan_does_not_see_its_batch_mates_and_weighs_as_much(loss):
    query, key = (x.requires_grad_(True) for x in random_volumes(11))
    both = loss(query, key, scans_of(9, 2))
    alone = [
        loss(query[of], key[of], scans_of(n)) for of, n in ((slice(9), 9), (slice(9, None), 2))
    ]
    torch.testing.assert_close(both, sum(alone) / 2)
    (gradient,) = torch.autograd.grad(alone[0], query)
    assert not gradient[9:].any()
    assert gradient[:9].any()


def test_gradcheck():
    query, key = (x.requires_grad_(True) for x in random_volumes(7, 3))
    assert torch.autograd.gradcheck(
        lambda q, k: volume_info_nce(q, k, scans_of(5, 2)), (query, key)
    )
    target = key.detach()
    assert torch.autograd.gradcheck(lambda q: byol_loss(q, target, scans_of(5, 2)), (query,))


def test_the_target_of_byol_gets_no_gradient():
    predicted, target = (x.requires_grad_(True) for x in random_volumes(4))
    byol_loss(predicted, target, scans_of(4)).backward()
    assert target.grad is None
    assert predicted.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_volumes_give_a_zero_that_back_propagates(loss):
    query, key = (torch.zeros(0, 4, requires_grad=True) for _ in range(2))
    value = loss(query, key, scans_of())
    value.backward()
    assert value == 0
    assert query.grad.shape == (0, 4)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_of_length_zero_stay_finite(loss):
    query, key = (x.clone() for x in random_volumes(5))
    query[1] = key[2] = 0
    query.requires_grad_(True)
    loss(query, key, scans_of(5)).backward()
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_single(loss, dtype):
    query, key = (x.to(dtype) for x in random_volumes(30, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(query, key, scans_of(20, 10))
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(query.float(), key.float(), scans_of(20, 10)))


def network():
    layer = torch.nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_volumes(4, 5, seed=1, dtype=torch.float32)[0])
    return layer


def inputs(rank, count):
    return random_volumes(count, 5, seed=20 + rank, dtype=torch.float32)


SIZES = [[(5, 3), (4,)], [(6,), (1, 1)], [(), (3,)]]


def one_step(rank, loss, sizes):
    layer = DistributedDataParallel(network())
    query, key = layer(torch.stack(inputs(rank, sum(sizes))))
    value = loss(query, key, scans_of(*sizes))
    value.backward()
    return value.detach(), layer.module.weight.grad


def all_steps(rank):
    return [[one_step(rank, loss, case[rank]) for case in SIZES] for loss in LOSSES]


def test_two_processes_learn_as_one_does_on_the_joint_batch():
    steps = run_in_processes(all_steps)
    for number, loss in enumerate(LOSSES):
        for case, sizes in enumerate(SIZES):
            layer = network()
            features = [inputs(rank, sum(sizes[rank])) for rank in range(2)]
            query, key = (torch.cat(side) for side in zip(*features, strict=True))
            query, key = layer(torch.cat([query, key])).split(len(query))
            want = loss(query, key, scans_of(*sizes[0], *sizes[1]))
            want.backward()
            assert want > 0.01
            values, gradients = zip(*(step[number][case] for step in steps), strict=True)
            torch.testing.assert_close(sum(values) / 2, want.detach())
            for gradient in gradients:
                torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-5, atol=1e-5)


@unchecked_only
@pytest.mark.parametrize("loss", LOSSES)
def test_wrong_shapes_are_refused(loss):
    query, key = random_volumes(4)
    with pytest.raises(ValueError, match=r"query and key must both be \[p, c\], got"):
        loss(query, key[:3], scans_of(4))
    with pytest.raises(ValueError, match=r"scan must be \[4\], a scan a unit, got \[3\]"):
        loss(query, key, scans_of(3))


def test_wrong_values_are_refused():
    query, key = random_volumes(4)
    with pytest.raises(ValueError, match=r"scan must be sorted, .*; sort by scan first"):
        volume_info_nce(query, key, torch.tensor([0, 1, 0, 1]))
    for wrong in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"temperature must be above 0, got .*; papers use"):
            volume_info_nce(query, key, scans_of(4), temperature=wrong)
