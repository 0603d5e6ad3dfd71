import argparse
import re
from pathlib import Path

import pytest
import torch
from pc_2dteachers import TeacherLevels, create_teacher
from pc_2dteachers.published import AUTHOR_FILES, CONVERTERS
from pc_2dteachers.weights import load_checkpoint
from safetensors.torch import save_file
from torchvision.models import resnet50, swin_t

PREFIX = {"moco_v2_resnet50": "encoder_q", "moco_v3_resnet50": "base_encoder"}
MOCO = sorted(PREFIX)


def image(height=64, width=96):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def normalized(rgb):
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    return (rgb - mean) / std


@pytest.fixture(scope="module")
def networks():
    """For files that are refused."""
    return {name: create_teacher(name, pretrained=False).network for name in CONVERTERS}


def load(networks, name, file):
    load_checkpoint(networks[name], file, convert=CONVERTERS[name])


@pytest.fixture(scope="module")
def resnet():
    """An independent ResNet-50 with random weights and statistics."""
    torch.manual_seed(3)
    network = resnet50().eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
    return network


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(4)
    return swin_t().eval()


def moco_state(name, network):
    """The tensors of a training checkpoint: a few large ones stand in for the other networks."""
    own = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    state = {f"module.{PREFIX[name]}.{k}": v for k, v in own.items()}
    if name == "moco_v2_resnet50":
        state["module.encoder_q.fc.0.weight"] = torch.zeros(2048, 2048)
        state["module.encoder_q.fc.0.bias"] = torch.zeros(2048)
        state["module.encoder_q.fc.2.weight"] = torch.zeros(128, 2048)
        state["module.queue"] = torch.zeros(128, 64)
        state["module.queue_ptr"] = torch.zeros(1, dtype=torch.int64)
        state["module.encoder_k.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    else:
        state["module.base_encoder.fc.0.weight"] = torch.zeros(4096, 2048)
        state["module.base_encoder.fc.1.running_mean"] = torch.zeros(4096)
        state["module.base_encoder.fc.3.weight"] = torch.zeros(256, 4096)
        state["module.momentum_encoder.conv1.weight"] = torch.zeros(64, 3, 7, 7)
        state["module.predictor.0.weight"] = torch.zeros(4096, 256)
    return state


def save_moco(file, name, network, **changes):
    state = moco_state(name, network)
    state.update(changes)
    content = {
        "epoch": 1000,
        "arch": "resnet50",
        "state_dict": {key: value for key, value in state.items() if value is not None},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
    }
    torch.save(content, file)
    return file


def torchvision_levels(network, rgb):
    x = network.maxpool(network.relu(network.bn1(network.conv1(normalized(rgb)))))
    levels = []
    for layer in (network.layer1, network.layer2, network.layer3):
        x = layer(x)
        levels.append(x)
    return levels


@pytest.mark.parametrize("name", MOCO)
def test_moco_files_give_the_features_of_torchvisions_resnet(tmp_path, resnet, name):
    file = save_moco(tmp_path / "moco.pth.tar", name, resnet)
    teacher = TeacherLevels(create_teacher(name, checkpoint=file), (1, 2, 3))
    with torch.no_grad():
        want = torchvision_levels(resnet, image())
    for got, expected in zip(teacher(image()), want, strict=True):
        assert expected.std() > 0.01
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize("name", MOCO)
def test_every_tensor_of_the_network_comes_from_the_file(tmp_path, resnet, name):
    file = save_moco(tmp_path / "moco.pth.tar", name, resnet)
    state = create_teacher(name, checkpoint=file).network.state_dict()
    want = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    assert state.keys() == want.keys()
    assert all(torch.equal(state[key], want[key]) for key in want)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_encoder_alone_is_understood_too(tmp_path, resnet, suffix):
    file = tmp_path / f"encoder{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(resnet.state_dict(), file)
    teacher = create_teacher("moco_v3_resnet50", checkpoint=file)
    assert torch.equal(teacher.network.conv1.weight, resnet.conv1.weight)


@pytest.mark.parametrize("name", MOCO)
def test_files_before_zip_archives_are_read(tmp_path, resnet, networks, name):
    state = moco_state(name, resnet)
    file = tmp_path / "old.pth.tar"
    torch.save({"epoch": 800, "state_dict": state}, file, _use_new_zipfile_serialization=False)
    load(networks, name, file)
    got = networks[name].state_dict()
    assert all(torch.equal(value, resnet.state_dict()[key]) for key, value in got.items())


def test_the_file_of_the_other_method_is_refused(tmp_path, resnet, networks):
    for name, other in (MOCO, MOCO[::-1]):
        file = save_moco(tmp_path / "other.pth.tar", other, resnet)
        text = rf"no network under module\.{PREFIX[name]}\.\*.*but {PREFIX[other]}\.conv1\.weight"
        with pytest.raises(ValueError, match=text):
            load(networks, name, file)


@pytest.mark.parametrize("name", MOCO)
def test_other_shapes_and_names_are_refused(tmp_path, resnet, networks, name):
    first = f"module.{PREFIX[name]}."
    for changes, text in (
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, "do not fit .*size mismatch for conv1.weight"),
        ({"layer4.0.bn1.bias": None}, r"missing layer4\.0\.bn1\.bias; unexpected none"),
        ({"layer4.3.conv1.weight": torch.zeros(1)}, r"none; unexpected layer4\.3\.conv1\.weight"),
        ({"conv1.weight": None}, r"no network under module\.\w+\.\* \(no conv1\.weight\)"),
        ({"bn1.bias": "text"}, "is no dictionary of tensors"),
    ):
        named = {first + key: value for key, value in changes.items()}
        file = save_moco(tmp_path / "changed.pth.tar", name, resnet, **named)
        with pytest.raises(ValueError, match=text):
            load(networks, name, file)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize("name", sorted(CONVERTERS))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_runs_no_code(tmp_path, monkeypatch, networks, name, zipped):
    monkeypatch.chdir(tmp_path)
    inside = {"module.base_encoder.conv1.weight": Harmful(), "args": Harmful()}
    for content in (
        {"state_dict": inside, "teacher": inside},
        {"state_dict": {}, "optimizer": Harmful()},
        Harmful(),
    ):
        torch.save(content, "harmful.pth.tar", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match="does not load as plain weights"):
            load(networks, name, "harmful.pth.tar")
    assert not Path("harm-was-done").exists()


