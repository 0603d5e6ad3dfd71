"""The convolutions on a map, against torch's own, and what cannot be joined."""

import pytest
import torch
from pc_backbones.rpn import RegionProposalNetwork
from torch.nn import functional

WAYMO = {
    "widths": (64, 128, 256),
    "depths": (3, 5, 5),
    "strides": (1, 2, 2),
    "up_widths": (128, 128, 128),
    "up_strides": (1, 2, 4),
}
NUSCENES = WAYMO | {"strides": (2, 2, 2), "up_strides": (0.5, 1, 2)}
TINY = {"widths": (3, 5), "depths": (1, 0), "up_widths": (4, 2)}


def network(in_dim=3, **arguments):
    torch.manual_seed(0)
    net = RegionProposalNetwork(in_dim, **arguments).double()
    for name, value in net.state_dict().items():
        if name.endswith(("norm.weight", "running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("norm.bias", "running_mean")):
            value.uniform_(-0.3, 0.3)
    return net


@pytest.mark.parametrize("training", [False, True])
def test_strides_1_and_2(training):
    net = network(**TINY, strides=(1, 2), up_strides=(1, 2)).train(training)
    values = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    w = {name: value.clone() for name, value in net.state_dict().items()}

    def norm_relu(x, name):
        statistics = (None, None) if training else (w[f"{name}.running_mean"],
                                                    w[f"{name}.running_var"])  # fmt: skip
        affine = (w[f"{name}.weight"], w[f"{name}.bias"])
        return functional.batch_norm(x, *statistics, *affine, training, eps=1e-3).relu()

    def block(x, name, stride):
        x = functional.conv2d(
            functional.pad(x, (1, 1, 1, 1)), w[f"{name}.conv.weight"], None, stride
        )
        return norm_relu(x, f"{name}.norm")

    fine = block(block(values, "blocks.0.0", 1), "blocks.0.1", 1)
    coarse = block(fine, "blocks.1.0", 2)
    up0 = functional.conv2d(fine, w["ups.0.conv.weight"])
    up1 = functional.conv_transpose2d(coarse, w["ups.1.conv.weight"], None, 2)
    expected = torch.cat([norm_relu(up0, "ups.0.norm"), norm_relu(up1, "ups.1.norm")], 1)
    torch.testing.assert_close(net(values), expected)
    assert w["ups.1.conv.weight"].shape == (5, 2, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "size", "stride"),
    [(WAYMO, 468, 1), (NUSCENES, 512, 4)],
    ids=["Waymo", "nuScenes"],
)
def test_published_layers(arguments, size, stride):
    with torch.device("meta"):
        net = RegionProposalNetwork(64, **arguments)
    assert (net.out_dim, net.stride) == (384, stride)
    assert net.map_size(size) == size // stride
    assert net(torch.empty(1, 64, 16, 16, device="meta")).shape[2:] == (16 // stride,) * 2
    kernels = [tuple(up.conv.weight.shape) for up in net.ups]
    if stride == 1:
        assert kernels == [(128, 64, 1, 1), (128, 128, 2, 2), (256, 128, 4, 4)]
    else:
        assert kernels == [(128, 64, 2, 2), (128, 128, 1, 1), (256, 128, 2, 2)]
    assert [len(block) for block in net.blocks] == [4, 6, 6]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)
        elif hasattr(module, "weight"):
            assert module.bias is None


@pytest.mark.parametrize("size", [4, 6, 20])
def test_map_size_is_what_comes_out(size):
    net = network(**TINY, strides=(1, 2), up_strides=(2, 4)).eval()
    assert net.stride == 0.5
    out = net(torch.randn(1, 3, size, size, dtype=torch.float64))
    assert out.shape == (1, 6, net.map_size(size), net.map_size(size))


@pytest.mark.parametrize(("size", "least"), [(5, 2), (2, 2), (7, 2)])
def test_map_that_does_not_divide(size, least):
    net = network(**TINY, strides=(1, 2), up_strides=(1, 2))
    with pytest.raises(ValueError, match=f"a map of {size} cells .* multiple of {least} cells"):
        net.map_size(size)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depths": (1,)}, r"one number a block; they have \[2, 1, 2, 2, 2\]"),
        ({"widths": (3, 0)}, "widths and strides must be at least 1"),
        ({"strides": (0, 2)}, "widths and strides must be at least 1"),
        ({"depths": (1, -1)}, "depths not negative"),
        ({"up_strides": (1, 1.5)}, "whole numbers or 1 over one, got 1.5"),
        ({"up_strides": (1, 0)}, "whole numbers or 1 over one, got 0"),
        ({"up_strides": (1, 4)}, r"\(1, 2\) and up_strides \(1, 4\) end at cells of 1, 0.5 cells"),
    ],
)
def test_wrong_arguments(wrong, message):
    arguments = TINY | {"strides": (1, 2), "up_strides": (1, 2)} | wrong
    with pytest.raises(ValueError, match=message):
        RegionProposalNetwork(3, **arguments)
