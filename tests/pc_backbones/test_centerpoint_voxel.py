"""The sparse encoder against conv3d on the whole box."""

import pytest
import torch
from pc_backbones import create_backbone
from pc_backbones.centerpoint_voxel import CenterPointVoxel
from pc_backbones.sparse_conv import SparseConv
from torch.nn import functional

FOV = ((-8, -4, -1), (8, 4, 2))
TINY = {
    "fov": FOV,
    "cell_size": (0.5, 0.5, 0.25),
    "encoder_widths": (3, 4, 5),
    "widths": (4, 6),
    "depths": (1, 0),
    "strides": (1, 2),
    "up_widths": (3, 4),
    "up_strides": (1, 2),
}


def network(**overrides):
    torch.manual_seed(0)
    net = CenterPointVoxel(4, **(TINY | overrides)).double()
    for name, value in net.state_dict().items():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("norm.bias", "norm1.bias", "norm2.bias", "running_mean")):
            value.uniform_(-0.3, 0.3)
    return net


def points(*sizes):
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(FOV[0]), torch.tensor(FOV[1])
    place = torch.rand(sum(sizes), 3, generator=generator, dtype=torch.float64)
    xyz = low + place * (high - low)
    feat = torch.cat([xyz, torch.rand(sum(sizes), 1, generator=generator).double()], dim=1)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


