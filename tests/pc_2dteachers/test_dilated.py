import pytest
import timm
import torch
from pc_2dteachers import TeacherLevels, create_teacher
from pc_2dteachers.dilated import replace_strides
from torchvision.models import resnet50

NAME = "moco_v2_resnet50_dilated"


def image(height=64, width=96):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def normalized(rgb):
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    return (rgb - mean) / std


@pytest.fixture(scope="module")
def torchvisions():
    """An independent dilated ResNet-50 with random weights and statistics."""
    torch.manual_seed(3)
    network = resnet50(replace_stride_with_dilation=[True, True, True]).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
    return network


def torchvision_stages(network, x):
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    stages = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        stages.append(x)
    return stages


def encoder(network, prefix=""):
    state = network.state_dict()
    return {prefix + k: v.clone() for k, v in state.items() if not k.startswith("fc.")}


def slidr_file(path, network, **images):
    """The layout of the released file with the image model."""
    content = {
        "model_points": {"conv0p1s1.kernel": torch.zeros(27, 1, 32)},
        "model_images": {
            **encoder(network, "encoder."),
            "encoder.fc.weight": torch.zeros(1000, 2048),
            "decoder.0.weight": torch.zeros(64, 2048, 1, 1),
            "decoder.0.bias": torch.zeros(64),
            **images,
        },
        "epoch": 49,
        "config": {"name": "slidr", "lr": 0.5, "image_weights": "moco_v2", "crop": [224, 416]},
    }
    torch.save(content, path)
    return path


def moco_file(path, network):
    state = encoder(network, "module.encoder_q.")
    state["module.encoder_q.fc.0.weight"] = torch.zeros(2048, 2048)
    state["module.queue"] = torch.zeros(128, 64)
    torch.save({"epoch": 800, "state_dict": state}, path)
    return path


@pytest.mark.parametrize("save", [slidr_file, moco_file])
def test_files_give_the_features_of_torchvisions_dilated_resnet(tmp_path, torchvisions, save):
    teacher = create_teacher(NAME, checkpoint=save(tmp_path / "file.pt", torchvisions))
    assert (teacher.out_dim, teacher.stride) == (2048, 4)
    with torch.no_grad():
        want = torchvision_stages(torchvisions, normalized(image()))[-1]
    assert want.shape == (1, 2048, 16, 24)
    assert want.std() > 0.01
    torch.testing.assert_close(teacher(image()), want, rtol=1e-4, atol=1e-4 * float(want.std()))


def test_every_stage_in_double_precision(torchvisions):
    network = timm.create_model("resnet50", num_classes=0)
    network.load_state_dict(encoder(torchvisions))
    replace_strides(network.double().eval())
    x = normalized(image(40, 56)).double()
    with torch.no_grad():
        want = torchvision_stages(torchvisions.double(), x)
        got = network.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
    torchvisions.float()
    for one, expected in zip(got, want, strict=True):
        assert one.shape[2:] == (10, 14)
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-10)


def test_every_eighth_cell_is_the_plain_networks_where_no_border_is_near():
    """Dilation by d on the fine grid is the plain network on each of its d x d cosets."""
    plain = create_teacher("moco_v2_resnet50", pretrained=False, level=2)
    fine = create_teacher(NAME, pretrained=False, level=2)  # the same weights by the same seed
    assert (plain.stride, fine.stride) == (8, 4)
    got, want = fine(image(128, 128))[:, :, ::2, ::2], plain(image(128, 128))
    inner = (..., slice(5, -5), slice(5, -5))
    torch.testing.assert_close(got[inner], want[inner], rtol=1e-4, atol=1e-4)


def test_levels_and_strides_of_the_teacher():
    teacher = create_teacher(NAME, pretrained=False)
    assert teacher(image(20, 28)).shape == (1, 2048, 5, 7)
    with pytest.raises(ValueError, match=r"multiples of 4, got 21x28"):
        teacher(image(21, 28))
    levels = TeacherLevels(teacher, (1, 2, 3, 4))
    assert (levels.stride, levels.out_dim) == (4, 256 + 512 + 1024 + 2048)
    assert {tuple(one.shape[2:]) for one in levels(image(20, 28))} == {(5, 7)}


def test_an_image_model_without_its_encoder_is_refused(tmp_path, torchvisions):
    changed = slidr_file(
        tmp_path / "wrong.pt", torchvisions, **{"encoder.conv1.weight": torch.zeros(64, 3, 3, 3)}
    )
    with pytest.raises(ValueError, match=r"wrong\.pt: .*size mismatch for conv1\.weight"):
        create_teacher(NAME, checkpoint=changed)
    torch.save({"model_images": {"decoder.0.bias": torch.zeros(64)}}, tmp_path / "none.pt")
    text = r"none\.pt: holds no network under model_images\.encoder\.\* \(no conv1\.weight\)"
    with pytest.raises(ValueError, match=text):
        create_teacher(NAME, checkpoint=tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("name", "options", "where"),
    [
        ("resnet50d", {}, "layer2 of ResNet"),
        ("resnet18", {}, "layer2 of ResNet"),
        ("convnext_atto", {}, "layer2 of ConvNeXt"),
        ("resnet50", {"output_stride": 8}, "layer3 of ResNet"),
    ],
)
def test_other_networks_are_refused_unchanged(name, options, where):
    network = timm.create_model(name, num_classes=0, **options)
    before = str(network)
    with pytest.raises(ValueError, match=rf"trade its strides for dilation, but {where}"):
        replace_strides(network)
    assert str(network) == before
