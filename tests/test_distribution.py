"""Two processes, through Lightning's DDP and gloo, do what one process does on the joint batch."""

import os

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from tests.processes import run_in_processes

STEPS, BATCH = 3, 4


class _Numbers:
    """A dataset of ready samples."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


class _Keep(Callback):
    """Losses of the steps, and the first gradient as the optimiser gets it."""

    def __init__(self):
        self.losses, self.gradient = [], {}

    def on_before_optimizer_step(self, _, pl_module, *__):
        if not self.gradient:
            named = pl_module.named_parameters()
            self.gradient = {k: v.grad.clone() for k, v in named if v.grad is not None}

    def on_train_batch_end(self, _, __, outputs, *___):
        self.losses.append(float(outputs["loss"]))


def _scalr(world):
    from functools import partial

    from pc_2dteachers import create_teacher
    from pc_backbones import create_backbone
    from pc_data import NuScenes
    from pc_data.loading import sample_rng
    from scalr.method import ScaLR
    from scalr.samples import make_pair

    dataset = NuScenes(world, split="all")
    box = ((-64.0, -64.0, -8.0), (64.0, 64.0, 8.0))
    make = partial(
        make_pair,
        intensity_mean=18.0,
        intensity_std=22.0,
        min_depth=1.0,
        min_x=-np.inf,
        box=box,
        image_size=(64, 128),
        voxel_size=0.5,
        max_points=600,
        num_neighbors=4,
    )
    backbone = create_backbone("waffleiron", 5, depth=3, channels=8, num_neighbors=4)
    teacher = create_teacher("efficientnet_lite0_offline")
    schedule = {"lr": 1e-3, "min_lr": 0.0, "weight_decay": 0.0, "warmup_steps": 1, "num_steps": 9}
    method = ScaLR(backbone, teacher, torch.nn.Linear(8, teacher.out_dim), schedule=schedule)
    return method, [make(dataset[i], sample_rng(0, 0, i)) for i in range(4)]


def _msc(world):
    from tests.msc.test_method import method_of, samples_of

    method = method_of(gather=True)
    method.schedule |= {"lr": 1e-3}  # without the batch's norms, more explodes
    return method, samples_of(4, mix_probability=0.0)


def _sspl(world):
    from tests.sspl.test_method import _samples, filled, method_of

    return filled(method_of(across="queue")), _samples()


def _crossmodal(world):
    from functools import partial

    from crossmodal.samples import make_units
    from pc_2dteachers import create_teacher
    from pc_2dteachers.levels import TeacherLevels
    from pc_data import NuScenes
    from pc_data.loading import sample_rng
    from pc_geometry.units import contrastive_units

    from tests.crossmodal.test_method import method_of

    dataset = NuScenes(world, split="all")
    make = partial(
        make_units,
        features=("x", "y", "z", "intensity"),
        intensity_mean=18.0,
        intensity_std=22.0,
        box=((-25.6, -25.6, -4.0), (25.6, 25.6, 4.0)),
        sensor_height=1.84,
        image_size=(64, 128),
        with_other=True,
    )
    samples = [
        # Unlike numbers of units, so that a mean of means would differ.
        make(
            dataset[i],
            sample_rng(0, 0, i),
            find_units=partial(contrastive_units, num_units=20 + 10 * i),
        )
        for i in range(4)
    ]
    teacher = TeacherLevels(create_teacher("efficientnet_lite0_offline"), (1, 2, 3))
    return method_of(teacher, within=True), samples


MAKE = {"scalr": _scalr, "msc": _msc, "sspl": _sspl, "crossmodal": _crossmodal}


def _train(rank, name, world, out):
    """Losses, the first gradient and the state after some steps of this process."""
    from pathlib import Path

    from pc_data.loading import Samples
    from pc_train.fitting import fit
    from pc_train.hardware import HardwareConfig

    world_size = torch.distributed.get_world_size()
    _as_torchrun(rank, world_size)
    torch.manual_seed(0)
    method, parts = MAKE[name](world)
    keep = _Keep()
    fit(
        method.eval(),  # batch norms by their running statistics: CPUs do not share the batch's
        Samples([(_Numbers(len(parts)), lambda index, _: parts[index])], seed=0),
        batch_size=BATCH,
        out=Path(out) / f"{name}{world_size}",
        num_steps=STEPS,
        seed=0,
        title=name,
        hardware=HardwareConfig(accelerator="cpu", num_workers=0),
        callbacks=[keep],
    )
    return keep.losses, keep.gradient, method.state_dict()


def _as_torchrun(rank, world_size):
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",  # the processes have met already
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_two_processes_train_as_one(name, street_world, tmp_path):
    """Where negatives are those of a scan, or gathered; CSC's own test joins its halves by hand."""
    ((losses, gradient, state),) = run_in_processes(
        _train, name, street_world, tmp_path, num_processes=1
    )
    first, second = run_in_processes(_train, name, street_world, tmp_path)
    assert gradient.keys() == first[1].keys()
    largest = max(float(value.abs().max()) for value in gradient.values())
    assert largest > 0
    for key, expected in gradient.items():
        assert torch.equal(first[1][key], second[1][key])
        torch.testing.assert_close(first[1][key], expected, rtol=1e-4, atol=1e-5 * largest, msg=key)
    mean = (np.array(first[0]) + second[0]) / 2
    np.testing.assert_allclose(mean[0], losses[0], rtol=1e-5)
    np.testing.assert_allclose(mean, losses, rtol=2e-3)
    for key, value in first[2].items():
        assert torch.equal(value, second[2][key]), key
        assert value.shape == state[key].shape
    if name == "sspl":
        torch.testing.assert_close(
            first[2]["queue.feature"], state["queue.feature"], rtol=1e-3, atol=1e-4
        )


class _Three:
    """The first three scans of a dataset: two processes cannot share them evenly."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.dataset[index]


def _score(rank, world, backbone, voxel_size):
    from pc_data import NuScenes
    from pc_train.networks import open_backbone
    from pc_train.scores import score_model
    from pc_train.segmentation import FineTune

    dataset = _Three(NuScenes(world, split="all"))
    opened = open_backbone(backbone)
    torch.manual_seed(0)
    model = FineTune(opened.network, dataset.num_classes, num_steps=1, warmup_steps=0)
    options = {"title": "", "num_workers": 0, "voxel_size": voxel_size, "accelerator": "cpu"}
    return score_model(model, opened, dataset, **options)


@pytest.mark.slow
def test_no_scan_is_scored_twice(street_world, tmp_path):
    from pc_train.networks import new_backbone, save_model

    torch.manual_seed(0)
    network = new_backbone("waffleiron", 5, depth=3, channels=8, num_neighbors=4)
    save_model(tmp_path, network, card={})
    (alone,) = run_in_processes(_score, street_world, tmp_path, 0.5, num_processes=1)
    for score in run_in_processes(_score, street_world, tmp_path, 0.5):
        np.testing.assert_array_equal(score.confusion, alone.confusion)
        assert score == alone
        assert score.num_scans == 3
