import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import color_reconstruction, normal_reconstruction
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes

LOSSES = [color_reconstruction, normal_reconstruction]


def random_pair(n, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, 3, generator=generator, dtype=dtype) for _ in range(2))


def color_loop(predicted, target):
    total = 0.0
    for p, t in zip(predicted.tolist(), target.tolist(), strict=True):
        total += sum((a - b) ** 2 for a, b in zip(p, t, strict=True))
    return total / len(predicted)


def normal_loop(predicted, target):
    total = 0.0
    for p, t in zip(predicted.tolist(), target.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(p, t, strict=True))
        total += 1 - dot / (math.hypot(*p) * math.hypot(*t))
    return total / len(predicted)


LOOPS = {color_reconstruction: color_loop, normal_reconstruction: normal_loop}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n", [1, 2, 60])
def test_equals_the_double_loop(loss, n):
    predicted, target = random_pair(n)
    want = LOOPS[loss](predicted, target)
    assert float(loss(predicted, target)) == pytest.approx(want, abs=1e-12)
    assert float(loss(predicted.float(), target.float())) == pytest.approx(want, rel=1e-5)
    torch.testing.assert_close(loss(target, predicted), loss(predicted, target))


def test_color_by_hand():
    """Summed over channels, averaged over points."""
    predicted = torch.tensor([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]])
    target = torch.tensor([[1.0, 0.5, -1.0], [1.0, 1.0, 1.0]])
    assert float(color_reconstruction(predicted, target)) == 2.5


def test_normal_learns_the_normal_itself():
    up = torch.tensor([[0.0, 0.0, 1.0]])
    assert float(normal_reconstruction(4 * up, up)) == 0
    assert float(normal_reconstruction(-up, up)) == 2
    assert float(normal_reconstruction(torch.tensor([[3.0, 0.0, 0.0]]), up)) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**16), st.floats(0.01, 100))
def test_normal_is_about_directions_whatever_the_frame(n, seed, factor):
    predicted, target = random_pair(n, seed)
    loss = normal_reconstruction(predicted, target)
    turn = torch.linalg.qr(random_pair(3, seed + 1)[0])[0]
    turned = normal_reconstruction(factor * predicted @ turn, target @ turn)
    torch.testing.assert_close(turned, loss)
    torch.testing.assert_close(normal_reconstruction(-predicted, target), 2 - loss)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradcheck(loss):
    predicted, target = random_pair(4)
    assert torch.autograd.gradcheck(loss, (predicted.requires_grad_(True), target))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_single(loss, dtype):
    predicted, target = (x.to(dtype) for x in random_pair(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(predicted, target)
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(predicted.float(), target.float()))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_points_give_a_zero_that_back_propagates(loss):
    predicted = torch.zeros(0, 3, requires_grad=True)
    value = loss(predicted, torch.zeros(0, 3))
    value.backward()
    assert value == 0
    assert predicted.grad.shape == (0, 3)


def test_a_normal_of_length_zero_counts_one_without_gradient():
    predicted = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    target = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    predicted.requires_grad_(True)
    loss = normal_reconstruction(predicted, target)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((1 + 1 + 1 - math.sqrt(0.5)) / 3)
    assert not predicted.grad[:2].any()
    assert predicted.grad[2].any()


@unchecked_only
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 4), (2, 3)), ((3,), (3,))])
def test_other_shapes_are_refused(loss, shapes):
    with pytest.raises(ValueError, match=r"must both be \[n, [3c]\], got .*; select the same"):
        loss(*map(torch.zeros, shapes))


@unchecked_only
def test_a_normal_has_three_numbers():
    with pytest.raises(ValueError, match=r"must both be \[n, 3\], got \[2, 4\] and \[2, 4\]"):
        normal_reconstruction(torch.zeros(2, 4), torch.zeros(2, 4))


def test_one_number_a_point():
    predicted, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert color_reconstruction(predicted, target) == 2.5


COUNTS = [(4, 4), (5, 2), (3, 0), (0, 0)]


def network():
    layer = torch.nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.copy_(random_pair(3, seed=1)[0])
        layer.bias.fill_(0.1)
    return layer


def masked(rank, count):
    return tuple(x[:count] for x in random_pair(6, seed=30 + rank, dtype=torch.float32))


def one_step(rank, index, count):
    layer = DistributedDataParallel(network())
    inputs, target = masked(rank, count)
    loss = LOSSES[index](layer(inputs), target)
    loss.backward()
    return loss.detach(), layer.module.weight.grad


def all_steps(rank, counts):
    return {(index, case): one_step(rank, index, case[rank]) for index in (0, 1) for case in counts}


@pytest.fixture(scope="module")
def steps():
    return run_in_processes(all_steps, COUNTS)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", COUNTS, ids=str)
def test_two_processes_learn_as_one_does_on_the_joint_batch(steps, index, case):
    layer = network()
    inputs, target = map(torch.cat, zip(*(masked(r, case[r]) for r in range(2)), strict=True))
    want = LOSSES[index](layer(inputs), target)
    want.backward()
    values, gradients = zip(*(step[index, case] for step in steps), strict=True)
    torch.testing.assert_close(sum(values) / 2, want.detach(), rtol=1e-5, atol=1e-5)
    for gradient in gradients:
        torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-5, atol=1e-5)
