"""The momentum encoder: what follows, what stays, and that it resumes exactly."""

import copy
import math

import pytest
import torch
from pc_train.momentum import MomentumEncoder, momentum_schedule
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.processes import run_in_processes


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def parameters_of(module):
    return [value.detach().clone() for value in module.parameters()]


def buffers_of(module):
    return {name: value.clone() for name, value in module.named_buffers()}


def shift(module, by):
    with torch.no_grad():
        for value in module.parameters():
            value += by


def test_starts_as_a_frozen_copy_of_its_own():
    online = network()
    encoder = MomentumEncoder(online)
    assert encoder.momentum == 0.999
    for own, other in zip(encoder.network.parameters(), online.parameters(), strict=True):
        assert torch.equal(own, other)
        assert own.data_ptr() != other.data_ptr()
        assert not own.requires_grad
        assert other.requires_grad
    assert not encoder.network(torch.rand(5, 3)).requires_grad
    assert online(torch.rand(5, 3)).requires_grad


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.999, 1.0])
def test_one_update_by_hand(momentum):
    online = network()
    encoder = MomentumEncoder(online, momentum=momentum)
    before = parameters_of(encoder)
    shift(online, 2.0)
    theirs = parameters_of(online)
    encoder.update(online)
    for own, old, new in zip(encoder.parameters(), before, theirs, strict=True):
        torch.testing.assert_close(own, momentum * old + (1 - momentum) * new)
    for other, new in zip(online.parameters(), theirs, strict=True):
        assert torch.equal(other, new)


