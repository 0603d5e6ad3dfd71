import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses.prototypes import ConcatBlend, PrototypeBank, PrototypeBlend, prototype_contrast
from torch.nn.parallel import DistributedDataParallel

from tests.lanes import unchecked_only
from tests.processes import run_in_processes

BLENDS = [PrototypeBlend, ConcatBlend]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rows(n, c=4, seed=0, dtype=torch.float32):
    return torch.randn(n, c, generator=seeded(seed), dtype=dtype)


def random_classes(n, num_classes, seed=0):
    return torch.randint(-1, num_classes, (n,), generator=seeded(seed + 7))


def filled(point, pixel, cls, num_classes=5):
    bank = PrototypeBank(num_classes, point.shape[1])
    bank.start()
    bank.add(point, pixel, cls)
    bank.finish()
    return bank


def seeded_blend(blend, dim=4, seed=0):
    """Weights large enough to tell forms apart."""
    module = blend(dim)
    for number, parameter in enumerate(module.parameters()):
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(seed + number)))
    return module


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 6), st.integers(0, 2**16))
def test_prototypes_are_the_plain_means_of_a_pass(sizes, num_classes, seed):
    num = sum(sizes)
    point, pixel = random_rows(num, 3, seed), random_rows(num, 3, seed + 1)
    cls = random_classes(num, num_classes, seed)
    bank = PrototypeBank(num_classes, 3)
    bank.start()
    for part in torch.arange(num).split(sizes) if num else []:
        bank.add(point[part], pixel[part], cls[part])
    assert not bank.present.any()  # not before the end
    bank.finish()
    for t in range(num_classes):
        mine = [i for i in range(num) if cls[i] == t]
        assert bool(bank.present[t]) == bool(mine)
        for side, got in ((point, bank.point[t]), (pixel, bank.pixel[t])):
            want = sum(side[i].double() for i in mine) / max(len(mine), 1)
            torch.testing.assert_close(
                got, want * torch.ones(3) if mine else torch.zeros(3), check_dtype=False
            )


def test_many_superpixels_are_summed_exactly():
    point = torch.full((100_000, 1), 0.1)
    bank = filled(point, -point, torch.zeros(100_000, dtype=torch.long), 2)
    assert torch.equal(bank.point[0], point[0])
    assert torch.equal(bank.pixel[0], -point[0])
    assert bank.present.tolist() == [True, False]


def test_a_pass_forgets_the_one_before():
    bank = filled(random_rows(2), random_rows(2), torch.tensor([0, 1]))
    bank.start()
    bank.add(random_rows(1), random_rows(1), torch.tensor([3]))
    bank.start()  # the last one was given up
    bank.add(random_rows(1, seed=5), random_rows(1), torch.tensor([1]))
    bank.finish()
    assert bank.present.tolist() == [False, True, False, False, False]
    assert torch.equal(bank.point[1], random_rows(1, seed=5)[0])
    assert not bank.point[0].any()


def test_defaults_are_those_of_the_paper():
    bank = PrototypeBank()
    assert bank.point.shape == bank.pixel.shape == (150, 64)
    assert not bank.present.any()
    assert PrototypeBlend().mlp[-1].out_features == 64


def test_a_resumed_run_has_the_same_prototypes_but_no_unfinished_pass():
    bank = filled(random_rows(6), random_rows(6, seed=1), torch.tensor([0, 0, 2, 4, 4, -1]))
    bank.start()
    bank.add(random_rows(1), random_rows(1), torch.tensor([1]))
    other = PrototypeBank(5, 4)
    other.load_state_dict(bank.state_dict())
    assert set(bank.state_dict()) == {"point", "pixel", "present"}
    for name, value in bank.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    with pytest.raises(ValueError, match=r"no pass is under way; call start\(\)"):
        other.finish()


def test_a_pass_in_inference_mode_leaves_prototypes_to_train_with():
    bank = PrototypeBank(5, 4)
    with torch.inference_mode():
        bank.start()
        bank.add(random_rows(3), random_rows(3), torch.tensor([0, 1, 1]))
    bank.add(random_rows(1), random_rows(1), torch.tensor([2]))
    with torch.inference_mode():
        bank.finish()
    blend = PrototypeBlend(4)
    prototype = blend(bank.point, bank.pixel, bank.present)
    prototype_contrast(random_rows(2), prototype, torch.tensor([0, 2]), bank.present).backward()
    assert blend.point_projection.weight.grad.any()


