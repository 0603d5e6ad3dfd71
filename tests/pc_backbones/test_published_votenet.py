"""Files named and laid out as VoteNet and DepthContrast write them."""

import pytest
import torch
from pc_backbones import load_backbone, load_published, save_backbone
from torch.nn import functional

from tests.pc_backbones.published_tensors import minkunet_tensors, random_norm, random_weight
from tests.plain_pointnet2 import PlainPointNet2

VOTENET = ((64, 64, 128), (128, 128, 256), (128, 128, 256), (128, 128, 256))
SMALL = ((6, 8), (8, 10), (8, 9), (7, 9))
LEVELS = {
    "num_centers": (30, 20, 12, 6),
    "radii": (0.5, 0.8, 1.2, 2.0),
    "ball_sizes": (8, 6, 6, 4),
}


def pointnet2_tensors(*, in_dim=1, widths=SMALL, up_widths=((9, 8), (8, 7)), seed=0):
    """VoteNet's `backbone_net`, without any prefix."""
    g = torch.Generator().manual_seed(seed)
    tensors = {}

    def layers(name, in_dim, widths):
        for i, width in enumerate(widths):
            layer = f"{name}.layer{i}"
            tensors[f"{layer}.conv.weight"] = random_weight((width, in_dim, 1, 1), in_dim, g)
            tensors.update(random_norm(f"{layer}.bn.bn", width, g))
            in_dim = width

    skips = [in_dim, *(level[-1] for level in widths)]
    for number, level in enumerate(widths):
        layers(f"sa{number + 1}.mlp_module", 3 + skips[number], level)
    width = skips.pop()
    for number, level in enumerate(up_widths):
        layers(f"fp{number + 1}.mlp", width + skips.pop(), level)
        width = level[-1]
    return tensors


def votenet_tensors(**sizes):
    tensors = {f"backbone_net.{k}": v for k, v in pointnet2_tensors(**sizes).items()}
    others = {
        "vgen.conv1.weight": torch.ones(8, 8, 1),
        "pnet.vote_aggregation.mlp_module.layer0.conv.weight": torch.ones(4, 11, 1, 1),
        "pnet.conv3.bias": torch.ones(5),
    }
    return tensors | others, tuple(others)


def write_votenet(path, tensors):
    content = {
        "epoch": 180,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        "loss": torch.tensor(3.0),
        "model_state_dict": tensors,
    }
    torch.save(content, path / "checkpoint.tar")
    return path / "checkpoint.tar"


def depthcontrast_tensors(*, joint=False, hidden=11, **sizes):
    """Query and key network, with Minkowski ones of a joint training if wished."""
    query, key = (pointnet2_tensors(seed=seed, **sizes) for seed in (0, 1))
    width = sizes["up_widths"][-1][-1]
    for tensors in (query, key):
        tensors["head.clf.0.weight"] = torch.randn(hidden, width)
        tensors["head.clf.0.bias"] = torch.randn(hidden)
        tensors["head.clf.2.weight"] = torch.randn(5, hidden)
        tensors["head.clf.2.bias"] = torch.randn(5)
    trunks = [query, key]
    if joint:
        trunks += [minkunet_tensors(widths=(8,) * 8, stem=8, depths=(1,) * 8)] * 2
    return {
        f"module.trunk.{i}.{name}": value
        for i, tensors in enumerate(trunks)
        for name, value in tensors.items()
    }


def write_depthcontrast(path, tensors):
    content = {
        "epoch": 999,
        "model": tensors,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "train_criterion": {"nce_average.memory_1": torch.ones(5, 7)},
    }
    torch.save(content, path / "checkpoint-ep999.pth.tar")
    return path / "checkpoint-ep999.pth.tar"


def points(in_dim, *sizes):
    g = torch.Generator().manual_seed(2)
    xyz = torch.rand(sum(sizes), 3, generator=g) * 2 + 0.1
    feat = torch.randn(sum(sizes), in_dim, generator=g)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def theirs(tensors, in_dim, widths, up_widths):
    """The dense network with the tensors under their own names."""
    net = PlainPointNet2(in_dim, widths=widths, up_widths=up_widths, **LEVELS).eval()
    renamed = {}
    for name, value in tensors.items():
        side = "encoder" if name.startswith("sa") else "decoder"
        _, _, layer, rest = name.split(".", 3)
        rest = rest.replace("conv.", "linear.").replace("bn.bn.", "norm.")
        renamed[f"{side}.{int(name[2]) - 1}.layers.{layer.removeprefix('layer')}.{rest}"] = value
    net.load_state_dict(renamed)
    return net


