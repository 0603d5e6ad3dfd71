"""Pillars one by one in loops, and as padded arrays, against the network."""

import pytest
import torch
from pc_backbones import create_backbone
from pc_backbones.centerpoint_pillar import CenterPointPillar

FOV = ((-4, -2, -1), (4, 2, 2))
TINY = {
    "fov": FOV,
    "pillar_size": 0.5,
    "pillar_widths": (6, 8, 5),
    "widths": (4, 6),
    "depths": (1, 0),
    "strides": (2, 2),
    "up_widths": (3, 4),
    "up_strides": (1, 2),
}


def network(**overrides):
    torch.manual_seed(0)
    net = CenterPointPillar(4, **(TINY | overrides)).double()
    for name, value in net.state_dict().items():
        if name.endswith(("norm.weight", "running_var")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("norm.bias", "running_mean")):
            value.uniform_(-0.3, 0.3)
    return net


def points(*sizes):
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(FOV[0]), torch.tensor(FOV[1])
    place = torch.rand(sum(sizes), 3, generator=generator, dtype=torch.float64)
    xyz = low + place * (high - low)
    feat = torch.cat([xyz, torch.rand(sum(sizes), 1, generator=generator).double()], dim=1)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def pillars_of(xyz, batch):
    """Scan, column and row of each pillar with the points that it holds."""
    found = {}
    for i, (scan, (x, y, _)) in enumerate(zip(batch.tolist(), xyz.tolist(), strict=True)):
        found.setdefault((scan, int((x + 4) // 0.5), int((y + 2) // 0.5)), []).append(i)
    return found


def inputs(xyz, feat, pillars, center_z=False):
    out = [None] * len(xyz)
    for (_, column, row), members in pillars.items():
        mean = xyz[members].mean(0)
        center = xyz.new_tensor([-4 + (column + 0.5) * 0.5, -2 + (row + 0.5) * 0.5, 0.5])
        for i in members:
            offset = (xyz[i] - center)[: 3 if center_z else 2]
            out[i] = torch.cat([feat[i], xyz[i] - mean, offset])
    return torch.stack(out)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("center_z", [False, True])
def test_pillar_by_pillar(training, center_z):
    net = network(center_z=center_z).train(training)
    xyz, feat, batch = points(150, 0, 120)
    pillars = pillars_of(xyz, batch)
    assert max(map(len, pillars.values())) > 2
    x = inputs(xyz, feat, pillars, center_z)
    canvas = xyz.new_zeros(3, 5, 8, 16)
    for number, layer in enumerate(net.pillar_layers):
        x = layer.norm(layer.linear(x)).relu()
        highest = torch.zeros_like(x)
        for (scan, column, row), members in pillars.items():
            highest[members] = x[members].amax(0)
            if number == 2:
                canvas[scan, :, row, column] = x[members].amax(0)
        x = torch.cat([x, highest], dim=1)
    torch.testing.assert_close(net.forward_map(xyz, feat, batch), net.rpn(canvas))


@pytest.mark.parametrize("training", [False, True])
def test_slots_are_rows_of_zeros(training):
    """As networks compute that store each pillar as an array of so many points."""
    net = network(slots=7).train(training)
    xyz, feat, batch = points(50, 40)
    pillars = pillars_of(xyz, batch)
    assert max(map(len, pillars.values())) <= 7
    flat = inputs(xyz, feat, pillars)
    x = flat.new_zeros(len(pillars), 7, flat.shape[1])
    for number, members in enumerate(pillars.values()):
        x[number, : len(members)] = flat[members]
    for layer in net.pillar_layers:
        x = layer.norm(layer.linear(x).flatten(0, 1)).relu().unflatten(0, x.shape[:2])
        highest = x.amax(1)
        x = torch.cat([x, highest[:, None].expand_as(x)], dim=2)
    canvas = xyz.new_zeros(2, 5, 8, 16)
    for (scan, column, row), value in zip(pillars, highest, strict=True):
        canvas[scan, :, row, column] = value
    ours = net.forward_map(xyz, feat, batch)
    torch.testing.assert_close(ours, net.rpn(canvas))
    without = network().train(training).forward_map(xyz, feat, batch)
    assert not torch.allclose(ours, without)


def test_slots_drop_no_point():
    net, more = network(slots=2).eval(), network().eval()
    xyz, feat, batch = points(1)
    xyz, feat, batch = xyz.repeat(9, 1), torch.rand(9, 4).double(), batch.repeat(9)
    full = net.forward_map(xyz, feat, batch)
    torch.testing.assert_close(full, more.forward_map(xyz, feat, batch))


def test_coordinates_enter_through_feat_alone():
    """A scan moved by whole pillars looks the same, unless `feat` says where it is."""
    one_block = {"widths": (4,), "depths": (0,), "up_widths": (3,)}
    net = network(**one_block, strides=(1,), up_strides=(1,)).eval()
    xyz, feat, batch = points(30)
    xyz = xyz / 4  # near the middle
    moved = xyz + torch.tensor([0.5, 0, 0])
    here, there = net.forward_map(xyz, feat, batch), net.forward_map(moved, feat, batch)
    torch.testing.assert_close(there[..., 2:-1], here[..., 1:-2])
    elsewhere = net.forward_map(moved, feat + torch.tensor([0.5, 0, 0, 0]), batch)
    assert not torch.allclose(elsewhere[..., 2:-1], here[..., 1:-2])


@pytest.mark.parametrize(
    ("name", "map_shape", "map_cell", "out_dim", "num_parameters"),
    [
        ("centerpoint_pillar", (468, 468), 0.32, 384, 4_811_008),
        ("centerpoint_pillar_waymo", (468, 468), 0.32, 384, 4_811_008),
        ("centerpoint_pillar_once", (468, 468), 0.32, 384, 4_811_008),
        ("centerpoint_pillar_nuscenes", (128, 128), 0.8, 384, 4_393_216),
    ],
)
def test_variants(name, map_shape, map_cell, out_dim, num_parameters):
    with torch.device("meta"):
        net = create_backbone(name, 5)
    assert net.map_shape == map_shape
    assert net.map_cell == pytest.approx((map_cell, map_cell))
    assert net.out_dim == out_dim
    assert sum(parameter.numel() for parameter in net.parameters()) == num_parameters
    first, second = net.pillar_layers
    assert first.linear.weight.shape == (32, 10)
    assert second.linear.weight.shape == (64, 64)
    for layer in net.pillar_layers:
        assert layer.linear.bias is None
        assert (layer.norm.eps, layer.norm.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pillar_widths": ()}, r"pillar_widths must be positive, .* got \(\)"),
        ({"pillar_widths": (7, 4)}, r"even but for the last .* got \(7, 4\)"),
        ({"pillar_widths": (8, 0)}, "pillar_widths must be positive"),
        ({"slots": -1}, "slots must not be negative, got -1"),
        ({"pillar_size": 0.3}, "26.6667 x 13.3333 x 1 cells; it must be whole numbers"),
        ({"pillar_size": 0.0}, "sides of a cell must be positive metres"),
        ({"fov": ((0, 0), (1, 1))}, "fov must be a lower and a higher corner"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**wrong)
