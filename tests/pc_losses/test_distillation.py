import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import normalized_l2

from tests.lanes import unchecked_only


def random_pair(n, c, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, c, generator=generator, dtype=dtype) for _ in range(2))


def double_loop(student, teacher):
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        norm_s, norm_t = (math.sqrt(sum(x * x for x in v)) for v in (s, t))
        total += math.sqrt(sum((a / norm_s - b / norm_t) ** 2 for a, b in zip(s, t, strict=True)))
    return total / len(student)


@pytest.mark.parametrize(("n", "c"), [(1, 1), (1, 7), (2, 3), (50, 16)])
def test_equals_the_double_loop(n, c):
    student, teacher = random_pair(n, c)
    assert float(normalized_l2(student, teacher)) == pytest.approx(
        double_loop(student, teacher), abs=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(2, 12), st.integers(0, 2**16), st.floats(0.01, 100))
def test_is_the_chord_of_the_angle_whatever_the_lengths(n, c, seed, factor):
    student, teacher = random_pair(n, c, seed, torch.float64)
    loss = normalized_l2(student, teacher)
    cosine = torch.cosine_similarity(student, teacher)
    torch.testing.assert_close(loss, (2 - 2 * cosine).sqrt().mean())
    torch.testing.assert_close(loss, normalized_l2(teacher, student * factor))


def test_extremes():
    student = torch.tensor([[3.0, 0.0]])
    assert float(normalized_l2(student, torch.tensor([[0.5, 0.0]]))) == 0
    assert float(normalized_l2(student, torch.tensor([[-9.0, 0.0]]))) == 2


def test_gradient_is_zero_where_the_two_coincide():
    teacher, _ = random_pair(3, 5)
    student = teacher.clone().requires_grad_(True)
    normalized_l2(student, teacher).backward()
    assert not student.grad.any()


def test_gradient_of_zero_features_is_finite():
    student = torch.zeros(2, 4, requires_grad=True)
    normalized_l2(student, random_pair(2, 4)[0]).backward()
    assert student.grad.isfinite().all()


def test_gradcheck():
    student, teacher = random_pair(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(normalized_l2, (student.requires_grad_(True), teacher))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    student, teacher = (x.to(dtype) for x in random_pair(20, 64))
    teacher = student + 0.01 * teacher  # near each other: where halves lose their digits
    want = normalized_l2(student.float(), teacher.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = normalized_l2(student, teacher)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_large_half_precision_features_do_not_overflow():
    student = torch.full((2, 1024), 3e4, dtype=torch.float16)
    assert float(normalized_l2(student, student)) == 0


def test_no_pairs_give_a_zero_that_back_propagates():
    student = torch.zeros(0, 4, requires_grad=True)
    loss = normalized_l2(student, torch.zeros(0, 4))
    loss.backward()
    assert loss == 0
    assert student.grad.shape == (0, 4)


@unchecked_only
@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (4,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must both be \[n, c\], got .*match the head's width"):
        normalized_l2(torch.zeros(3, 4), torch.zeros(shape))