def test_only_the_blend_gets_gradients_through_the_prototypes():
    features = random_rows(6).requires_grad_(True)
    cls = torch.tensor([0, 1, 1, 2, 3, -1])
    bank = filled(features, 2 * features, cls)
    assert not any(buffer.requires_grad for buffer in bank.buffers())
    blend = seeded_blend(PrototypeBlend)
    point = random_rows(4, seed=9).requires_grad_(True)
    prototype = blend(bank.point, bank.pixel, bank.present)
    prototype_contrast(point, prototype, torch.arange(4), bank.present).backward()
    assert features.grad is None
    assert all(buffer.grad is None for buffer in bank.buffers())
    assert point.grad.any()
    for name, parameter in blend.named_parameters():
        assert parameter.grad is not None, name
    assert blend.mlp[-1].weight.grad.any()
    assert blend.pixel_projection.weight.grad.any()


@pytest.mark.parametrize("blend", BLENDS)
def test_absent_classes_do_not_enter_the_statistics(blend):
    point, pixel = random_rows(6, seed=1), random_rows(6, seed=2)
    present = torch.tensor([True, False, True, True, False, True])
    module = seeded_blend(blend)
    alone = copy.deepcopy(module)
    got = module(point, pixel, present)
    assert torch.equal(got[present], alone(point[present], pixel[present]))
    assert not got[~present].any()
    for one, other in zip(module.buffers(), alone.buffers(), strict=True):
        assert torch.equal(one, other)
    everyone = seeded_blend(blend)(point, pixel)
    assert not torch.allclose(everyone[present], got[present])
    assert torch.equal(everyone, seeded_blend(blend)(point, pixel, torch.ones(6, dtype=torch.bool)))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("num_present", [0, 1])
def test_too_few_classes_for_statistics(blend, num_present):
    """Every parameter gets a gradient all the same, as data-parallel training asks for."""
    module = seeded_blend(blend)
    present = torch.arange(3) < num_present
    prototype = module(random_rows(3), random_rows(3), present)
    assert prototype.isfinite().all()
    loss = prototype_contrast(random_rows(2), prototype, torch.tensor([0, 2]), present)
    loss.backward()
    assert loss == 0
    for parameter in module.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    for name, buffer in module.named_buffers():
        assert "running_mean" not in name or not buffer.any()


def test_the_two_forms_differ_by_the_mixing_weights_of_the_first_layer():
    split = seeded_blend(PrototypeBlend)
    joint = ConcatBlend(4)
    own = (split.point_projection, split.pixel_projection)
    first = {
        "weight": torch.block_diag(*(layer.weight for layer in own)),
        "bias": torch.cat([layer.bias for layer in own]),
    }
    joint.mlp[0].load_state_dict(first)
    for layer, same in zip(joint.mlp[1:], split.mlp, strict=True):
        layer.load_state_dict(same.state_dict())
    point, pixel = random_rows(6, seed=1), random_rows(6, seed=2)
    torch.testing.assert_close(joint(point, pixel), split(point, pixel))


def test_released_names_and_shapes():
    want = {f"mlp.{layer}.weight": (128, 128) for layer in (0, 3)}
    want |= {"mlp.6.weight": (64, 128), "mlp.6.bias": (64,), "mlp.0.bias": (128,)}
    want |= {"mlp.3.bias": (128,)}
    for layer in (1, 4):
        for part in ("weight", "bias", "running_mean", "running_var"):
            want[f"mlp.{layer}.{part}"] = (128,)
        want[f"mlp.{layer}.num_batches_tracked"] = ()
    state = ConcatBlend().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == want


def test_concat_blend_equals_its_formula():
    module = seeded_blend(ConcatBlend).double().eval()
    point, pixel = (random_rows(5, seed=seed).double() for seed in (1, 2))
    layers = [module.mlp[at] for at in (0, 3, 6)]
    x = torch.cat([point, pixel], dim=1) @ layers[0].weight.T + layers[0].bias
    for layer, norm in zip(layers[1:], (module.mlp[1], module.mlp[4]), strict=True):
        x = x / math.sqrt(1 + 1e-5) * norm.weight + norm.bias
        x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
        x = x @ layer.weight.T + layer.bias
    torch.testing.assert_close(module(point, pixel), x)


@pytest.mark.parametrize("blend", BLENDS)
def test_weights_start_small_and_biases_at_zero(blend):
    torch.manual_seed(0)
    for layer in blend(64).modules():
        if isinstance(layer, torch.nn.Linear):
            assert float(layer.weight.std().detach()) == pytest.approx(0.02, rel=0.05)
            assert not layer.bias.any()


