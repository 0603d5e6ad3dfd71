"""What the settings of probing and fine-tuning change, seen where training would begin."""

import dataclasses

import pytest
import torch
from pc_data.datasets import DataConfig
from pc_train import downstream
from pc_train.configs import FineTuneConfig, ProbeConfig
from pc_train.hardware import HardwareConfig
from safetensors.torch import load_file


class Begun(Exception):  # noqa: N818 - not an error
    pass


@pytest.fixture
def begin(backbone, street_world, tmp_path, monkeypatch):
    """Run until training would begin; give the model, the samples and fit's arguments."""
    caught = {}

    def fit(model, samples, **arguments):
        caught.update(arguments, model=model, samples=samples)
        raise Begun

    monkeypatch.setattr(downstream, "fit", fit)

    def call(run, kind, **changes):
        config = kind(
            backbone=backbone,
            data=DataConfig(root=street_world),
            out=tmp_path / str(len(list(tmp_path.iterdir()))),
            batch_size=1,
            hardware=HardwareConfig(accelerator="cpu", num_workers=0),
        )
        with pytest.raises(Begun):
            run(dataclasses.replace(config, **changes))
        return dict(caught)

    return call


def weights_of(begun):
    return begun["model"].backbone.state_dict()


@pytest.mark.parametrize(
    ("run", "kind"), [(downstream.probe, ProbeConfig), (downstream.finetune, FineTuneConfig)]
)
def test_random_weights(begin, backbone, run, kind):
    saved = load_file(backbone / "backbone.safetensors")
    trained = weights_of(begin(run, kind))
    control = weights_of(begin(run, kind, random_weights=True, seed=5))
    again = weights_of(begin(run, kind, random_weights=True, seed=5))
    other = weights_of(begin(run, kind, random_weights=True, seed=6))
    learned = [name for name, value in saved.items() if value.ndim > 1]
    for name, value in saved.items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=0)
        torch.testing.assert_close(control[name], again[name], rtol=0, atol=0)
    assert all(not torch.equal(control[name], saved[name]) for name in learned)
    assert all(not torch.equal(control[name], other[name]) for name in learned)


def test_length_of_a_run(begin):
    assert begin(downstream.probe, ProbeConfig, epochs=7)["num_steps"] == 14
    assert begin(downstream.probe, ProbeConfig, epochs=7, batch_size=2)["num_steps"] == 7
    assert begin(downstream.probe, ProbeConfig, epochs=7, max_steps=3)["num_steps"] == 3
    schedule = begin(downstream.probe, ProbeConfig, warmup_epochs=3, epochs=9)["model"].schedule
    assert schedule["warmup_steps"] == 6
    assert schedule["num_steps"] == 18


def test_share_of_the_labels(begin):
    begun = begin(downstream.finetune, FineTuneConfig, fraction=0.5)
    assert len(begun["samples"]) == 1
    chosen = {
        begin(downstream.probe, ProbeConfig, fraction=0.5, seed=seed)["samples"][0, 0].names
        for seed in range(8)
    }
    assert len(chosen) == 2


def test_every_other_scan(begin):
    begun = begin(downstream.probe, ProbeConfig, every=2)
    assert len(begun["samples"]) == 1
    first = begin(downstream.probe, ProbeConfig)["samples"][0, 0].names
    assert begun["samples"][0, 0].names == first


def test_damage(begin):
    assert begin(downstream.probe, ProbeConfig)["samples"].on_error == "raise"
    assert begin(downstream.probe, ProbeConfig, on_error="skip")["samples"].on_error == "skip"


def test_optimizer_of_fine_tuning(begin):
    begun = begin(
        downstream.finetune,
        FineTuneConfig,
        lr=0.4,
        layer_decay=0.5,
        weight_decay=0.25,
        drop_path=0.125,
        warmup_epochs=0,
        epochs=50,
    )
    model = begun["model"]
    assert {layer.drop_path for layer in model.modules() if hasattr(layer, "drop_path")} == {0.125}
    optimizer = model.configure_optimizers()["optimizer"]
    held = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert held.keys() == {id(p) for p in model.parameters()}
    layers = model.backbone.layer_groups()
    for distance, layer in enumerate(reversed(layers), start=1):
        for parameter in layer if isinstance(layer, (list, tuple)) else layer.parameters():
            assert held[id(parameter)]["initial_lr"] == pytest.approx(0.4 * 0.5**distance)
    for parameter in model.head.parameters():
        assert held[id(parameter)]["initial_lr"] == pytest.approx(0.4)
        assert held[id(parameter)]["weight_decay"] == (0.25 if parameter.ndim > 1 else 0)


def test_two_learning_rates(begin):
    begun = begin(
        downstream.finetune,
        FineTuneConfig,
        lr=0.02,
        head_lr=2.0,
        layer_decay=1.0,
        optimizer="sgd_cosine",
        head="plain_linear",
        warmup_epochs=0,
    )
    model = begun["model"]
    optimizer = model.configure_optimizers()["optimizer"]
    held = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {held[id(p)] for p in model.backbone.parameters()} == {0.02}
    assert {held[id(p)] for p in model.head.parameters()} == {2.0}
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["dampening"], group["nesterov"]) == (0.9, 0.1, False)


def test_reach(begin):
    begun = begin(downstream.finetune, FineTuneConfig, reach=128.0)
    network = begun["model"].backbone
    assert network.fov.tolist() == [[-128, -128, -8], [128, 128, 8]]
    assert network.grids == ((64, 64), (64, 8), (64, 8))  # cells of 4 m, as in the file
    assert network.arguments["grids"] == network.grids
    probed = begin(downstream.probe, ProbeConfig, reach=32.0)["model"].backbone
    assert probed.grids == ((16, 16), (16, 8), (16, 8))
    for name, value in begin(downstream.probe, ProbeConfig)["model"].state_dict().items():
        assert value.shape == begun["model"].state_dict()[name].shape