class Dense:
    """The encoder on the whole box [b c x y z], of which the occupied voxels count."""

    def __init__(self, xyz, feat, batch, num_scans):
        x, y, z = ((xyz - xyz.new_tensor(FOV[0])) / xyz.new_tensor([0.5, 0.5, 0.25])).long().T
        one = xyz.new_ones(len(xyz), 1)
        total = xyz.new_zeros(num_scans, 32, 16, 13, 5)
        total.index_put_((batch, x, y, z), torch.cat([feat, one], dim=1), accumulate=True)
        self.occupied = total[..., 4] > 0
        mean = total[..., :4] / total[..., 4:].clamp(min=1)
        self.values = mean.permute(0, 4, 1, 2, 3)

    def convolve(self, conv, stride=(1, 1, 1), padding=(1, 1, 1), submanifold=True):
        kernel = conv.weight.permute(0, 4, 1, 2, 3)
        values = functional.conv3d(self.values, kernel, conv.bias, stride, padding)
        if not submanifold:
            ones = torch.ones_like(kernel[:1, :1])
            found = functional.conv3d(self.occupied[:, None].double(), ones, None, stride, padding)
            self.occupied = found[:, 0] > 0.5
        self.values = values * self.occupied[:, None]

    def norm(self, norm, relu=True, shortcut=0):
        rows = norm(self.values.permute(0, 2, 3, 4, 1)[self.occupied])
        values = torch.zeros_like(self.values).permute(0, 2, 3, 4, 1).contiguous()
        values[self.occupied] = rows
        self.values = values.permute(0, 4, 1, 2, 3) + shortcut
        if relu:
            self.values = self.values.relu()

    def encode(self, net):
        self.convolve(net.stem.conv)
        self.norm(net.stem.norm)
        for number, stage in enumerate(net.stages):
            if number:
                padding = (1, 1, 0 if number == len(net.stages) - 1 else 1)
                self.convolve(stage.down.conv, (2, 2, 2), padding, submanifold=False)
                self.norm(stage.down.norm)
            for block in stage.blocks:
                shortcut = self.values
                self.convolve(block.conv1)
                self.norm(block.norm1)
                self.convolve(block.conv2)
                self.norm(block.norm2, shortcut=shortcut)
        self.convolve(net.flatten.conv, (1, 1, 2), (0, 0, 0), submanifold=False)
        self.norm(net.flatten.norm)
        # [b c x y z] -> [b (c z) y x]
        return self.values.permute(0, 1, 4, 3, 2).flatten(1, 2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sizes", [(60, 0, 40), (3,)], ids=["three scans", "three points"])
def test_encoder_is_dense_convolution(training, sizes):
    net = network().train(training)
    xyz, feat, batch = points(*sizes)
    feat.requires_grad_()
    ours = net.forward_map(xyz, feat, batch)
    encoded = Dense(xyz, feat, batch, len(sizes)).encode(net)
    assert encoded.shape == (len(sizes), 5, 4, 8)
    expected = net.rpn(encoded)
    torch.testing.assert_close(ours, expected)
    weight = torch.randn_like(expected)
    inputs = [feat, *net.parameters()]
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    if not training:  # in training, a norm takes any bias before it away
        biases = [grad for grad, p in zip(mine[1:], net.parameters(), strict=True) if p.ndim == 1]
        assert all(grad.any() for grad in biases)


def test_voxels_hold_the_mean_of_all_points():
    net = network().eval()
    xyz, feat, batch = points(40)
    many = xyz.repeat(50, 1)
    noise = torch.randn(50, 40, 4, dtype=torch.float64)
    noise -= noise.mean(0)
    out = net(many, (feat + noise).flatten(0, 1), batch.repeat(50))
    torch.testing.assert_close(out[:40], net(xyz, feat, batch))


@pytest.mark.parametrize(
    ("name", "shape", "map_shape", "map_cell"),
    [
        ("centerpoint_voxel", (1504, 1504, 40), (188, 188), 0.8),
        ("centerpoint_voxel_waymo", (1504, 1504, 40), (188, 188), 0.8),
        ("centerpoint_voxel_once", (1504, 1504, 40), (188, 188), 0.8),
        ("centerpoint_voxel_nuscenes", (1440, 1440, 40), (180, 180), 0.6),
        ("centerpoint_voxel_nuscenes_01", (1024, 1024, 40), (128, 128), 0.8),
    ],
)
def test_variants(name, shape, map_shape, map_cell):
    with torch.device("meta"):
        net = create_backbone(name, 5)
    assert net.box.shape == shape
    assert net.map_shape == map_shape
    assert net.map_cell == pytest.approx((map_cell, map_cell))
    assert net.out_dim == 512
    assert net.rpn.blocks[0][0].conv.weight.shape == (128, 256, 3, 3)
    assert sum(parameter.numel() for parameter in net.parameters()) == 7_272_080
    assert [len(stage.blocks) for stage in net.stages] == [2, 2, 2, 2]
    kernels = [stage.down.conv.weight.shape for stage in list(net.stages)[1:]]
    assert kernels == [(32, 3, 3, 3, 16), (64, 3, 3, 3, 32), (128, 3, 3, 3, 64)]
    assert net.flatten.conv.weight.shape == (128, 1, 1, 3, 128)
    for name, module in net.named_modules():
        if isinstance(module, SparseConv):
            assert (module.bias is not None) == (".blocks." in name), name
        elif isinstance(module, torch.nn.BatchNorm1d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize("num_cells", [40, 41, 24, 56])
def test_no_voxel_is_lost_on_the_way_up(num_cells):
    """A point anywhere changes the map: in the lowest voxel and in the highest."""
    fov = ((0, 0, 0), (8, 8, num_cells))
    widths = (3, 3, 3, 3)
    net = network(fov=fov, cell_size=(0.25, 0.25, 1), encoder_widths=widths).eval()
    empty = net.forward_map(*(torch.zeros(0, n).double() for n in (3, 4)), torch.zeros(0).long(),
                            num_scans=1)  # fmt: skip
    for height in (0.5, num_cells - 0.5):
        xyz = torch.tensor([[2.1, 2.1, height]], dtype=torch.float64)
        values = net.forward_map(xyz, torch.ones(1, 4).double(), torch.tensor([0]))
        assert not torch.allclose(values, empty)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder_widths": ()}, r"encoder_widths must be positive, got \(\)"),
        ({"encoder_widths": (3, 0)}, "encoder_widths must be positive"),
        (
            {"cell_size": (0.5, 0.5, 0.1)},
            "of 30 voxels along z the uppermost .* 4 times",
        ),
        ({"cell_size": (0.5, 0.5, 1)}, "of 3 voxels along z .* 12 or more, as the published 20"),
        ({"cell_size": (0.7, 0.5, 0.25)}, "whole numbers"),
        ({"fov": ((0, 0), (1, 1))}, "fov must be a lower and a higher corner"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**wrong)