def oracle(point, prototype, cls, present, temperature):
    terms = []
    for k, own in zip(point.tolist(), cls.tolist(), strict=True):
        if own < 0 or not present[own]:
            continue
        scores = [
            sum(a * b for a, b in zip(k, row, strict=True)) / temperature
            for row in prototype.tolist()
        ]
        total = sum(math.exp(s) for s, is_there in zip(scores, present, strict=True) if is_there)
        terms.append(math.log(total) - scores[own])
    return sum(terms) / max(len(terms), 1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 8), st.integers(1, 6), st.integers(0, 2**16), st.sampled_from([0.5, 1.0]))
def test_loss_equals_the_double_loop(s, t, seed, temperature):
    point, prototype = (random_rows(n, 3, seed + n, torch.float64) for n in (s, t))
    cls = random_classes(s, t, seed)
    present = torch.rand(t, generator=seeded(seed)) < 0.7
    got = prototype_contrast(point, prototype, cls, present, temperature=temperature)
    assert float(got) == pytest.approx(oracle(point, prototype, cls, present, temperature))
    everyone = prototype_contrast(point, prototype, cls)
    assert float(everyone) == pytest.approx(oracle(point, prototype, cls, [True] * t, 1.0))


@pytest.mark.parametrize("present", [None, torch.tensor([True, False, True])])
def test_gradcheck_of_points_and_prototypes(present):
    point, prototype = (random_rows(n, 3, n, torch.float64).requires_grad_(True) for n in (4, 3))
    cls = torch.tensor([0, 1, 2, -1])
    assert torch.autograd.gradcheck(
        lambda k, p: prototype_contrast(k, p, cls, present), (point, prototype)
    )


@pytest.mark.parametrize("blend", BLENDS)
def test_gradcheck_of_the_blend(blend):
    module = seeded_blend(blend, 2).double()
    point, pixel = (random_rows(5, 2, seed, torch.float64).requires_grad_(True) for seed in (1, 2))
    present = torch.arange(5) != 3
    assert torch.autograd.gradcheck(lambda a, b: module(a, b, present), (point, pixel))


def test_absent_rows_get_no_gradient_and_no_weight():
    point = random_rows(3)
    prototype = random_rows(4, seed=1).requires_grad_(True)
    present = torch.tensor([True, True, False, True])
    loss = prototype_contrast(point, prototype, torch.tensor([0, 2, 3]), present)
    loss.backward()
    assert prototype.grad.any(dim=1).tolist() == [True, True, False, True]


def test_nothing_gives_a_zero_that_back_propagates():
    for num, cls, present in (
        (0, [], None),
        (2, [-1, -1], None),
        (2, [0, 1], torch.zeros(3, dtype=torch.bool)),
    ):
        point = torch.ones(num, 4, requires_grad=True)
        prototype = torch.ones(3, 4, requires_grad=True)
        loss = prototype_contrast(point, prototype, torch.tensor(cls).long(), present)
        loss.backward()
        assert loss == 0
        assert torch.equal(point.grad, torch.zeros(num, 4))
        assert torch.equal(prototype.grad, torch.zeros(3, 4))


