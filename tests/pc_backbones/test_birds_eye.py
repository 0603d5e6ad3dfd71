"""Boxes of cells, maps and their values at points; what both networks on them have in common."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_backbones import create_backbone, load_backbone, save_backbone
from pc_backbones.birds_eye import divide_box, read_map, scatter_to_map
from pc_backbones.voxels import VoxelGrid
from torch.nn import functional

FOV = ((-8, -4, -2), (8, 4, 3))
NAMES = ("centerpoint_pillar_small", "centerpoint_voxel_small")
MAP = {"widths": (6, 8), "depths": (1, 1), "up_widths": (5, 4)}
TINY = {
    "centerpoint_pillar_small": {"fov": FOV, "pillar_size": 0.5, "pillar_widths": (8, 6)},
    "centerpoint_voxel_small": {
        "fov": FOV,
        "cell_size": (0.25, 0.5, 0.5),
        "encoder_widths": (4, 6),
    },
}


def network(name, in_dim=4):
    torch.manual_seed(0)
    return create_backbone(name, in_dim, **MAP, **TINY[name])


def points(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(FOV[0]), torch.tensor(FOV[1])
    xyz = low + torch.rand(sum(sizes), 3, generator=generator) * (high - low) * 0.999
    feat = torch.cat([xyz, torch.rand(sum(sizes), 1, generator=generator)], dim=1)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@pytest.mark.parametrize(
    ("fov", "cell", "shape"),
    [
        (((-74.88, -74.88, -2), (74.88, 74.88, 4)), (0.32, 0.32), (468, 468, 1)),
        (((-75.2, -75.2, -2), (75.2, 75.2, 4)), (0.1, 0.1, 0.15), (1504, 1504, 40)),
        (((-51.2, -51.2, -5), (51.2, 51.2, 3)), (0.2, 0.2, 8), (512, 512, 1)),
        (((-54, -54, -5), (54, 54, 3)), (0.075, 0.075, 0.2), (1440, 1440, 40)),
        (((-75.2, -75.2, -5), (75.2, 75.2, 3)), (0.1, 0.1, 0.2), (1504, 1504, 40)),
    ],
)
def test_published_boxes(fov, cell, shape):
    box = divide_box(fov, cell)
    assert box.shape == shape
    # Rounded to float32, the upper corner may lie within the box or past it.
    corners = torch.tensor(fov, dtype=torch.float32)
    grid, _ = box.find_cells(corners, torch.tensor([0, 1]), 2)
    assert grid.indices[:, 1:].tolist() == [[0, 0, 0], [size - 1 for size in shape]]


def test_cells_of_points():
    box = divide_box(((0, -2, -1), (4, 2, 1)), (1, 0.5, 1))
    xyz = torch.tensor([[0.0, -2.0, -1.0], [3.99, 1.99, 0.99], [1.0, 0.49, 0.0], [1.5, 0.3, 0.9]])
    grid, occupants = box.find_cells(xyz, torch.tensor([0, 0, 2, 2]), 4)
    assert grid.indices.tolist() == [[0, 0, 0, 0], [0, 3, 7, 1], [2, 1, 4, 1]]
    assert occupants.voxel.tolist() == [0, 1, 2, 2]
    assert (grid.shape, grid.num_scans) == ((4, 8, 2), 4)
    torch.testing.assert_close(box.places(xyz)[3].tolist(), [1.5, 4.6, 1.9])


@pytest.mark.parametrize(
    ("fov", "cell", "message"),
    [
        (((0, 0, 0), (1, 1)), (1, 1), r"fov must be a lower and a higher corner .* got \(\(0,"),
        (((0, 0, 0), (1, 0, 1)), (1, 1), "fov must be a lower and a higher corner"),
        (((0, 0, 0), (1, math.inf, 1)), (1, 1), "fov must be a lower and a higher corner"),
        (((0, 0, 0), (1, math.nan, 1)), (1, 1), "fov must be a lower and a higher corner"),
        (((0, 0, 0), (1, 1, 1)), (1, 0), r"sides of a cell must be positive metres, got \(1, 0\)"),
        (((0, 0, 0), (1, 1, 1)), (1,), "sides of a cell must be positive metres"),
        (((0, 0, 0), (1, 1, 1)), (1, math.nan, 1), "sides of a cell must be positive metres"),
        (((0, 0, 0), (1, 1, 1)), (0.3, 1), "fov of 1 x 1 x 1 m is 3.33333 x 1 x 1 cells; it must"),
        (((0, 0, 0), (1, 1, 1)), (1, 4), r"is 1 x 0.25 x 1 cells; it must be whole numbers"),
    ],
)
def test_no_box(fov, cell, message):
    with pytest.raises(ValueError, match=message):
        divide_box(fov, cell)


def test_scatter():
    indices = torch.tensor([[0, 2, 1, 0], [0, 2, 1, 1], [2, 0, 0, 1]]).int()
    values = torch.arange(6.0).reshape(3, 2) + 1
    dense = scatter_to_map(values, VoxelGrid(indices, (3, 2, 2), 3))
    expected = torch.zeros(3, 4, 2, 3)  # channel c of layer z at 2 c + z, row y, column x
    expected[0, :, 1, 2] = torch.tensor([1, 3, 2, 4])
    expected[2, :, 0, 0] = torch.tensor([0, 5, 0, 6])
    assert torch.equal(dense, expected)


def test_reading_by_hand():
    values = torch.tensor([[0.0, 10, 20], [100, 110, 120]])[None, None]
    place = torch.tensor([[0.5, 0.5], [1.0, 0.5], [2.5, 1.5], [1.75, 1.0], [0.0, 0.0], [3.0, 2.0]])
    out = read_map(values, place.double(), torch.zeros(6, dtype=torch.long))
    assert out[:, 0].tolist() == [0, 5, 120, 62.5, 0, 120]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 8), st.integers(0, 99)
)
def test_reading_is_grid_sample(rows, columns, num_scans, num_points, seed):
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(num_scans, 3, rows, columns, generator=g, dtype=torch.float64)
    size = torch.tensor([columns, rows], dtype=torch.float64)
    place = torch.rand(num_points, 2, generator=g, dtype=torch.float64) * size
    scan = torch.randint(0, num_scans, (num_points,), generator=g)
    values.requires_grad_()
    ours = read_map(values, place, scan)
    everywhere = functional.grid_sample(
        values,
        (2 * place / size - 1).expand(num_scans, 1, -1, -1),
        align_corners=False,
        padding_mode="border",
    )
    expected = everywhere[scan, :, 0, torch.arange(num_points)]
    torch.testing.assert_close(ours, expected)
    weight = torch.randn(ours.shape, generator=g, dtype=torch.float64)
    mine = torch.autograd.grad((ours * weight).sum(), values)[0]
    torch.testing.assert_close(mine, torch.autograd.grad((expected * weight).sum(), values)[0])


@pytest.mark.parametrize("name", NAMES)
def test_map_and_points(name):
    """What a point gets is what the map holds where the point is."""
    net = network(name).eval()
    xyz, feat, batch = points(30, 0, 20)
    values = net.forward_map(xyz, feat, batch, num_scans=4)
    rows, columns = net.map_shape
    assert values.shape == (4, net.out_dim, rows, columns)
    assert (columns * net.map_cell[0], rows * net.map_cell[1]) == (16, 8)
    place = (xyz[:, :2] - torch.tensor(FOV[0][:2])) / torch.tensor(net.map_cell)
    expected = read_map(values, place.double(), batch)
    torch.testing.assert_close(net(xyz, feat, batch), expected, rtol=1e-4, atol=1e-5)
    alone = net.forward_map(xyz[batch == 2], feat[batch == 2], batch[:20] * 0)
    torch.testing.assert_close(values[2:3], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values[1], values[3])


@pytest.mark.parametrize("name", NAMES)
def test_order_of_points_does_not_matter(name):
    """Many points a cell: no cap drops any, none is first."""
    net = network(name).double().eval()
    xyz, feat, batch = points(3000)
    xyz, feat = xyz.double() / 4, feat.double()
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    shuffled = net(xyz[order], feat[order], batch)
    torch.testing.assert_close(shuffled, net(xyz, feat, batch)[order])


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_points_are_the_same_scan(name):
    net = network(name).double().eval()
    xyz, feat, batch = points(50)
    xyz, feat = xyz.double(), feat.double()
    twice = net(xyz.repeat(2, 1), feat.repeat(2, 1), batch.repeat(2))
    torch.testing.assert_close(twice, net(xyz, feat, batch).repeat(2, 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_no_points(name, training):
    net = network(name).train(training)
    xyz, feat, batch = points(3)
    out = net(xyz[:0], feat[:0], batch[:0])
    assert out.shape == (0, net.out_dim)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.zero_grad()
    values = net.forward_map(xyz[:0], feat[:0], batch[:0], num_scans=2)
    assert values.shape == (2, net.out_dim, *net.map_shape)
    values.sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert key.startswith("rpn.") or not parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2])
def test_training_on_few_points(name, size):
    net = network(name).train()
    xyz, feat, batch = points(size)
    out = net(xyz[:1].repeat(size, 1), feat[:1].repeat(size, 1), batch)
    assert out.isfinite().all()
    out.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [8.0, -8.01, math.nan])
def test_point_outside(name, value):
    net = network(name)
    xyz, feat, batch = points(5)
    xyz[3, 0] = value
    for answer in (net, net.forward_map):
        with pytest.raises(ValueError, match=r"1 of 5 points lie outside .* \[8.0, 4.0, 3.0\] m;"):
            answer(xyz, feat, batch)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_scans(name):
    net = network(name)
    xyz, feat, batch = points(2, 3)
    with pytest.raises(ValueError, match="num_scans is 1, but there are at least 2"):
        net.forward_map(xyz, feat, batch, num_scans=1)
    with pytest.raises(ValueError, match="num_scans is 0, but there are at least 1"):
        net.forward_map(xyz[:0], feat[:0], batch[:0])


@pytest.mark.parametrize("name", NAMES)
def test_map_that_does_not_divide(name):
    with pytest.raises(ValueError, match="does not divide evenly"):
        create_backbone(name, 4, **MAP, **(TINY[name] | {"fov": ((0, 0, 0), (6.5, 8, 5))}))


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded(name, tmp_path):
    net, file = network(name).eval(), tmp_path / "backbone.safetensors"
    card = {"features": ["x", "y", "z", "intensity"]}
    save_backbone(file, net, name=name, arguments=net.arguments, card=card)
    again = load_backbone(file)
    assert torch.equal(again(*points(20)), net(*points(20)))
    assert again.arguments == net.arguments


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast(name):
    net = network(name).eval()
    expected = net(*points(40))
    with torch.autocast("cpu", torch.bfloat16):
        out = net(*points(40))
    assert (out.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_do_not_depend_on_the_order_of_threads(name):
    threads = torch.get_num_threads()
    net, (xyz, feat, batch) = network(name), points(4000, 3000)
    feat.requires_grad_()

    def gradients():
        net.zero_grad()
        feat.grad = None
        net(xyz, feat, batch).square().mean().backward()
        return [feat.grad.clone(), *(parameter.grad.clone() for parameter in net.parameters())]

    try:
        torch.set_num_threads(2)
        first = gradients()
        for _ in range(3):
            assert all(map(torch.equal, first, gradients()))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_gpu_agrees_with_cpu(name):
    torch.manual_seed(0)
    net = create_backbone(name, 4).train()
    xyz, feat, batch = points(4000, 0, 3000)
    out = net(xyz, feat, batch)
    out.square().mean().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net.cuda()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        on_gpu = net(xyz.cuda(), feat.cuda(), batch.cuda())
        on_gpu.square().mean().backward()
    torch.testing.assert_close(on_gpu.cpu(), out, rtol=1e-3, atol=1e-3)
    for (key, parameter), there in zip(net.named_parameters(), expected, strict=True):
        if not key.endswith(("conv1.bias", "conv2.bias")):  # a norm follows: rounding alone
            error = (parameter.grad.cpu() - there).abs().max() / there.abs().max().clamp(min=1e-6)
            assert error < 0.02, key
    net.cpu().eval()
    values = net.forward_map(xyz, feat, batch)
    net.cuda()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        there = net.forward_map(xyz.cuda(), feat.cuda(), batch.cuda())
    torch.testing.assert_close(there.cpu(), values, rtol=1e-3, atol=1e-3)
    with torch.autocast("cuda", torch.float16):
        assert net(xyz.cuda(), feat.cuda(), batch.cuda()).isfinite().all()
