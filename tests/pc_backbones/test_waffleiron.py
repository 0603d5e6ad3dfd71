"""The sparse network against its dense form, and what the paper says of its size."""

import copy

import pytest
import torch
from pc_backbones import WaffleIron, batch_neighbors, create_backbone

from tests.dense_waffleiron import dense_forward

GRIDS = ((8, 8), (8, 3), (8, 3))
FOV = ((-8.0, -8.0, -2.0), (8.0, 8.0, 2.0))


def network(**arguments):
    torch.manual_seed(0)
    defaults = {"channels": 6, "depth": 4, "grids": GRIDS, "fov": FOV, "num_neighbors": 4}
    return WaffleIron(5, **(defaults | arguments)).double()


def points(*sizes, seed=0):
    """Return (xyz, feat, batch), clustered so that scans share cells."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    xyz = torch.randn(n, 3, generator=generator).clamp(-2, 2) * torch.tensor([3.0, 3.0, 0.9])
    feat = torch.cat([torch.randn(n, 1, generator=generator), xyz, xyz.norm(dim=1)[:, None]], 1)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return xyz.double(), feat.double(), batch


@pytest.mark.parametrize("layer_norm", [False, True], ids=["batch norm", "layer norm"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("sizes", [(30,), (25, 7), (12, 1, 20)], ids=str)
def test_sparse_equals_dense(layer_norm, training, sizes):
    sparse = network(layer_norm=layer_norm, gelu=len(sizes) == 2).train(training)
    dense = copy.deepcopy(sparse)
    xyz, feat, batch = points(*sizes)
    neighbors = batch_neighbors(xyz, batch, 4)
    ours, theirs = feat.clone().requires_grad_(), feat.clone().requires_grad_()
    out = sparse(xyz, ours, batch, neighbors=neighbors)
    expected = dense_forward(dense, xyz, theirs, batch, neighbors)
    close = {"rtol": 1e-5, "atol": 1e-5 * float(expected.detach().abs().max())}
    torch.testing.assert_close(out, expected, **close)

    weight = torch.randn(out.shape, dtype=torch.float64)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    pairs = zip(sparse.named_parameters(), dense.parameters(), strict=True)
    for (name, a), b in [*pairs, (("feat", ours), theirs)]:
        error = (a.grad - b.grad).abs().max() / b.grad.abs().max().clamp(min=1e-6)
        assert error < 1e-5, name
    for a, b in zip(sparse.buffers(), dense.buffers(), strict=True):
        torch.testing.assert_close(a, b)  # running statistics saw the same tokens


@pytest.mark.parametrize(
    "point",
    [(8.0, 0, 0), (0, -8.01, 0), (0, 0, 2.0), (float("nan"), 0, 0), (0, float("inf"), 0)],
    ids=str,
)
def test_point_outside(point):
    xyz, feat, batch = points(10)
    xyz[3] = torch.tensor(point)
    with pytest.raises(ValueError, match=r"1 of 10 points lie outside the field of view .*crop"):
        network().eval()(xyz, feat, batch)


def test_border_of_field_of_view():
    """The last float below the border rounds to the next cell; it belongs to the last one."""
    backbone = WaffleIron(5, channels=4, depth=3)
    high = torch.tensor([64.0, 64.0, 8.0])
    low = torch.tensor([[-64.0, -64.0, -8.0]])
    inside = torch.stack([torch.nextafter(high, torch.zeros(3)), high - 1e-3])
    planes = backbone._find_planes(torch.cat([low, inside]), torch.zeros(3, dtype=torch.long))
    for plane in planes:
        assert plane.cell.tolist() == [0, 1, 1]


def test_fields_of_view_and_grids_are_free():
    """Weights carry over to other grids; moving points and box together changes nothing."""
    near = network().eval()
    low, high = torch.tensor(FOV)
    far = network(fov=((low + 100).tolist(), (high + 100).tolist())).eval()
    far.load_state_dict(near.state_dict())
    xyz, feat, batch = points(20, 5)
    neighbors = batch_neighbors(xyz, batch, 4)
    torch.testing.assert_close(
        far(xyz + 100, feat, batch, neighbors=neighbors),
        near(xyz, feat, batch, neighbors=neighbors),
    )
    finer = network(grids=((16, 16), (16, 8), (16, 8))).eval()
    finer.load_state_dict(near.state_dict())
    assert not torch.allclose(finer(xyz, feat, batch), near(xyz, feat, batch))


def test_drop_path_is_per_scan_and_keeps_the_expectation():
    torch.manual_seed(0)
    layer = network(drop_path=0.25).train().layers[0]
    batch = torch.arange(4000).repeat_interleave(3)
    dropped = layer._drop(torch.ones(len(batch), 2), batch, 4000).view(4000, 6)
    assert (dropped == dropped[:, :1]).all()
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()._drop(batch, batch, 4000), batch)


def test_drop_path_in_the_network():
    xyz, feat, batch = points(9, 6)
    plain, dropping = network(), network(drop_path=1 - 1e-9)
    assert torch.equal(dropping.eval()(xyz, feat, batch), plain.eval()(xyz, feat, batch))
    neighbors = batch_neighbors(xyz, batch, 4)
    everything_skipped = dropping.train()(xyz, feat, batch)
    torch.testing.assert_close(everything_skipped, dropping.embedding(feat, neighbors))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_drop_path_out_of_range(rate):
    with pytest.raises(ValueError, match=rf"drop_path must be in \[0, 1\), got {rate}"):
        network(drop_path=rate)


@pytest.mark.parametrize("sizes", [(40,), (25, 15)], ids=str)
def test_bfloat16_autocast(sizes):
    """Mixed precision stays near single precision, and gradients arrive in the weights' type."""
    backbone = network(layer_norm=False).float()
    xyz, feat, batch = (v.float() if v.is_floating_point() else v for v in points(*sizes))
    expected = backbone(xyz, feat, batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        out = backbone(xyz, feat, batch)
    assert (out - expected).abs().mean() < 0.05 * expected.abs().mean()
    out.float().square().mean().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


def test_no_points():
    xyz, feat, batch = (value[:0] for value in points(3))
    assert network().eval()(xyz, feat, batch).shape == (0, 6)


@pytest.mark.parametrize(
    ("channels", "head_dim", "millions"),
    [(768, 1024, "60.22"), (384, None, "15.1"), (256, None, "6.84"), (96, 384, "1.08")],
)
def test_number_of_parameters(channels, head_dim, millions):
    """Counts of the published networks; two of them are stated with their head."""
    with torch.device("meta"):
        modules = [create_backbone(f"waffleiron_48_{channels}", 5)]
        modules += [torch.nn.Linear(channels, head_dim)] if head_dim else []
    count = sum(p.numel() for module in modules for p in module.parameters()) / 1e6
    assert f"{count:.{len(millions.partition('.')[2])}f}" == millions


def test_layer_groups_hold_every_parameter_once():
    backbone = network()
    grouped = [p for group in backbone.layer_groups() for p in group.parameters()]
    assert {id(p) for p in grouped} == {id(p) for p in backbone.parameters()}
    assert len(grouped) == len(list(backbone.parameters()))
    assert len(backbone.layer_groups()) == 1 + 4


def test_gradients_do_not_depend_on_the_order_of_threads():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    xyz = torch.rand(6000, 3) * 40 - 20
    feat, batch = torch.rand(6000, 5), torch.zeros(6000, dtype=torch.long)
    target = torch.randn(6000, 8)
    backbone = create_backbone("waffleiron", 5, depth=3, channels=8, fov=((-32,) * 3, (32,) * 3))
    neighbors = batch_neighbors(xyz, batch, 16)

    def gradients():
        backbone.zero_grad()
        out = backbone(xyz, feat, batch, neighbors=neighbors)
        ((out - target) ** 2).mean().backward()
        return [parameter.grad.clone() for parameter in backbone.parameters()]

    try:
        torch.set_num_threads(2)
        first = gradients()
        for _ in range(8):
            assert all(map(torch.equal, first, gradients()))
    finally:
        torch.set_num_threads(threads)
