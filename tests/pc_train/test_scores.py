"""Scores of a model on scans in memory."""

import numpy as np
import pytest
import torch
from pc_data import DataError
from pc_data.features import ROOM_FEATURES
from pc_train.networks import new_backbone
from pc_train.precise import precise_scores
from pc_train.scores import sample_to_score, score_model
from pc_train.segmentation import SegmentationModel

from tests.pc_data.scans import scan_of


class Rooms(list):
    root, split = "here", "val"
    class_names = ("wall", "floor", "bed", "sofa", "lamp")
    num_classes = 5
    intensity_mean, intensity_std = 0.0, 1.0


@pytest.fixture
def parts():
    backbone = new_backbone("inputs", len(ROOM_FEATURES), num_neighbors=0)
    backbone.card["features"] = list(ROOM_FEATURES)
    backbone.network.fov, backbone.network.voxel_size = None, 1.5
    torch.manual_seed(0)
    model = SegmentationModel(backbone.network, torch.nn.Linear(6, 5))
    rooms = Rooms(scan_of(200, seed=seed, extent=3.0, name=str(seed)) for seed in range(3))
    return model, backbone, rooms


def _miou(rooms, answers):
    truth = np.concatenate([room.labels for room in rooms])
    answers, truth = np.concatenate(answers)[truth >= 0], truth[truth >= 0]
    pairs = [((answers == c) & (truth == c), (answers == c) | (truth == c)) for c in range(5)]
    iou = [hit.sum() / either.sum() for hit, either in pairs if either.any()]
    return np.mean(iou), sum(iou) / 5


@pytest.mark.parametrize("precise", [False, True])
def test_score_by_hand(parts, precise):
    model, backbone, rooms = parts
    model.eval()
    answers = []
    for room in rooms:
        if precise:
            names = {"features": ROOM_FEATURES, "voxel_size": 1.5, "device": "cpu"}
            answers.append(precise_scores(model, room, **names).argmax(1))
        else:
            sample = sample_to_score(room, rooms, backbone)
            with torch.no_grad():
                answers.append(model(sample).argmax(1)[sample.nearest].numpy())
    for absent, wanted in zip(("left_out", "zero"), _miou(rooms, answers), strict=True):
        score = score_model(
            model,
            backbone,
            rooms,
            title="t",
            num_workers=0,
            accelerator="cpu",
            precise=precise,
            absent_classes=absent,
        )
        assert score.miou == pytest.approx(wanted)
        assert score.num_scans == 3
        assert list(score.iou) == list(Rooms.class_names)


def test_voxels_of_the_network_start_at_the_origin(parts):
    _, backbone, rooms = parts
    sample = sample_to_score(rooms[0], rooms, backbone)
    cells = np.floor(sample.xyz.numpy() / 1.5)
    assert len(np.unique(cells, axis=0)) == len(cells) < 200


@pytest.mark.parametrize("precise", [False, True])
def test_nothing_labelled(parts, precise):
    model, backbone, rooms = parts
    rooms[:] = [type(room)(**{**vars(room), "labels": None}) for room in rooms]
    with pytest.raises(DataError, match="here: no scan of split 'val' has labels"):
        score_model(
            model, backbone, rooms, title="t", num_workers=0, accelerator="cpu", precise=precise
        )
