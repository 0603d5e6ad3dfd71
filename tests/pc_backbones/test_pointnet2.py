"""PointNet++ against loops over points, against the usual dense form, and where scans are small."""

import pytest
import torch
from pc_backbones import create_backbone, load_backbone, save_backbone
from pc_backbones.pointnet2 import PointNet2

from tests.pc_backbones import naive_pointnet2 as naive
from tests.plain_pointnet2 import PlainPointNet2, copy_weights

TINY = {
    "num_centers": (16, 9, 5),
    "radii": (0.6, 1.0, 2.0),
    "ball_sizes": (6, 5, 4),
    "widths": ((6, 8), (7, 8), (6, 9)),  # the second level's features are as wide as its layer
    "up_widths": ((7,), (8, 6)),
}


def network(in_dim=2, dtype=torch.float32, **overrides):
    torch.manual_seed(0)
    net = PointNet2(in_dim, **(TINY | overrides)).to(dtype)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
    return net


def scans(*sizes, in_dim=2, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    xyz = torch.rand(sum(sizes), 3, generator=g, dtype=dtype) * 2 - 1
    feat = torch.randn(sum(sizes), in_dim, generator=g, dtype=dtype)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@pytest.fixture(params=["kernels of pc_geometry", "kernels in torch"])
def either(request, monkeypatch):
    if request.param == "kernels in torch":
        monkeypatch.setattr("pc_backbones.point_ops._on_cpu", lambda _: False)
        monkeypatch.setattr("pc_backbones.point_kernels._CHUNK", 100)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("in_dim", [0, 2, 8], ids=["no features", "narrow", "wide"])
@pytest.mark.parametrize("skip_origin", [False, True])
def test_loops_give_the_same(either, training, in_dim, skip_origin):
    """Values and gradients, in float64; scans of all sizes, one of them of duplicates."""
    sizes = (25, 1, 2, 12, 7)
    net = network(in_dim, torch.float64, skip_origin=skip_origin).train(training)
    xyz, feat, batch = scans(*sizes, in_dim=in_dim, dtype=torch.float64)
    xyz[28:40] = xyz[28:31].repeat(4, 1)
    xyz[40:44] *= 0.01  # near the origin
    feat.requires_grad_()
    parts = [part.numpy() for part in xyz.split(list(sizes))]
    expected, seed_values, seed_points = naive.forward(net, parts, list(feat.split(list(sizes))))
    direction = torch.randn(len(xyz), net.out_dim, dtype=torch.float64)
    wanted = [*net.parameters(), *([feat] if in_dim else [])]
    theirs = torch.autograd.grad((torch.cat(expected) * direction).sum(), wanted)

    state = {name: value.clone() for name, value in net.state_dict().items()}
    ours = net(xyz, feat, batch)
    torch.testing.assert_close(ours, torch.cat(expected))
    for mine, other in zip(
        torch.autograd.grad((ours * direction).sum(), wanted), theirs, strict=True
    ):
        torch.testing.assert_close(mine, other)

    net.load_state_dict(state)
    seeds, values = net.forward_seeds(xyz, feat, batch)
    torch.testing.assert_close(values, torch.cat(seed_values))
    starts = [0, 25, 26, 28, 40]
    assert seeds.tolist() == [
        int(i) + start for part, start in zip(seed_points, starts, strict=True) for i in part
    ]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_dense_form_gives_the_same(training):
    net = network().train(training)
    plain = PlainPointNet2(**net.arguments).train(training)
    copy_weights(net, plain)
    xyz, feat, batch = scans(40, 40)
    ours, expected = net(xyz, feat, batch), plain(xyz.view(2, 40, 3), feat.view(2, 40, 2))
    torch.testing.assert_close(ours, expected.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_published_sizes():
    """641,920 parameters with height, 641,856 without, 1,430,336 of DepthContrast's."""
    counts = {("pointnet2_votenet", 1): 641_920, ("pointnet2_votenet", 0): 641_856}
    counts["pointnet2_depthcontrast", 0] = 1_430_336
    for (name, in_dim), count in counts.items():
        net = create_backbone(name, in_dim)
        assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert net.out_dim == 512


@pytest.mark.parametrize(
    "name", ["pointnet2_votenet", "pointnet2_depthcontrast", "pointnet2_small"]
)
def test_number_of_seeds(name):
    net = create_backbone(name, 1).eval()
    xyz, feat, batch = scans(3000, 90, in_dim=1)
    with torch.inference_mode():
        seeds, values = net.forward_seeds(3 * xyz, feat, batch)
        out = net(3 * xyz, feat, batch)
    num = net.arguments["num_centers"][1]
    assert torch.bincount(batch[seeds]).tolist() == [num, 90]
    assert values.shape == (num + 90, net.out_dim)
    assert seeds[0] == 0
    assert out.shape == (3090, net.out_dim)
    torch.testing.assert_close(
        out[seeds], values, rtol=1e-4, atol=1e-5
    )  # a seed is its own nearest


def test_seeds_of_a_scan_do_not_depend_on_the_others():
    net = network().eval()
    xyz, feat, batch = scans(30, 20)
    seeds, values = net.forward_seeds(xyz, feat, 3 * batch + 1)  # scans without points between
    mine, alone = net.forward_seeds(xyz[30:], feat[30:], batch[:20])
    assert (mine + 30).tolist() == seeds[16:].tolist()
    torch.testing.assert_close(values[16:], alone)


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 1, 1), (3, 1)])
def test_tiny_scans_train(either, sizes):
    net = network().train()
    xyz, feat, batch = scans(*sizes)
    out = net(xyz, feat.requires_grad_(), batch)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert feat.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_one_point_alone_leaves_the_statistics_of_its_seed():
    """A level of one row has no spread; the levels with balls see a point as often as they look."""
    net = network().train()
    before = net.decoder[0].layers[0].norm.running_var.clone()
    net(*scans(1))
    assert torch.equal(net.decoder[0].layers[0].norm.running_var, before)