def test_many_updates_have_a_closed_form():
    """Towards a network that stands still, a difference shrinks by momentum^k."""
    online = network()
    encoder = MomentumEncoder(online, momentum=0.9)
    shift(online, 1.0)
    for _ in range(20):
        encoder.update(online)
    for own, other in zip(encoder.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(other - own, torch.full_like(own, 0.9**20))


def test_momentum_of_one_update():
    online = network()
    encoder = MomentumEncoder(online, momentum=0.9)
    shift(online, 1.0)
    encoder.update(online, 1.0)
    assert not torch.equal(next(encoder.parameters()), next(online.parameters()))
    encoder.update(online, 0.0)
    for own, other in zip(encoder.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(own, other)
    assert encoder.momentum == 0.9


def test_buffers_follow_the_copys_own_passes():
    online = network()
    online.register_buffer("table", torch.arange(3))
    encoder = MomentumEncoder(online, momentum=0.5)
    start = buffers_of(encoder.network)
    online(torch.rand(64, 3) + 9)
    online.table += 5
    encoder.update(online)
    for name, value in encoder.network.named_buffers():
        assert torch.equal(value, start[name]), name
    mean = encoder.network[0](points := torch.rand(64, 3)).mean(0)
    encoder.network(points)
    torch.testing.assert_close(encoder.network[1].running_mean, 0.1 * mean)
    assert encoder.network[1].num_batches_tracked == 1


def test_modes_follow_the_method():
    method = nn.Module()
    method.online = network()
    method.key = MomentumEncoder(method.online)
    points = torch.rand(8, 3)
    method.eval()
    start = buffers_of(method.key.network)
    alone = method.key.network(points[:1])
    torch.testing.assert_close(method.key.network(points)[:1], alone)
    for name, value in method.key.network.named_buffers():
        assert torch.equal(value, start[name]), name
    method.train()
    assert method.key.network[1].training
    assert not torch.allclose(method.key.network(points)[:1], alone)
    assert not any(value.requires_grad for value in method.key.parameters())


def test_the_optimiser_leaves_the_copy_alone():
    method = nn.Module()
    method.online = network()
    method.key = MomentumEncoder(method.online)
    before = parameters_of(method.key)
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    points = torch.rand(8, 3)
    (method.online(points) - method.key.network(points)).square().mean().backward()
    optimizer.step()
    for own, old in zip(method.key.parameters(), before, strict=True):
        assert torch.equal(own, old)
    assert not torch.equal(next(method.online.parameters()), before[0])


def train(online, encoder, steps):
    optimizer = torch.optim.SGD(online.parameters(), lr=0.1)
    for step in steps:
        points = torch.rand(16, 3, generator=torch.Generator().manual_seed(step))
        loss = (online(points) - encoder.network(points.flip(1)) + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        encoder.update(online, momentum_schedule(step, 10, 0.5))


def test_resumes_exactly():
    online = network()
    encoder = MomentumEncoder(online)
    train(online, encoder, range(3))
    state = copy.deepcopy((online.state_dict(), encoder.state_dict()))
    assert all(name.startswith("network.") for name in state[1])
    train(online, encoder, range(3, 6))
    again = network(seed=1)
    resumed = MomentumEncoder(again)
    again.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    train(again, resumed, range(3, 6))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


class Method(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.online = network(seed)
        self.key = MomentumEncoder(self.online, momentum=0.5)

    def forward(self, points):
        return (self.online(points) - self.key.network(points) - 1).square().mean()


def train_together(rank):
    method = Method(seed=rank)  # both sides become those of the first process
    wrapped = DistributedDataParallel(method)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        points = torch.rand(16, 3, generator=torch.Generator().manual_seed(10 * rank + step))
        loss = wrapped(points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.key.update(method.online)
        losses.append(float(loss))
    return [value.numpy() for value in parameters_of(method.key)], losses


def test_processes_keep_one_copy():
    (first, losses), (second, other_losses) = run_in_processes(train_together)
    assert losses != other_losses
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert not (first[0] == parameters_of(network(0))[0].numpy()).all()


def test_tied_weights_stay_tied():
    online = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    online[1].weight = online[0].weight
    encoder = MomentumEncoder(online, momentum=0.5)
    before = encoder.network[0].weight.clone()
    shift(online[0], 1.0)
    encoder.update(online)
    assert encoder.network[0].weight is encoder.network[1].weight
    torch.testing.assert_close(encoder.network[1].weight, before + 0.5)


def test_a_network_without_parameters():
    encoder = MomentumEncoder(nn.Identity())
    encoder.update(nn.Identity())
    assert not encoder.state_dict()


def test_schedule_by_hand():
    assert momentum_schedule(0, 100) == 0.996
    assert momentum_schedule(0, 100, 0.99) == pytest.approx(0.99)
    assert momentum_schedule(50, 100, 0.99) == pytest.approx(0.995)
    quarter = 1 - 0.01 * (math.cos(math.pi / 4) + 1) / 2
    assert momentum_schedule(25, 100, 0.99) == pytest.approx(quarter)
    assert momentum_schedule(100, 100, 0.99) == momentum_schedule(999, 100, 0.99) == 1
    assert momentum_schedule(0, 0, 0.99) == 1
    values = [momentum_schedule(step, 37, 0.9) for step in range(38)]
    assert values == sorted(values)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_momentum_is_checked(momentum):
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got"):
        MomentumEncoder(network(), momentum=momentum)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got"):
        MomentumEncoder(network()).update(network(), momentum)
    with pytest.raises(ValueError, match=r"base must be in \[0, 1\], got"):
        momentum_schedule(0, 1, momentum)


@pytest.mark.parametrize(("step", "num_steps"), [(-1, 5), (0, -1)])
def test_steps_are_checked(step, num_steps):
    with pytest.raises(ValueError, match=r"step and num_steps must be at least 0, got"):
        momentum_schedule(step, num_steps)


def test_another_network_is_refused():
    encoder = MomentumEncoder(network())
    before = parameters_of(encoder)
    with pytest.raises(
        ValueError,
        match=r"0\.weight is missing in it and of shape \[4, 3\] in the copy; pass that network",
    ):
        encoder.update(nn.Sequential(network()))
    with pytest.raises(ValueError, match=r"0\.weight is of shape \[4, 9\] in it and of shape"):
        encoder.update(nn.Sequential(nn.Linear(9, 4), *network()[1:]))
    with pytest.raises(ValueError, match=r"4\.weight is of shape \[1, 2\] in it and missing in"):
        encoder.update(nn.Sequential(*network(), nn.Linear(2, 1)))
    for own, old in zip(encoder.parameters(), before, strict=True):
        assert torch.equal(own, old)