def test_halves_are_computed_in_single():
    point, prototype = random_rows(5).half(), random_rows(3, seed=1).half()
    cls = torch.tensor([0, 1, 2, 1, 0])
    blend = seeded_blend(PrototypeBlend)
    rows = random_rows(3, seed=4)
    want = blend(rows, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = prototype_contrast(point, prototype, cls)
        assert torch.equal(blend(rows, rows), want)
        bank = filled(point, point, cls, 3)
    assert got.dtype == bank.point.dtype == torch.float32
    assert torch.equal(got, prototype_contrast(point.float(), prototype.float(), cls))
    assert torch.equal(bank.point, filled(point.float(), point, cls, 3).point)


COUNTS = [(3, 3), (6, 0), (2, 9), (0, 0)]


def inputs(rank, count, seed=20):
    both = random_rows(2 * count, 5, seed=seed + rank).view(2, count, 5)
    return *both, random_classes(count, 4, seed + rank)


class Method(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 4, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(random_rows(4, 5, seed=1))
        self.bank = PrototypeBank(4, 4)
        self.blend = seeded_blend(ConcatBlend)

    def forward(self, point, pixel, cls, counted=False):
        point, pixel = self.layer(point), self.layer(pixel)
        if counted:
            return self.bank.add(point, pixel, cls)
        prototype = self.blend(self.bank.point, self.bank.pixel, self.bank.present)
        return prototype_contrast(point, prototype, cls, self.bank.present)


def train(rank):
    """Before the first pass; then a pass and a step each."""
    method = Method()
    parallel = DistributedDataParallel(method)
    steps = []
    for counts in COUNTS:
        parallel.zero_grad()
        loss = parallel(*inputs(rank, counts[rank]))
        loss.backward()
        gradients = [parameter.grad.clone() for parameter in method.parameters()]
        method.bank.start()
        for seed in (40, 60):  # through the wrapper, which sends buffers around
            parallel(*inputs(rank, counts[rank], seed), counted=True)
        method.bank.finish()
        prototypes = [buffer.clone() for buffer in method.bank.buffers()]
        steps.append((loss.detach(), gradients, prototypes))
    return steps


def test_two_processes_have_the_prototypes_and_gradients_of_one():
    both = run_in_processes(train)
    method = Method()
    for case, counts in enumerate(COUNTS):
        method.zero_grad()
        want = method(*joint(counts))
        want.backward()
        method.bank.start()
        for seed in (40, 60):
            method(*joint(counts, seed), counted=True)
        method.bank.finish()
        losses, gradients, prototypes = zip(*(steps[case] for steps in both), strict=True)
        torch.testing.assert_close(sum(losses) / 2, want.detach())
        for one, other, parameter in zip(*gradients, method.parameters(), strict=True):
            assert torch.equal(one, other)
            torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-5)
        for one, other, buffer in zip(*prototypes, method.bank.buffers(), strict=True):
            assert torch.equal(one, other)
            torch.testing.assert_close(one, buffer)
    assert [bool(steps[2][1][0].any()) for steps in both] == [True, True]


def joint(counts, seed=20):
    parts = zip(*(inputs(rank, counts[rank], seed) for rank in range(2)), strict=True)
    return [torch.cat(part) for part in parts]


def count_bits(rank):
    """What each process adds, of a class the other one may lack, without a network in between."""
    bank = PrototypeBank(4, 5)
    bank.start()
    bank.add(*inputs(rank, (0, 9)[rank]))
    bank.finish()
    return list(bank.buffers())


def test_a_process_without_superpixels_pulls_nothing_to_zero():
    one, other = run_in_processes(count_bits)
    bank = filled(*inputs(1, 9), 4)
    for got, same, want in zip(one, other, bank.buffers(), strict=True):
        assert torch.equal(got, same)
        assert torch.equal(got, want)


@unchecked_only
def test_wrong_shapes_are_refused():
    rows, cls = random_rows(3), torch.zeros(3, dtype=torch.long)
    bank = PrototypeBank(2, 4)
    bank.start()
    with pytest.raises(ValueError, match=r"point and pixel must both be \[3, 4\], .* \[2, 4\] and"):
        bank.add(rows[:2], rows, cls)
    with pytest.raises(ValueError, match=r"must both be \[3, 4\], .* got \[3, 2\]"):
        bank.add(rows[:, :2], rows[:, :2], cls)
    with pytest.raises(ValueError, match=r"must be \[s, c\] and \[t, c\], got \[3, 4\] and \[3, 2"):
        prototype_contrast(rows, rows[:, :2], cls)
    with pytest.raises(ValueError, match=r"cls must be \[3\], a class a row, got \[2\]"):
        prototype_contrast(rows, rows, cls[:2])
    with pytest.raises(ValueError, match=r"present must be \[3\], a flag a class, got \[2\]"):
        prototype_contrast(rows, rows, cls, torch.ones(2, dtype=torch.bool))


def test_wrong_values_are_refused():
    rows, cls = random_rows(3), torch.tensor([0, 2, 5])
    bank = PrototypeBank(5, 4)
    with pytest.raises(ValueError, match=r"no pass is under way; call start\(\)"):
        bank.add(rows, rows, cls - 1)
    bank.start()
    with pytest.raises(ValueError, match=r"classes must be below 5, .* got 5; count classes from"):
        bank.add(rows, rows, cls)
    with pytest.raises(ValueError, match=r"classes must be below 3, .* got 5"):
        prototype_contrast(rows, rows, cls)
    with pytest.raises(ValueError, match=r"temperature must be above 0, got -1"):
        prototype_contrast(rows, rows, cls - 4, temperature=-1.0)
    with pytest.raises(ValueError, match=r"num_classes must be at least 1, got 0"):
        PrototypeBank(0, 4)
    with pytest.raises(ValueError, match=r"dim must be at least 1, got 0"):
        PrototypeBank(4, 0)
