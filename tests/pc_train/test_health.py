"""What every run is watched for: the values are those of the step, and nothing is left behind."""

from types import SimpleNamespace

import lightning
import pytest
import torch
from pc_losses.health import effective_rank
from pc_train.health import EFFECTIVE_RANK, GRADIENT_NORM, Health
from torch import nn


class _Method(lightning.LightningModule):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


def _step(health, method, step, batch, outputs=None):
    trainer = SimpleNamespace(global_step=step - 1)
    health.on_train_batch_start(trainer, method, None, 0)
    features = method.backbone(batch)
    trainer.global_step = step
    outputs = {"loss": features.sum()} if outputs is None else outputs
    health.on_train_batch_end(trainer, method, outputs, None, 0)
    return outputs["watch"], features


@pytest.mark.parametrize("num_points", [1, 50, 2048, 5000])
def test_rank_of_the_step(num_points):
    method = _Method(nn.Linear(4, 6)).train()
    health = Health(lambda: 2.5)
    batch = torch.randn(num_points, 4, generator=torch.Generator().manual_seed(0))
    for step in (1, 100, 200):
        watch, features = _step(health, method, step, batch)
        kept = features.detach()[:: -(-num_points // 2048)]
        assert len(kept) <= 2048
        torch.testing.assert_close(watch[EFFECTIVE_RANK], effective_rank(kept))
        assert watch[GRADIENT_NORM] == 2.5
    for step in (2, 10, 101):
        watch, _ = _step(health, method, step, batch)
        assert watch[EFFECTIVE_RANK] != watch[EFFECTIVE_RANK]  # NaN: the column stays
    assert not method.backbone._forward_hooks


def test_what_the_method_watches_stays_first():
    method = _Method(nn.Linear(4, 6)).train()
    outputs = {"loss": torch.tensor(1.0), "watch": {"accuracy": torch.tensor(0.5)}}
    watch, _ = _step(Health(lambda: 1.0), method, 1, torch.randn(9, 4), outputs)
    assert list(watch) == ["accuracy", GRADIENT_NORM, EFFECTIVE_RANK]


def test_the_first_call_that_learns_counts():
    method = _Method(nn.Linear(4, 6)).train()
    health, trainer = Health(lambda: 1.0), SimpleNamespace(global_step=0)
    health.on_train_batch_start(trainer, method, None, 0)
    method.backbone.eval()
    method.backbone(torch.ones(50, 4))  # a pass over the data between two steps
    method.backbone.train()
    first = method.backbone(torch.randn(50, 4))
    method.backbone(torch.ones(50, 4))
    outputs = {"loss": first.sum()}
    health.on_train_batch_end(trainer, method, outputs, None, 0)
    torch.testing.assert_close(outputs["watch"][EFFECTIVE_RANK], effective_rank(first))


def test_a_frozen_backbone_has_no_rank():
    method = _Method(nn.Linear(4, 6))
    method.backbone.eval()
    watch, _ = _step(Health(lambda: 1.0), method, 1, torch.randn(9, 4))
    assert list(watch) == [GRADIENT_NORM]
    plain = SimpleNamespace(backbone=None)
    outputs = {"loss": torch.tensor(1.0)}
    health = Health(lambda: 1.0)
    health.on_train_batch_start(SimpleNamespace(global_step=0), plain, None, 0)
    health.on_train_batch_end(SimpleNamespace(global_step=1), plain, outputs, None, 0)
    assert list(outputs["watch"]) == [GRADIENT_NORM]


def test_an_error_leaves_the_backbone_as_it_was():
    method = _Method(nn.Linear(4, 6)).train()
    health = Health(lambda: 1.0)
    health.on_train_batch_start(SimpleNamespace(global_step=0), method, None, 0)
    assert method.backbone._forward_hooks
    health.on_exception(None, method, RuntimeError())
    assert not method.backbone._forward_hooks
