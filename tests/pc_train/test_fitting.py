"""How the trainer is set up."""

from types import SimpleNamespace

import pytest
import torch
from pc_train.checkpoints import AtomicCheckpointIO, save_step
from pc_train.fitting import SyncLearning, limited_threads, make_trainer
from pc_train.hardware import HardwareConfig
from timm.layers import BatchNormAct2d
from torch import nn


def test_batch_norm_is_shared_by_what_learns():
    teacher = nn.Sequential(nn.Conv2d(3, 4, 1), BatchNormAct2d(4)).requires_grad_(False).eval()
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    method = nn.ModuleDict({"teacher": teacher, "student": student})
    images = torch.randn(2, 3, 5, 5)
    before = teacher(images)
    converted = SyncLearning().apply(method)
    assert isinstance(converted["student"][1], nn.SyncBatchNorm)
    assert isinstance(converted["teacher"][1], BatchNormAct2d)
    assert torch.equal(converted["teacher"](images), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ValueError, match="accelerator is gpu, but torch finds none here"):
        make_trainer(HardwareConfig(accelerator="gpu"), checkpoint_io=AtomicCheckpointIO())


def test_weights_that_are_not_finite_reach_no_checkpoint(tmp_path):
    module = nn.Linear(2, 2)
    saved = []
    trainer = SimpleNamespace(
        lightning_module=module, global_step=7, save_checkpoint=lambda path: saved.append(path.name)
    )
    save_step(trainer, tmp_path)
    with torch.no_grad():
        module.bias[1] = torch.nan
    with pytest.raises(ValueError, match="1 weights are not finite at step 7, the first is bias"):
        save_step(trainer, tmp_path)
    assert saved == ["step-00000007.ckpt"]


def test_threads_are_limited_for_a_while():
    before = torch.get_num_threads()
    with limited_threads(HardwareConfig(num_threads=1)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with limited_threads(HardwareConfig()):
        assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="num_threads must be 0 or more, got -1"):
        HardwareConfig(num_threads=-1)