def test_duplicates_train(either):
    net = network().train()
    xyz, feat, batch = scans(24)
    xyz[:] = xyz[:1]
    net(xyz, feat, batch).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_no_points():
    net = network().train()
    xyz, feat, batch = scans(5)
    out = net(xyz[:0], feat[:0].requires_grad_(), batch[:0])
    seeds, values = net.forward_seeds(xyz[:0], feat[:0], batch[:0])
    assert out.shape == values.shape == (0, net.out_dim)
    assert (seeds.shape, seeds.dtype) == ((0,), torch.long)
    out.sum().backward()
    assert all(not parameter.grad.any() for parameter in net.parameters())


def test_bfloat16_measures_in_single_precision():
    """100 m away, where bfloat16 knows no distance below half a metre."""
    net = network().train()
    xyz, feat, batch = scans(40, 11)
    xyz = xyz + 100
    seeds, values = net.forward_seeds(xyz, feat, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same, lower = net.forward_seeds(xyz, feat, batch)
        out = net(xyz, feat, batch)
    assert torch.equal(seeds, same)
    assert (lower.float() - values).abs().max() < 0.1 * values.abs().max()
    out.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_half_precision_points_are_widened():
    net = network().eval()
    xyz, feat, batch = scans(30)
    xyz = xyz.half()
    assert torch.equal(net(xyz, feat, batch), net(xyz.float(), feat, batch))


def test_coordinates_need_no_gradient():
    xyz, feat, batch = scans(30)
    network()(xyz.requires_grad_(), feat, batch).sum().backward()
    assert xyz.grad is None


def test_file_rebuilds_it(tmp_path):
    net = network().eval()
    file = tmp_path / "a.safetensors"
    save_backbone(file, net, name="pointnet2_small", arguments=net.arguments, card={})
    inputs = scans(30, 5)
    assert torch.equal(load_backbone(file)(*inputs), net(*inputs))


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    net = network(dtype=torch.float64).train()
    inputs = scans(30, 1, 17, dtype=torch.float64)
    expected = net(*inputs)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    out = net.cuda()(*(value.cuda() for value in inputs))
    out.square().sum().backward()
    torch.testing.assert_close(out.cpu(), expected)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient)


def test_wrong_input():
    net, (xyz, feat, batch) = network(), scans(5, 4)
    with pytest.raises(ValueError, match=r"feat must be \[9, 2\], .*\(in_dim\), got \[9, 1\]"):
        net(xyz, feat[:, :1], batch)
    with pytest.raises(ValueError, match="batch must be sorted, got scan 0 after 1 at point 4"):
        net(xyz, feat, batch.flip(0))
    with pytest.raises(ValueError, match="xyz must be finite"):
        net(xyz.index_fill(0, torch.tensor([3]), torch.nan), feat, batch)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_dim": -1}, "in_dim must be at least 0, got -1"),
        ({"radii": (1.0, 2.0)}, r"must have one entry a level; they have \[3, 2, 3, 3\]"),
        (
            {"up_widths": ((8,), (8,), (8,))},
            "up_widths must have fewer levels than the 3 of widths",
        ),
        ({"radii": (0.1, 0.0, 1.0)}, r"radii must be positive metres, got \(0.1, 0.0, 1.0\)"),
        ({"radii": (0.1, float("nan"), 1.0)}, "radii must be positive metres"),
        ({"ball_sizes": (4, 0, 4)}, "ball_sizes and all widths must be at least 1"),
        ({"widths": ((4,), (), (4,))}, "with one layer a level at least"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        PointNet2(**({"in_dim": 2} | TINY | wrong))
