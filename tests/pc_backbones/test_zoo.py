"""Names, and what is said about wrong ones."""

import pytest
import torch
from pc_backbones import WaffleIron, create_backbone, list_backbones
from pc_backbones.heads import linear_probe_head, mlp_head, two_conv_head


def test_names_are_sorted_and_unique():
    names = list_backbones()
    assert names == sorted(set(names))
    assert {"inputs", "waffleiron_48_768", "spunet34", "minkunet34_cylindrical"} < set(names)
    assert {"pointnet2_votenet", "pointnet2_depthcontrast", "pointnet2_small"} < set(names)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("waffleiron_48_786", "waffleiron_48_768"),
        ("WaffleIron", "waffleiron"),
        ("?", "inputs"),
        ("spunet43", "spunet34"),
        ("MinkUNet34", "minkunet34"),
        ("pointnet++", "pointnet2"),
    ],
)
def test_unknown_name(wrong, nearest):
    with pytest.raises(ValueError, match=f"no backbone is called .*nearest are: .*{nearest}"):
        create_backbone(wrong, 5)


def test_unknown_argument():
    with pytest.raises(ValueError, match=r"waffleiron has no argument 'dept'; .*: depth"):
        create_backbone("waffleiron", 5, dept=3)
    with pytest.raises(ValueError, match=r"inputs has no argument 'depth'; .* are: fov, num_neigh"):
        create_backbone("inputs", 5, depth=3)
    with pytest.raises(ValueError, match=r"spunet34 has no argument 'voxelsize'; .*: voxel_size"):
        create_backbone("spunet34", 5, voxelsize=0.1)


def test_overrides_reach_the_network():
    backbone = create_backbone("waffleiron_48_384", 4, depth=2, channels=6)
    assert isinstance(backbone, WaffleIron)
    assert (backbone.in_dim, backbone.out_dim, len(backbone.layers)) == (4, 6, 2)
    assert backbone.arguments["layer_norm"] is False


def test_names_of_sparse_networks_differ_in_their_arguments():
    with torch.device("meta"):
        spunet, minkunet = create_backbone("spunet34", 6), create_backbone("minkunet34", 1)
        cylindrical = create_backbone("minkunet34_cylindrical", 1, voxel_size=0.2)
    assert spunet.voxel_size == 0.02
    assert minkunet.voxel_size == 0.1
    assert cylindrical.arguments == {
        **minkunet.arguments,
        "cylindrical": True,
        "voxel_size": 0.2,
    }
    assert spunet.arguments["pooling"] == "mean"
    assert minkunet.arguments["pooling"] == "first"


def test_network_after_js3c_net():
    with torch.device("meta"):
        net = create_backbone("spunet_js3c", 1)
    assert (net.voxel_size, net.out_dim, len(net.encoder)) == (0.1, 16, 6)
    kernels = [stage.down.conv.weight.shape for stage in net.encoder]
    assert [tuple(shape) for shape in kernels] == [
        (width + 16, 2, 2, 2, width) for width in (16, 32, 48, 64, 80, 96)
    ]
    assert all(len(stage.blocks) == 1 for stage in (*net.encoder, *net.decoder))
    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)} == {1e-4}


def test_input_features_need_no_box():
    backbone = create_backbone("inputs", 6, fov=None, num_neighbors=0)
    assert backbone.fov is None
    assert create_backbone("inputs", **backbone.arguments).arguments == backbone.arguments


def test_linear_probe_head_starts_undecided():
    head = linear_probe_head(6, 3)
    assert all(not parameter.any() for parameter in head[1].parameters())
    assert head[0].num_features == 6


def test_mlp_head_widths():
    head = mlp_head(6, 7, 3)
    assert [tuple(layer.weight.shape) for layer in head if hasattr(layer, "weight")] == [
        (7, 6),
        (3, 7),
    ]


def test_decoder_of_two_convolutions():
    head = two_conv_head(6, 3).eval()
    shapes = [tuple(layer.weight.shape) for layer in head if layer is not head[2]]
    assert shapes == [(6, 6), (6,), (3, 6)]
    feat = torch.randn(5, 6)
    hidden = torch.relu(head[1](feat @ head[0].weight.T))
    torch.testing.assert_close(head(feat), hidden @ head[3].weight.T + head[3].bias)
