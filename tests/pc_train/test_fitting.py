"""How the trainer is set up."""

from types import SimpleNamespace

import pytest
import torch
from pc_data.errors import DivergedError, MachineError
from pc_train.checkpoints import AtomicCheckpointIO, save_step
from pc_train.fitting import SyncLearning, _count_processes, limited_threads, make_trainer
from pc_train.hardware import HardwareConfig, launched_processes
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


def test_batch_norm_of_what_sees_the_same_everywhere_stays():
    blend = nn.Sequential(nn.BatchNorm1d(4))
    method = nn.ModuleDict({"blend": blend, "student": nn.BatchNorm1d(4)})
    method.alike = ("blend",)
    converted = SyncLearning().apply(method)
    assert type(converted["blend"][0]) is nn.BatchNorm1d
    assert type(converted["student"]) is nn.SyncBatchNorm


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(MachineError, match="accelerator is gpu, but torch finds none here"):
        make_trainer(HardwareConfig(accelerator="gpu"), checkpoint_io=AtomicCheckpointIO())


def test_weights_that_are_not_finite_reach_no_checkpoint(tmp_path):
    module = nn.Linear(2, 2)
    saved = []
    trainer = SimpleNamespace(
        lightning_module=module,
        global_step=7,
        save_checkpoint=lambda path: saved.append(path.name),
        strategy=SimpleNamespace(checkpoint_io=AtomicCheckpointIO(), broadcast=lambda text: text),
    )
    assert save_step(trainer, tmp_path) == ""
    with torch.no_grad():
        module.bias[1] = torch.nan
    with pytest.raises(DivergedError, match="1 weights are not finite at step 7, the first is b"):
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


LAUNCHERS = {
    "torchrun": {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"},
    "srun": {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"},
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_tell_how_many_processes_there_are(monkeypatch, name):
    for key, value in LAUNCHERS[name].items():
        monkeypatch.setenv(key, value)
    assert launched_processes() == (4, 2)
    assert _count_processes(HardwareConfig(), gpu=False) == (4, 2)
    assert _count_processes(HardwareConfig(devices=4, num_nodes=2), gpu=False) == (4, 2)
    with pytest.raises(ValueError, match="started 4 processes on each of 2 machines, but hardware"):
        _count_processes(HardwareConfig(devices=2), gpu=False)


def test_without_a_launcher(monkeypatch):
    for key in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)
    assert launched_processes() is None
    assert _count_processes(HardwareConfig(), gpu=False) == (1, 1)
    assert _count_processes(HardwareConfig(devices=3, num_nodes=2), gpu=False) == (3, 2)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert launched_processes() is None


def test_slurm_requeues_nothing_in_mid_step(monkeypatch):
    values = {"PROCID": "0", "NTASKS": "1", "NNODES": "1", "LOCALID": "0", "NODEID": "0"}
    for key, value in values.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    trainer = make_trainer(
        HardwareConfig(accelerator="cpu"), checkpoint_io=AtomicCheckpointIO(), logger=False
    )
    environment = trainer._accelerator_connector.cluster_environment
    assert (type(environment).__name__, environment.auto_requeue) == ("SLURMEnvironment", False)
