import pytest
import torch
from pc_losses import mean_over_processes
from pc_losses.reduction import gather_rows
from torch.nn.parallel import DistributedDataParallel

from tests.processes import run_in_processes

COUNTS = [(3, 3), (5, 2), (4, 0), (0, 1), (0, 0)]


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear():
    layer = torch.nn.Linear(4, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(numbers(3, 4, seed=1))
        layer.bias.zero_()
    return layer


def mean_step(rank, count):
    layer = DistributedDataParallel(linear())
    loss = mean_over_processes(layer(numbers(6, 4, seed=10 + rank))[:count].square().sum(1))
    loss.backward()
    return loss.detach(), layer.module.weight.grad


def gather_step(rank, count):
    """Joint function of the gathered rows, in which each process has another share."""
    rows = numbers(6, 4, seed=10 + rank)[:count].requires_grad_(True)
    everyone, first = gather_rows(rows)
    ((rank + 1) * everyone.square()).sum().backward()
    return everyone.detach(), first, rows.grad


def half_detached_step(rank):
    """Only process 0 wants gradients."""
    rows = numbers(2, 4, seed=10 + rank).requires_grad_(rank == 0)
    everyone, _ = gather_rows(rows)
    everyone.sum().backward()
    return rows.grad


def untrained_step(rank):
    everyone, _ = gather_rows(numbers(2, 4, seed=10 + rank))
    return everyone.requires_grad


def all_steps(rank, cases):
    return {
        "mean": [mean_step(rank, counts[rank]) for counts in cases],
        "gather": [gather_step(rank, counts[rank]) for counts in cases],
        "half detached": half_detached_step(rank),
        "untrained": untrained_step(rank),
    }


@pytest.fixture(scope="module")
def steps():
    return run_in_processes(all_steps, COUNTS)


@pytest.mark.parametrize("case", range(len(COUNTS)), ids=map(str, COUNTS))
def test_two_processes_learn_as_one_does_on_the_joint_batch(steps, case):
    layer = linear()
    joint = torch.cat([numbers(6, 4, seed=10 + r)[: COUNTS[case][r]] for r in range(2)])
    loss = layer(joint).square().sum(1).sum() / max(len(joint), 1)
    loss.backward()
    losses, gradients = zip(*(step["mean"][case] for step in steps), strict=True)
    torch.testing.assert_close(sum(losses) / 2, loss.detach())
    for gradient in gradients:
        torch.testing.assert_close(gradient, layer.weight.grad)


@pytest.mark.parametrize("case", range(len(COUNTS)), ids=map(str, COUNTS))
def test_rows_are_gathered_in_order_and_gradients_return_from_all(steps, case):
    own = [numbers(6, 4, seed=10 + r)[: COUNTS[case][r]] for r in range(2)]
    for rank, step in enumerate(steps):
        everyone, first, gradient = step["gather"][case]
        assert torch.equal(everyone, torch.cat(own))
        assert first == (0, len(own[0]))[rank]
        torch.testing.assert_close(gradient, (1 + 2) * 2 * own[rank])


def test_a_process_without_gradient_does_not_keep_the_others_waiting(steps):
    assert torch.equal(steps[0]["half detached"], torch.full((2, 4), 2.0, dtype=torch.float64))
    assert steps[1]["half detached"] is None


def test_rows_that_nobody_trains_stay_so(steps):
    assert [step["untrained"] for step in steps] == [False, False]


def test_one_process_is_the_plain_mean():
    values = numbers(7).requires_grad_(True)
    mean_over_processes(values).backward()
    torch.testing.assert_close(mean_over_processes(values), values.mean())
    torch.testing.assert_close(values.grad, torch.full_like(values, 1 / 7))
    assert gather_rows(values[:, None])[1] == 0


def test_no_values_give_a_zero_that_back_propagates():
    values = torch.zeros(0, requires_grad=True)
    mean = mean_over_processes(values)
    mean.backward()
    assert mean == 0
    assert values.grad.shape == (0,)


def test_halves_are_summed_in_single():
    values = torch.full((4096,), 1.0).half()
    values[0] = 3e-4
    mean = mean_over_processes(values * 60000)  # the sum is beyond the range of halves
    assert mean.dtype == torch.float32
    assert float(mean) == pytest.approx(60000 * 4095 / 4096, rel=1e-3)


def fail_on_one(rank):
    if rank == 1:
        raise ValueError("rank 1 says no")
    torch.distributed.barrier()


def test_what_a_process_raises_is_raised_here():
    with pytest.raises(ValueError, match="rank 1 says no"):
        run_in_processes(fail_on_one)