def test_votenet(tmp_path):
    tensors, others = votenet_tensors()
    published = load_published(write_votenet(tmp_path, tensors), **LEVELS)
    backbone, head = published
    assert (published.name, head, published.missing) == ("pointnet2", None, ())
    assert published.left_over == others
    assert len(published.used) == len(tensors) - len(others)
    assert not backbone.training
    assert (backbone.in_dim, backbone.out_dim) == (1, 7)
    assert backbone.arguments["skip_origin"] is True
    xyz, feat, batch = points(1, 60, 60)
    with torch.inference_mode():
        expected = theirs(pointnet2_tensors(), 1, SMALL, ((9, 8), (8, 7)))(
            xyz.view(2, 60, 3), feat.view(2, 60, 1)
        )
        ours = backbone(xyz, feat, batch)
    torch.testing.assert_close(ours, expected.flatten(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("joint", [False, True], ids=["points", "points and voxels"])
def test_depthcontrast(tmp_path, joint):
    """The query network is taken; the head is for the maximum over the seeds."""
    sizes = {"in_dim": 0, "widths": SMALL, "up_widths": ((12, 12), (12, 12))}
    tensors = depthcontrast_tensors(joint=joint, **sizes)
    published = load_published(write_depthcontrast(tmp_path, tensors), **LEVELS)
    backbone, head = published
    mine = [name for name in tensors if name.startswith("module.trunk.0.")]
    left = {name.removeprefix("module.") for name in tensors if name not in mine}
    assert set(published.left_over) == left
    assert len(published.used) == len(mine)
    assert published.missing == ()
    assert (backbone.in_dim, backbone.out_dim) == (0, 12)
    xyz, feat, batch = points(0, 60)
    with torch.inference_mode():
        own = pointnet2_tensors(**sizes)
        ours = backbone(xyz, feat, batch)
        torch.testing.assert_close(ours, theirs(own, **sizes)(xyz[None], feat[None])[0])
        top = backbone.forward_seeds(xyz, feat, batch)[1].amax(0, keepdim=True)
        w0, b0, w2, b2 = (value for name, value in tensors.items() if "trunk.0.head" in name)
        hidden = functional.linear(top, w0, b0).relu()
        torch.testing.assert_close(head(top), functional.linear(hidden, w2, b2))


@pytest.mark.parametrize(
    ("in_dim", "up", "count"), [(1, 256, 641_920), (0, 256, 641_856), (0, 512, 1_430_336)]
)
def test_published_sizes(tmp_path, in_dim, up, count):
    sizes = {"in_dim": in_dim, "widths": VOTENET, "up_widths": ((up, up), (up, up))}
    if up == 256:
        file = write_votenet(tmp_path, votenet_tensors(**sizes)[0])
    else:
        file = write_depthcontrast(tmp_path, depthcontrast_tensors(hidden=512, **sizes))
    backbone, head = load_published(file)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == count
    assert backbone.arguments["num_centers"] == (2048, 1024, 512, 256)
    assert (head is None) == (up == 256)
    save_backbone(tmp_path / "b", backbone, name="pointnet2", arguments=backbone.arguments, card={})
    assert load_backbone(tmp_path / "b").arguments["in_dim"] == in_dim


def test_without_step_counters(tmp_path):
    """As fine-tuning code drops them."""
    tensors = {k: v for k, v in votenet_tensors()[0].items() if "num_batches" not in k}
    published = load_published(write_votenet(tmp_path, tensors), **LEVELS)
    assert len(published.missing) == 12
    assert all(name.endswith("num_batches_tracked") for name in published.missing)


def test_overrides(tmp_path):
    file = write_votenet(tmp_path, votenet_tensors()[0])
    backbone, _ = load_published(file, skip_origin=False, **LEVELS)
    assert backbone.arguments["skip_origin"] is False
    assert backbone.arguments["radii"] == LEVELS["radii"]


def _without(part):
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


def _with(name, value):
    return lambda tensors: tensors | {name: value}


FIRST = "backbone_net.sa1.mlp_module.layer0.conv.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("sa1."), "first layer of PointNet.. .sa1.mlp_module. is missing"),
        (_without("sa4."), "num_centers, radii, ball_sizes and widths must have one entry a level"),
        (_without("fp2.mlp.layer0.conv"), "a layer of PointNet.. .decoder.1.layers.0. is missing"),
        (_with(FIRST, torch.ones(6, 2, 1, 1)), "first layer of sa1 takes no coordinates"),
        (_with(FIRST, torch.ones(6)), "convolution of PointNet.. has fewer than two axes"),
        (
            _with("backbone_net.fp1.mlp.layer0.conv.weight", torch.ones(9, 5, 1, 1)),
            r"1 wrong shape: decoder.0.layers.0.linear.weight \(9, 5, 1, 1\) instead of \(9, 18\)",
        ),
        (
            _with("backbone_net.sa1.mlp_module.layer0.conv.bias", torch.ones(6)),
            "1 unexpected: encoder.0.layers.0.linear.bias",
        ),
        (_with("other.fp1.mlp.layer0.conv.weight", torch.ones(1)), "2 networks of one kind"),
        (_with("backbone_net.head.clf.0.weight", torch.ones(3, 7)), "not the published one of two"),
    ],
)
def test_wrong_files(tmp_path, change, message):
    file = write_votenet(tmp_path, change(votenet_tensors()[0]))
    with pytest.raises(ValueError, match=message):
        load_published(file, **LEVELS)
