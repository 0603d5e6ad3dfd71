import numpy as np
import pytest
import torch
from pc_train.quality import nearest_classes as module
from pc_train.quality.nearest_classes import nearest_classes


@pytest.mark.parametrize("k", [1, 3, 20])
def test_equals_a_loop(k, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 4)
    generator = torch.Generator().manual_seed(k)
    feat = torch.randn(10, 5, generator=generator)
    known = torch.randn(15, 5, generator=generator)
    labels = torch.randint(0, 3, (15,), generator=generator)
    got = nearest_classes(feat, known, labels, num_classes=4, num_neighbors=k, temperature=0.5)
    for row, found in zip(feat.numpy(), got.tolist(), strict=True):
        cosine = [row @ b / np.linalg.norm(row) / np.linalg.norm(b) for b in known.numpy()]
        nearest = np.argsort(cosine)[::-1][:k]
        votes = np.zeros(4)
        for j in nearest:
            votes[labels[j]] += np.exp(cosine[j] / 0.5)
        assert found == votes.argmax()


def test_small_temperatures_stay_finite():
    known = torch.eye(3)
    got = nearest_classes(known, known, torch.tensor([2, 0, 1]), num_classes=3, temperature=1e-3)
    assert got.tolist() == [2, 0, 1]


def test_nothing_to_find_and_nothing_known():
    known, labels = torch.eye(2), torch.tensor([0, 1])
    assert nearest_classes(torch.zeros(0, 2), known, labels, num_classes=2).shape == (0,)
    with pytest.raises(ValueError, match="as many and at least one, got 0 and 0"):
        nearest_classes(known, torch.zeros(0, 2), labels[:0], num_classes=2)
    with pytest.raises(ValueError, match="as many and at least one, got 2 and 1"):
        nearest_classes(known, known, labels[:1], num_classes=2)