@pytest.mark.parametrize("name", sorted(CONVERTERS))
@pytest.mark.parametrize(
    "content", [{}, [], 3, torch.zeros(2), {"state_dict": None}, {"teacher": 3}, {3: torch.ones(1)}]
)
def test_files_of_anything_else_are_refused(tmp_path, networks, name, content):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth: (holds no network|does not load as plain)"):
        load(networks, name, tmp_path / "odd.pth")


def test_cut_files_are_refused(tmp_path, networks):
    file = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": {"module.base_encoder.conv1.weight": torch.ones(64, 3, 7, 7)}}, file)
    data = file.read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(ValueError, match="does not load as plain weights"):
            load(networks, "moco_v3_resnet50", file)


@pytest.mark.parametrize("name", sorted(AUTHOR_FILES))
def test_without_a_file_the_message_says_where_it_is(name):
    text = rf"{name} needs the file of its authors as checkpoint: .*pretrained=False"
    with pytest.raises(FileNotFoundError, match=text):
        create_teacher(name)


def test_the_random_control_keeps_its_residual_branches():
    teacher = create_teacher("moco_v3_resnet50", pretrained=False)
    block = teacher.network.layer1[1]
    assert (block.bn3.weight == 1).all()
    assert teacher(image()).isfinite().all()
    again = create_teacher("moco_v2_resnet50", pretrained=False)
    assert torch.equal(teacher(image()), again(image()))  # the same network, the same seed
    other = create_teacher("moco_v3_resnet50", pretrained=False, seed=1)
    assert not torch.equal(teacher(image()), other(image()))


def esvit_name(name):
    """Torchvision's name of a Swin tensor -> the one in EsViT's files."""
    name = re.sub(r"^features\.0\.0\.", "patch_embed.proj.", name)
    name = re.sub(r"^features\.0\.2\.", "patch_embed.norm.", name)
    found = re.match(r"features\.(\d)\.(.*)", name)
    if found is None:
        return name
    stage, rest = divmod(int(found[1]) - 1, 2), found[2]
    if stage[1]:
        return f"layers.{stage[0]}.downsample.{rest}"
    rest = rest.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
    return f"layers.{stage[0]}.blocks.{rest}"


def save_esvit(file, network, prefix="", **changes):
    state = {prefix + esvit_name(k): v for k, v in network.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.startswith(f"{prefix}head.")}
    state[f"{prefix}head.mlp.0.weight"] = torch.zeros(2048, 768)
    state[f"{prefix}head.last_layer.weight_g"] = torch.ones(8, 1)
    state[f"{prefix}head_dense.mlp.0.weight"] = torch.zeros(2048, 768)
    state.update(changes)
    content = {
        "student": {f"module.{key}": torch.zeros(1) for key in state},
        "teacher": {key: value for key, value in state.items() if value is not None},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 300,
        "args": argparse.Namespace(arch="swin_tiny", epochs=300),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    torch.save(content, file)
    return file


def swin_levels(network, rgb):
    x, levels = normalized(rgb), []
    for index, part in enumerate(network.features):
        x = part(x)
        if index in (1, 3, 5):
            levels.append(x.permute(0, 3, 1, 2))
    return levels


@pytest.mark.parametrize(("size", "prefix"), [((224, 224), ""), ((224, 448), "module.")])
def test_esvit_files_give_the_features_of_torchvisions_swin(tmp_path, swin, size, prefix):
    file = save_esvit(tmp_path / "checkpoint_best.pth", swin, prefix)
    teacher = TeacherLevels(create_teacher("esvit_swin_t", checkpoint=file), (0, 1, 2))
    with torch.no_grad():
        want = swin_levels(swin, image(*size))
    for got, expected in zip(teacher(image(*size)), want, strict=True):
        assert expected.std() > 0.01
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_other_swins_are_refused(tmp_path, swin, networks):
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    for changes, text in (
        ({table: torch.zeros(27 * 27, 3)}, rf"size mismatch for {table}"),  # window 14
        ({"norm.bias": None}, r"missing norm\.bias"),
        ({"layers.2.blocks.6.norm1.bias": torch.zeros(384)}, r"unexpected layers\.2\.blocks\.6"),
        ({"patch_embed.proj.weight": None}, r"no network under teacher"),
    ):
        file = save_esvit(tmp_path / "checkpoint_best.pth", swin, **changes)
        with pytest.raises(ValueError, match=text):
            load(networks, "esvit_swin_t", file)


def test_a_swin_saved_by_timm_is_understood(tmp_path):
    source = create_teacher("esvit_swin_t", pretrained=False, seed=5)
    torch.save(source.network.state_dict(), tmp_path / "swin.pth")
    teacher = create_teacher("esvit_swin_t", checkpoint=tmp_path / "swin.pth")
    assert torch.equal(teacher(image()), source(image()))
