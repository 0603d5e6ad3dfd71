"""Cylinder3D against conv3d on all its cells."""

import math

import numpy as np
import pytest
import torch
from pc_backbones import create_backbone, load_backbone, save_backbone
from pc_backbones.cylinder3d import Cylinder3D
from pc_backbones.cylinder_blocks import (
    FAN,
    LINES,
    SHELL,
    ReturnConv,
    down_rules,
    part_rules,
)
from pc_backbones.sparse_conv import StridedConv, SubmanifoldConv, submanifold_rules
from pc_backbones.voxels import find_voxels
from torch.nn import functional

LOW, HIGH = (0.0, -math.pi, -3.0), (50.0, math.pi, 3.0)
TINY = {
    "grid_shape": (9, 8, 5),
    "point_widths": (5, 6),
    "cell_width": 3,
    "base_width": 2,
    "strides": ((2, 2, 2), (2, 2, 1)),
    "out_dim": 4,
}


def network(in_dim=1, **overrides):
    torch.manual_seed(0)
    net = Cylinder3D(in_dim, **(TINY | overrides)).double()
    for name, value in net.state_dict().items():
        if ".norm" in name or name.startswith("points.layers.1."):
            if name.endswith(("weight", "running_var")):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("bias", "running_mean")):
                value.uniform_(-0.3, 0.3)
    return net


def points(*sizes, in_dim=1):
    generator = torch.Generator().manual_seed(0)
    xyz = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    feat = torch.rand(sum(sizes), in_dim, generator=generator, dtype=torch.float64)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return xyz * torch.tensor([22.0, 22, 1.5]), feat, batch


def scattered(*sizes):
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 7, (sum(sizes), 3), generator=generator)
    return find_voxels(cells, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)))[0]


def to_dense(feat, grid):
    dense = feat.new_zeros(grid.num_scans, *grid.shape, feat.shape[1])
    return dense.index_put(tuple(grid.indices.long().T), feat).permute(0, 4, 1, 2, 3)


def at_voxels(dense, grid):
    return dense.permute(0, 2, 3, 4, 1)[tuple(grid.indices.long().T)]


def same_with_gradients(ours, dense, inputs):
    torch.testing.assert_close(ours, dense)
    weight = torch.randn_like(dense)
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((dense * weight).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sizes", [(90, 0, 60), (1,), (1, 1)])
@pytest.mark.parametrize("kernel_size", [SHELL, FAN, *LINES, (3, 3, 3), (1, 1, 1)])
def test_parts_of_a_cube(sizes, kernel_size):
    grid = scattered(*sizes)
    conv = SubmanifoldConv(3, 4, kernel_size).double()
    feat = torch.randn(len(grid.indices), 3, dtype=torch.float64, requires_grad=True)
    cube = submanifold_rules(grid, 3)
    before = [table.clone() for table in cube.tables]
    ours = conv(feat, part_rules(cube, kernel_size))
    padding = tuple(size // 2 for size in kernel_size)
    kernel = conv.weight.permute(0, 4, 1, 2, 3)
    dense = functional.conv3d(to_dense(feat, grid), kernel, padding=padding)
    same_with_gradients(ours, at_voxels(dense, grid), [feat, conv.weight])
    assert all(map(torch.equal, before, cube.tables))


@pytest.mark.parametrize("sizes", [(90, 0, 60), (1,)])
@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 2, 1)])
def test_down_and_back(sizes, stride):
    grid = scattered(*sizes)._replace(shape=(7, 8, 9))
    rules = down_rules(grid, stride)
    down, back = StridedConv(3, 4, 3).double(), ReturnConv(4, 2).double()
    feat = torch.randn(len(grid.indices), 3, dtype=torch.float64, requires_grad=True)
    coarse = down(feat, rules)
    kernel = down.weight.permute(0, 4, 1, 2, 3)
    dense = functional.conv3d(to_dense(feat, grid), kernel, stride=stride, padding=1)
    assert dense.shape[2:] == rules.target.shape
    same_with_gradients(coarse, at_voxels(dense, rules.target), [feat, down.weight])
    coarse = coarse.detach().requires_grad_()
    ours = back(coarse, rules)
    kernel = back.weight.permute(4, 0, 1, 2, 3)
    # The padding at the far side that makes the sizes of the fine grid.
    sizes = zip(grid.shape, dense.shape[2:], stride, strict=True)
    extra = [fine - ((made - 1) * step + 1) for fine, made, step in sizes]
    wide = functional.conv_transpose3d(
        to_dense(coarse, rules.target), kernel, stride=stride, padding=1, output_padding=extra
    )
    same_with_gradients(ours, at_voxels(wide, grid), [coarse, back.weight])


