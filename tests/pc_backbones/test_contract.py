"""What every backbone promises, whatever its name."""

import copy

import pytest
import torch
from pc_backbones import batch_neighbors, create_backbone, list_backbones

IN_DIM = 5
TINY_WAFFLEIRON = {"channels": 12, "depth": 3, "num_neighbors": 4}
TINY_UNET = {
    "voxel_size": 0.25,
    "stem_width": 6,
    "encoder_widths": (6, 8),
    "encoder_depths": (1, 2),
    "decoder_widths": (8, 7),
    "decoder_depths": (2, 1),
    "down_widths": (6, 7),
}


TINY_MAP = {
    "fov": ((-16, -16, -4), (16, 16, 4)),
    "widths": (6, 8),
    "depths": (1, 0),
    "strides": (1, 2),
    "up_widths": (5, 4),
    "up_strides": (1, 2),
}
TINY_POINTNET = {
    "num_centers": (20, 20, 20),  # all points of the scans that are permuted
    "radii": (3.0, 5.0, 9.0),
    "ball_sizes": (20, 20, 20),
    "widths": ((6, 8), (9, 8), (8, 7)),
    "up_widths": ((8,), (8, 7)),
}
TINY = {
    "inputs": {"num_neighbors": 4},
    "waffleiron": TINY_WAFFLEIRON,
    "pointnet2": TINY_POINTNET,
    "centerpoint_pillar": TINY_MAP | {"pillar_size": 1.0, "pillar_widths": (8, 6)},
    "voxelnet": {"fov": TINY_MAP["fov"], "cell_size": (1, 0.5, 0.5), "encoder_widths": (4, 5, 6)},
    "cylinder3d": {
        "grid_shape": (25, 16, 8),
        "point_widths": (6, 8),
        "base_width": 3,
        "strides": ((2, 2, 2), (2, 2, 1)),
    },
    "centerpoint_voxel": TINY_MAP | {"cell_size": (1, 0.5, 0.8), "encoder_widths": (4, 6)},
}


def build(name):
    torch.manual_seed(0)
    tiny = next((TINY[key] for key in TINY if name.startswith(key)), TINY_UNET)
    return create_backbone(name, IN_DIM, **tiny)


def scans(*sizes, seed=0):
    """Return (xyz, feat, batch) of scans that share their place."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    xyz = torch.randn(n, 3, generator=generator).clamp(-3, 3) * torch.tensor([4.0, 4.0, 1.0])
    feat = torch.cat([torch.randn(n, 1, generator=generator), xyz, xyz.norm(dim=1)[:, None]], 1)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=list_backbones())
def name(request):
    return request.param


def test_shape_and_attributes(name):
    backbone = build(name).eval()
    out = backbone(*scans(20, 9))
    assert backbone.in_dim == IN_DIM
    assert out.shape == (29, backbone.out_dim)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert backbone.num_neighbors == backbone.arguments.get("num_neighbors", 0)
    assert backbone.voxel_size == backbone.arguments.get("voxel_size")
    if "fov" in backbone.arguments:
        assert backbone.fov.tolist() == [list(corner) for corner in backbone.arguments["fov"]]
    else:
        assert backbone.fov is None


def test_gradient_reaches_every_parameter(name):
    backbone = build(name).train()
    xyz, feat, batch = scans(40, 30)
    feat.requires_grad_()
    out = backbone(xyz, feat, batch)
    (out * torch.randn_like(out)).sum().backward()
    assert feat.grad.abs().sum() > 0
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


def test_eval_is_deterministic(name):
    backbone = build(name).eval()
    before = copy.deepcopy(backbone.state_dict())
    inputs = scans(25)
    assert torch.equal(backbone(*inputs), backbone(*inputs))
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_permutation_within_a_scan(name):
    """Also where the first point of a voxel stands for it: no voxel holds two here."""
    backbone = build(name).eval()
    xyz, feat, batch = scans(20, 15)
    order = torch.cat([torch.randperm(20), 20 + torch.randperm(15)])
    close(backbone(xyz[order], feat[order], batch), backbone(xyz, feat, batch)[order])


def test_batch_mates_do_not_matter(name):
    backbone = build(name).eval()
    xyz, feat, batch = scans(12, 1, 20)
    together = backbone(xyz, feat, batch)
    for scan in range(3):
        mine = batch == scan
        alone = backbone(xyz[mine], feat[mine], torch.zeros_like(batch[mine]))
        close(together[mine], alone)


def test_scan_without_points(name):
    backbone = build(name).eval()
    xyz, feat, batch = scans(12, 20)
    assert torch.equal(backbone(xyz, feat, 2 * batch + 1), backbone(xyz, feat, batch))


def test_same_scan_twice(name):
    """Two copies share all cells and distances, and must not see each other."""
    backbone = build(name).eval()
    xyz, feat, _ = scans(15)
    twice = backbone(xyz.repeat(2, 1), feat.repeat(2, 1), torch.arange(2).repeat_interleave(15))
    close(twice, backbone(xyz, feat, torch.zeros(15, dtype=torch.long)).repeat(2, 1))


def test_state_dict_round_trip(name):
    backbone, other = build(name), build(name)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    backbone.train()(*scans(30))  # moves running statistics
    other.load_state_dict(backbone.state_dict(), strict=True)
    inputs = scans(18, 4)
    assert torch.equal(other.eval()(*inputs), backbone.eval()(*inputs))


def test_arguments_rebuild_it(name):
    backbone = build(name).eval()
    rebuilt = create_backbone(name, **backbone.arguments).eval()
    rebuilt.load_state_dict(backbone.state_dict())
    inputs = scans(18)
    assert torch.equal(rebuilt(*inputs), backbone(*inputs))


def test_one_point(name):
    backbone = build(name).eval()
    out = backbone(*scans(1))
    assert out.shape == (1, backbone.out_dim)
    assert out.isfinite().all()


@pytest.mark.parametrize("size", [2, 3])
def test_fewer_points_than_neighbors(name, size):
    out = build(name).eval()(*scans(size, 1))
    assert out.isfinite().all()


def test_given_neighbors_are_those_found(name):
    backbone = build(name).eval()
    xyz, feat, batch = scans(20, 3)
    given = backbone(xyz, feat, batch, neighbors=batch_neighbors(xyz, batch, 4))
    assert torch.equal(given, backbone(xyz, feat, batch))


def test_layer_groups(name):
    """Every parameter belongs to one group."""
    backbone = build(name)
    grouped = [id(p) for group in backbone.layer_groups() for p in group.parameters()]
    assert sorted(grouped) == sorted(id(p) for p in backbone.parameters())