def test_reach_of_networks_without_a_grid(tmp_path):
    from pc_train.networks import new_backbone, open_backbone, save_model

    save_model(tmp_path, new_backbone("inputs", 5), card={})
    with pytest.raises(ValueError, match=r"reach is for networks with a grid .* got 64 for Input"):
        open_backbone(tmp_path, reach=64.0)


def test_all_points(begin):
    all_points = begin(downstream.probe, ProbeConfig, max_points=0, voxel_size=0.3)
    budget = begin(downstream.probe, ProbeConfig, max_points=50, voxel_size=0.3)
    assert len(budget["samples"][0, 0].xyz) <= 50 < len(all_points["samples"][0, 0].xyz)


def test_optimizer_of_probing_holds_the_head_alone(begin):
    model = begin(downstream.probe, ProbeConfig, lr=0.3, weight_decay=0.2)["model"]
    optimizer = model.configure_optimizers()["optimizer"]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.head.parameters()}
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_every_setting_of_the_recipe_arrives(begin):
    begun = begin(
        downstream.finetune,
        FineTuneConfig,
        head="linear",
        optimizer="sgd",
        lovasz_weight=0.5,
        lr=0.2,
        max_points=77,
        voxel_size=0.4,
    )
    model = begun["model"]
    assert isinstance(model.head, torch.nn.Linear)
    assert model.lovasz_weight == 0.5
    assert isinstance(model.configure_optimizers()["optimizer"], torch.optim.SGD)
    assert len(begun["samples"][0, 0].xyz) <= 77


def test_mixing_halves_the_batch(begin):
    begun = begin(downstream.finetune, FineTuneConfig, mix_probability=1.0, batch_size=2, epochs=3)
    assert begun["batch_size"] == 1
    assert begun["num_steps"] == 3
    sample = begun["samples"][0, 0]
    assert len(sample.names) == 1
    assert sample.neighbors.shape[1] == 4


def test_scenes(begin, street_world, tmp_path):
    from pc_data.datasets import open_dataset

    scene = open_dataset(DataConfig(root=street_world)).scene_names[0]
    file = tmp_path / "scenes.txt"
    file.write_text(f"{scene}\n")
    assert len(begin(downstream.probe, ProbeConfig, scenes=file)["samples"]) == 2
    file.write_text("another\n")
    with pytest.raises(ValueError, match="lists scene 'another', which is not in split 'train'"):
        begin(downstream.probe, ProbeConfig, scenes=file)


def test_few_points(begin):
    whole = begin(downstream.probe, ProbeConfig, max_points=10**6)["samples"][0, 0]
    few = begin(downstream.probe, ProbeConfig, max_points=10**6, points_per_scene=20)
    sample = few["samples"][0, 0]
    assert int((whole.labels >= 0).sum()) > 100
    assert 0 < int((sample.labels >= 0).sum()) <= 20  # those in the field of view


def test_listed_points(begin, street_world, tmp_path):
    torch.save({"x": [1]}, tmp_path / "points")
    with pytest.raises(ValueError, match="points lacks 2 of the 2 scans to train on"):
        begin(downstream.probe, ProbeConfig, points_file=tmp_path / "points")


def test_drop_path_only_for_networks_that_have_it(tmp_path):
    from pc_train.networks import new_backbone, open_backbone, save_model

    save_model(tmp_path, new_backbone("inputs", 5), card={})
    named = open_backbone(tmp_path, drop_path=0.2)
    assert "drop_path" not in named.arguments


def test_a_backbone_says_what_its_features_are(tmp_path):
    from pc_data.features import LIDAR_FEATURES, ROOM_FEATURES
    from pc_train.networks import new_backbone
    from pc_train.scores import input_arguments

    class Data:
        intensity_mean, intensity_std = 1.0, 2.0

    lidar = input_arguments(Data(), new_backbone("inputs", 5))
    assert lidar["features"] == LIDAR_FEATURES
    assert lidar["box"] == ((-64, -64, -8), (64, 64, 8))
    rooms = new_backbone("inputs", 6)
    rooms.card["features"] = list(ROOM_FEATURES)
    rooms.network.fov = None
    arguments = input_arguments(Data(), rooms)
    assert arguments["features"] == ROOM_FEATURES
    assert arguments["box"] is None
    with pytest.raises(ValueError, match="takes 6 input features, but its card names 5"):
        input_arguments(Data(), new_backbone("inputs", 6))


def test_voxels_are_the_networks_own_unless_given():
    from pc_train.networks import new_backbone
    from pc_train.scores import resolve_voxel_size

    backbone = new_backbone("inputs", 5)
    assert resolve_voxel_size(0.0, backbone) == 0.1
    backbone.network.voxel_size = 0.02
    assert resolve_voxel_size(0.0, backbone) == 0.02
    assert resolve_voxel_size(0.05, backbone) == 0.05


def test_precise_test_beyond_the_field_of_view_is_refused_before_training(
    backbone, street_world, tmp_path
):
    config = ProbeConfig(
        backbone=backbone,
        data=DataConfig(root=street_world),
        out=tmp_path / "run",
        batch_size=1,
        precise=True,
        hardware=HardwareConfig(accelerator="cpu", num_workers=0),
    )
    with pytest.raises(ValueError, match="points leave the network's field of view"):
        downstream.probe(config)
    assert not config.out.exists()