class Dense:
    """The network on all cells [b c rho phi z], of which the occupied ones count."""

    def __init__(self, net, num_scans):
        self.net, self.num_scans = net, num_scans

    def point_inputs(self, xyz, feat):
        """Cells as the authors compute them, and what they know of each point."""
        x, y, z = xyz.numpy().T
        polar = np.stack([np.sqrt(x**2 + y**2), np.arctan2(y, x), z], axis=1)
        low, high = np.array(LOW), np.array(HIGH)
        interval = (high - low) / (np.array(TINY["grid_shape"]) - 1)
        cells = np.floor((np.clip(polar, low, high) - low) / interval).astype(int)
        offset = polar - (low + (cells + 0.5) * interval)
        parts = [offset, polar, xyz[:, :2]] if self.net.arguments["offsets"] else [polar]
        given = np.concatenate(parts, axis=1)
        return torch.from_numpy(cells), torch.cat([torch.from_numpy(given), feat], dim=1)

    def convolve(self, values, conv, occupied):
        kernel = conv.weight.permute(0, 4, 1, 2, 3)
        padding = [size // 2 for size in kernel.shape[2:]]
        return functional.conv3d(values, kernel, conv.bias, padding=padding) * occupied[:, None]

    def norm(self, values, norm, occupied):
        rows = norm(values.permute(0, 2, 3, 4, 1)[occupied])
        dense = torch.zeros_like(values).permute(0, 2, 3, 4, 1).contiguous()
        dense[occupied] = rows
        return dense.permute(0, 4, 1, 2, 3)

    def layer(self, values, layer, occupied):
        values = functional.leaky_relu(self.convolve(values, layer.conv, occupied), 0.01)
        return self.norm(values, layer.norm, occupied)

    def cross(self, values, block, occupied):
        one = self.layer(values, block.shell, occupied)
        two = self.layer(values, block.fan, occupied)
        one = self.layer(one, block.shell_to_fan, occupied)
        return one + self.layer(two, block.fan_to_shell, occupied)

    def run(self, xyz, feat, batch):
        net = self.net
        cells, feat = self.point_inputs(xyz, feat)
        feat = net.points.layers(net.points.norm(feat))
        where = (batch, *cells.T)
        occupied = torch.zeros(self.num_scans, *TINY["grid_shape"], dtype=torch.bool)
        occupied[where] = True
        mine = [(torch.stack(where, 1) == place).all(1) for place in occupied.nonzero()]
        largest = torch.stack([feat[rows].amax(0) for rows in mine])
        values = feat.new_zeros(*occupied.shape, TINY["cell_width"])
        values[occupied] = net.points.compress(largest).relu()
        values = self.cross(values.permute(0, 4, 1, 2, 3), net.stem, occupied)
        passed = []
        for block, stride in zip(net.encoder, TINY["strides"], strict=True):
            skip = self.cross(values, block.cross, occupied)
            passed.append((skip, occupied, stride))
            kernel = block.down.weight.permute(0, 4, 1, 2, 3)
            values = functional.conv3d(skip, kernel, stride=stride, padding=1)
            ones = torch.ones_like(kernel[:1, :1])
            found = functional.conv3d(occupied[:, None].double(), ones, stride=stride, padding=1)
            occupied = found[:, 0] > 0.5
        for block in net.decoder:
            values = self.layer(values, block.coarse, occupied)
            skip, occupied, stride = passed.pop()
            kernel = block.up.weight.permute(4, 0, 1, 2, 3)
            sizes = zip(skip.shape[2:], values.shape[2:], stride, strict=True)
            extra = [fine - ((made - 1) * step + 1) for fine, made, step in sizes]
            values = functional.conv_transpose3d(
                values, kernel, stride=stride, padding=1, output_padding=extra
            )
            values = values * occupied[:, None] + skip
            for layer in (block.shell, block.fan, block.cube):
                values = self.layer(values, layer, occupied)
        weights = [
            self.norm(self.convolve(values, conv, occupied), norm, occupied).sigmoid()
            for conv, norm in zip(net.decomposition.convs, net.decomposition.norms, strict=True)
        ]
        values = torch.cat([values * sum(weights), values], dim=1)
        out = self.convolve(values, net.final, occupied)
        return out.permute(0, 2, 3, 4, 1)[where]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("sizes", [(60, 0, 40), (3,), (1,)])
def test_network_is_dense_convolution(training, offsets, sizes):
    net = network(offsets=offsets).train(training)
    xyz, feat, batch = points(*sizes)
    xyz[:2] = xyz[:1]  # the same place twice
    feat.requires_grad_()
    ours = net(xyz, feat, batch)
    expected = Dense(net, len(sizes)).run(xyz, feat, batch)
    assert ours.shape == (sum(sizes), 4)
    torch.testing.assert_close(ours, expected)
    weight = torch.randn_like(expected)
    inputs = [feat, *net.parameters()]
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_cells_of_points():
    """One cell an axis, the last, holds what lies past the range and nothing else."""
    net = create_backbone("cylinder3d", 1, base_width=1)
    step = 50 / 479
    xyz = torch.tensor(
        [
            [0.0, 0, -3],
            [step * 1.5, 0, -3 + 1.5 * 6 / 31],
            [-10, 1e-6, 0],  # both sides of the seam
            [-10, -1e-6, 0],
            [49.9, 0, 2.99],
            [60, 0, 9],
            [900, 0, -9],
        ]
    )
    cells, geometry = net._locate(xyz)
    middle = int(359 / 2)  # azimuth 0 is in the middle of its cell
    assert cells.tolist() == [
        [0, middle, 0],
        [1, middle, 1],
        [95, 358, 15],
        [95, 0, 15],
        [478, middle, 30],
        [479, middle, 31],
        [479, middle, 0],
    ]
    torch.testing.assert_close(geometry[1, :3], geometry.new_zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(geometry[5, 3:], geometry.new_tensor([60, 0, 9, 60, 0]))
    plain = create_backbone("cylinder3d_csc", 1, base_width=1)._locate(xyz)[1]
    assert torch.equal(plain, geometry[:, 3:6])


def test_points_of_a_cell_share_its_feature():
    net = network().eval()
    xyz, feat, batch = points(30)
    net_cells = net._locate(xyz)[0]
    out = net(xyz, feat, batch)
    _, cell = net_cells.unique(dim=0, return_inverse=True)
    assert cell.max() + 1 < len(xyz)
    for number in range(int(cell.max()) + 1):
        assert (out[cell == number] == out[cell == number][0]).all()


def test_far_points_count():
    """Past 50 m, as high or low as may be: a feature, and it depends on the point."""
    net = network().eval()
    xyz = torch.tensor([[400.0, 30, 90], [-80, 0, -50], [3, 3, 0]]).double()
    feat = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    out = net(xyz, feat, torch.zeros(3).long())
    assert out.isfinite().all()
    (grad,) = torch.autograd.grad(out.square().sum(), feat)
    assert (grad != 0).any(1).all()


def test_order_of_points_does_not_matter():
    net = network().eval()
    xyz, feat, batch = points(2000)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    shuffled = net(xyz[order], feat[order], batch)
    torch.testing.assert_close(shuffled, net(xyz, feat, batch)[order])


def test_twice_the_points_are_the_same_scan():
    net = network().eval()
    xyz, feat, batch = points(50)
    twice = net(xyz.repeat(2, 1), feat.repeat(2, 1), batch.repeat(2))
    torch.testing.assert_close(twice, net(xyz, feat, batch).repeat(2, 1))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_training_on_few_points_and_none(size):
    net = network().train()
    xyz, feat, batch = points(3)
    out = net(xyz[:1].repeat(size, 1), feat[:1].repeat(size, 1), batch[:size])
    assert out.shape == (size, 4)
    assert out.isfinite().all()
    out.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_no_input_features():
    xyz, feat, batch = points(20, in_dim=0)
    assert network(in_dim=0)(xyz, feat, batch).isfinite().all()


def test_bfloat16_autocast():
    net = network().float().eval()
    xyz, feat, batch = points(40)
    expected = net(xyz.float(), feat.float(), batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(xyz.float(), feat.float(), batch)
    torch.testing.assert_close(out, expected)


def test_gradients_do_not_depend_on_the_order_of_threads():
    threads = torch.get_num_threads()
    net, (xyz, feat, batch) = network(), points(2000, 1000)
    feat.requires_grad_()

    def gradients():
        leaves = [feat, *net.parameters()]
        return torch.autograd.grad(net(xyz, feat, batch).square().mean(), leaves)

    try:
        torch.set_num_threads(2)
        first = gradients()
        for _ in range(2):
            assert all(map(torch.equal, first, gradients()))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    torch.manual_seed(0)
    net = create_backbone("cylinder3d_small", 1).train()
    xyz, feat, batch = points(4000, 0, 3000)
    inputs = (xyz.float(), feat.float(), batch)
    out = net(*inputs)
    out.square().mean().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net.cuda()
    on_gpu = [value.cuda() for value in inputs]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        there = net(*on_gpu)
        there.square().mean().backward()
    torch.testing.assert_close(there.cpu(), out, rtol=1e-3, atol=1e-3)
    for (key, parameter), grad in zip(net.named_parameters(), expected, strict=True):
        assert (parameter.grad.cpu() - grad).abs().max() < 0.02 * grad.abs().max(), key
    with torch.autocast("cuda", torch.float16):
        assert net(*on_gpu).isfinite().all()


def test_saved_and_loaded(tmp_path):
    net, file = network().float().eval(), tmp_path / "backbone.safetensors"
    card = {"features": ["intensity"]}
    save_backbone(file, net, name="cylinder3d", arguments=net.arguments, card=card)
    again = load_backbone(file)
    assert again.arguments == net.arguments
    xyz, feat, batch = points(20)
    inputs = (xyz.float(), feat.float(), batch)
    assert torch.equal(again(*inputs), net(*inputs))


@pytest.mark.parametrize(
    ("name", "num_parameters", "first", "pooled"),
    [
        ("cylinder3d", 56_005_008, 9, 256),
        ("cylinder3d_csc", 55_969_744, 4, 128),
        ("cylinder3d_small", 927_888, 9, 64),
    ],
)
def test_variants(name, num_parameters, first, pooled):
    with torch.device("meta"):
        net = create_backbone(name, 1)
    assert sum(parameter.numel() for parameter in net.parameters()) == num_parameters
    assert net.points.layers[0].in_features == first
    assert net.points.compress.in_features == pooled
    assert (net.points.compress.out_features, net.out_dim) == (16, 64)
    if name != "cylinder3d_small":
        assert net.arguments["grid_shape"] == (480, 360, 32)
        assert [block.down.weight.shape[0] for block in net.encoder] == [64, 128, 256, 512]
        shapes = [
            (block.coarse.conv.weight.shape[-1], len(block.up.weight)) for block in net.decoder
        ]
        assert shapes == [(512, 512), (512, 256), (256, 128), (128, 64)]
        assert net.final.weight.shape == (64, 3, 3, 3, 128)
        norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_coordinate_that_is_not_finite(value):
    xyz, feat, batch = points(5)
    xyz[3, 1] = value
    with pytest.raises(ValueError, match=r"1 of 5 points have .* not finite, the first is point 3"):
        network()(xyz, feat, batch)


def test_wrong_features():
    xyz, feat, batch = points(5, in_dim=2)
    with pytest.raises(ValueError, match=r"feat must be \[5, 1\], .*\(in_dim\), got \[5, 2\]"):
        network()(xyz, feat, batch)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"polar_range": ((0, 0), (1, 1))}, "polar_range must be a lower and a higher corner"),
        ({"polar_range": ((0, 0, 0), (1, 0, 1))}, "polar_range must be a lower and a higher"),
        ({"polar_range": ((0, 0, 0), (1, math.inf, 1))}, "polar_range must be a lower and"),
        ({"grid_shape": (9, 8)}, r"grid_shape must be three numbers .* got \(9, 8\)"),
        ({"grid_shape": (9, 8, 1)}, "grid_shape must be three numbers of cells, 2 or more"),
        ({"strides": ()}, "strides must be three numbers a step, 1 or 2 each"),
        ({"strides": ((2, 3, 2),)}, "strides must be three numbers a step, 1 or 2 each"),
        ({"strides": ((2, 2),)}, "strides must be three numbers a step"),
        ({"point_widths": ()}, "all widths positive"),
        ({"point_widths": (4, 0)}, "all widths positive"),
        ({"in_dim": -1}, "in_dim must not be negative"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**wrong)
