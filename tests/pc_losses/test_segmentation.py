import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_losses import cross_entropy_lovasz, lovasz_softmax
from torch.nn import functional

from tests.lanes import unchecked_only


def random_case(n, k, seed=0, ignored=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    labels[rng.random(n) < ignored] = -1
    logits = torch.from_numpy(rng.normal(size=(n, k)))
    return logits, torch.from_numpy(labels)


def jaccard_loss(mispredicted, truth):
    """Set function: 1 - IoU of a class of which exactly the points in `mispredicted` are wrong."""
    predicted = truth ^ mispredicted
    return 1 - (predicted & truth).sum() / (predicted | truth).sum()


def lovasz_by_definition(probabilities, labels):
    """Sum over the sorted errors of error times (set function with the point - without it)."""
    keep = labels != -1
    probabilities, labels = probabilities[keep], labels[keep]
    losses = []
    for c in np.unique(labels):
        truth = labels == c
        errors = np.abs(truth - probabilities[:, c])
        wrong, loss = np.zeros(len(truth), bool), 0.0
        for i in np.argsort(-errors, kind="stable"):
            before = jaccard_loss(wrong, truth)
            wrong[i] = True
            loss += errors[i] * (jaccard_loss(wrong, truth) - before)
        losses.append(loss)
    return np.mean(losses)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**16))
def test_lovasz_equals_its_definition(n, k, seed):
    logits, labels = random_case(n, k, seed)
    labels[0] = 0
    probabilities = logits.softmax(dim=1)
    want = lovasz_by_definition(probabilities.numpy(), labels.numpy())
    assert float(lovasz_softmax(probabilities, labels)) == pytest.approx(want, abs=1e-12)
    single = lovasz_softmax(probabilities.float(), labels)
    assert float(single) == pytest.approx(want, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**16))
def test_lovasz_is_one_minus_iou_at_hard_predictions(n, k, seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(k, size=(2, n))
    one_hot = functional.one_hot(torch.from_numpy(predicted), k).float()
    ious = [
        ((labels == c) & (predicted == c)).sum() / ((labels == c) | (predicted == c)).sum()
        for c in np.unique(labels)
    ]
    got = float(lovasz_softmax(one_hot, torch.from_numpy(labels)))
    assert got == pytest.approx(1 - np.mean(ious), abs=1e-6)


def test_lovasz_does_not_depend_on_the_order_of_points():
    logits, labels = random_case(200, 5)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    a = lovasz_softmax(logits.softmax(1), labels)
    torch.testing.assert_close(lovasz_softmax(logits.softmax(1)[order], labels[order]), a)


def test_duplicate_points_with_equal_errors():
    probabilities = torch.full((6, 2), 0.5, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, -1])
    want = lovasz_by_definition(probabilities.numpy(), labels.numpy())
    assert float(lovasz_softmax(probabilities, labels)) == pytest.approx(want)


def test_gradients():
    logits, labels = random_case(8, 3)
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x.softmax(1), labels), logits)
    assert torch.autograd.gradcheck(lambda x: cross_entropy_lovasz(x, labels), logits)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_sum_of_both_losses(weight):
    logits, labels = random_case(50, 4)
    want = functional.cross_entropy(logits, labels, ignore_index=-1)
    want = want + weight * lovasz_softmax(logits.softmax(1), labels)
    torch.testing.assert_close(cross_entropy_lovasz(logits, labels, lovasz_weight=weight), want)


def test_ignored_points_change_nothing_and_get_no_gradient():
    logits, labels = random_case(30, 4, ignored=0.5)
    kept = labels != -1
    logits.requires_grad_(True)
    loss = cross_entropy_lovasz(logits, labels)
    torch.testing.assert_close(loss, cross_entropy_lovasz(logits[kept], labels[kept]))
    loss.backward()
    assert not logits.grad[~kept].any()
    assert (logits.grad[kept] != 0).any(dim=1).all()
    other = torch.where(labels == -1, 255, labels)
    torch.testing.assert_close(cross_entropy_lovasz(logits, other, ignore=255), loss)


@pytest.mark.parametrize("loss", [lovasz_softmax, cross_entropy_lovasz])
@pytest.mark.parametrize("n", [0, 3])
def test_nothing_but_ignored_points_give_a_zero_that_back_propagates(loss, n):
    scores = torch.full((n, 4), float("inf"), requires_grad=True)
    value = loss(scores, torch.full((n,), -1))
    value.backward()
    assert value == 0
    assert not scores.grad.any()


def test_half_precision_is_computed_in_single():
    logits, labels = random_case(40, 4)
    logits = logits.half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = cross_entropy_lovasz(logits, labels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, cross_entropy_lovasz(logits.float(), labels), rtol=0, atol=0)


def test_gradient_descent_on_the_lovasz_loss_alone_fits_a_rare_class():
    labels = torch.tensor([0] * 95 + [1] * 5)
    logits = torch.zeros(100, 2).requires_grad_(True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(lovasz_softmax(logits.softmax(1), labels), logits)
        logits = (logits - 5 * gradient).detach().requires_grad_(True)
    assert torch.equal(logits.argmax(1), labels)


@unchecked_only
@pytest.mark.parametrize("loss", [lovasz_softmax, cross_entropy_lovasz])
def test_wrong_input_is_refused(loss):
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\) .* or -1 \(ignored\), got 4"):
        loss(torch.zeros(3, 4), torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match=r"got -2; map the dataset's labels"):
        loss(torch.zeros(1, 4), torch.tensor([-2]))
    with pytest.raises(ValueError, match=r"scores must be \[n, k\] and labels \[n\]"):
        loss(torch.zeros(3, 4), torch.tensor([0, 1]))
