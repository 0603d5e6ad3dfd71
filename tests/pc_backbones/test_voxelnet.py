"""VoxelNet against conv3d on the whole box, and files named and laid out as SLidR's."""

import pytest
import torch
from pc_backbones import create_backbone, load_backbone, load_published, save_backbone
from pc_backbones.sparse_conv import SparseConv
from pc_backbones.voxelnet import VoxelNet
from torch.nn import functional

from tests.pc_backbones.published_tensors import random_norm, random_weight

FOV = ((-8, -4, -1), (8, 4, 3))
CELL = (0.5, 0.5, 0.25)  # 32 x 16 x 16 voxels
TINY = {
    "fov": FOV,
    "cell_size": CELL,
    "encoder_widths": (3, 4, 5),
    "flat_width": 6,
    "out_dim": 7,
}


def network(**overrides):
    torch.manual_seed(0)
    net = VoxelNet(4, **(TINY | overrides)).double()
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


def mean_in_voxels(xyz, feat, batch, num_scans, layers):
    """[b c x y z] and whether a voxel holds a point."""
    x, y, z = ((xyz - xyz.new_tensor(FOV[0])) / xyz.new_tensor(CELL)).long().T
    total = xyz.new_zeros(num_scans, 32, 16, layers, feat.shape[1] + 1)
    with_one = torch.cat([feat, xyz.new_ones(len(xyz), 1)], dim=1)
    total.index_put_((batch, x, y, z), with_one, accumulate=True)
    mean = total[..., :-1] / total[..., -1:].clamp(min=1)
    return mean.permute(0, 4, 1, 2, 3), total[..., -1] > 0


def dense_layer(values, occupied, layer, stride=(1, 1, 1), padding=(1, 1, 1), submanifold=True):
    """Convolution, batch norm over the occupied voxels and ReLU; the rest stays zero."""
    kernel = layer.conv.weight.permute(0, 4, 1, 2, 3)
    values = functional.conv3d(values, kernel, None, stride, padding)
    if not submanifold:
        ones = torch.ones_like(kernel[:1, :1])
        found = functional.conv3d(occupied[:, None].double(), ones, None, stride, padding)
        occupied = found[:, 0] > 0.5
    rows = layer.norm(values.permute(0, 2, 3, 4, 1)[occupied]).relu()
    values = values.new_zeros(values[:, 0].shape + rows.shape[1:])
    values[occupied] = rows
    return values.permute(0, 4, 1, 2, 3), occupied


def dense_map(net, xyz, feat, batch, num_scans):
    layers = net.box.shape[2] + net.arguments["top_layer"]
    state = dense_layer(*mean_in_voxels(xyz, feat, batch, num_scans, layers), net.stem)
    for number, stage in enumerate(net.stages):
        if number:
            padding = (1, 1, 0 if number == len(net.stages) - 1 else 1)
            state = dense_layer(*state, stage.down, (2, 2, 2), padding, submanifold=False)
        for layer in stage.layers:
            state = dense_layer(*state, layer)
    values, _ = dense_layer(*state, net.flatten, (1, 1, 2), (0, 0, 0), submanifold=False)
    flat = values.permute(0, 1, 4, 3, 2).flatten(1, 2)  # [b (c z) y x]
    return functional.conv2d(flat, net.rpn.ups[0].weight)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("top_layer", "high"), [(False, 3), (True, 3), (False, 4.5)])
@pytest.mark.parametrize("sizes", [(60, 0, 40), (3,)], ids=["three scans", "three points"])
def test_map_is_dense_convolution(training, top_layer, high, sizes):
    net = network(top_layer=top_layer, fov=(FOV[0], (8, 4, high))).train(training)
    xyz, feat, batch = points(*sizes)
    feat.requires_grad_()
    ours = net.forward_map(xyz, feat, batch)
    expected = dense_map(net, xyz, feat, batch, len(sizes))
    assert expected.shape == (len(sizes), 7, 4, 8)
    torch.testing.assert_close(ours, expected)
    weight = torch.randn_like(expected)
    inputs = [feat, *net.parameters()]
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected * weight).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
        assert a.any()


def read_as_slidr(values, place):
    """Bilinear between cells whose value is that of their lower corner, inside the map."""
    column, row = place
    x, y = int(column), int(row)
    u, v = column - x, row - y
    near, far = values[:, y], values[:, y + 1]
    return (1 - v) * ((1 - u) * near[:, x] + u * near[:, x + 1]) + v * (
        (1 - u) * far[:, x] + u * far[:, x + 1]
    )


def test_points_read_the_map():
    net = network().eval()
    xyz, feat, batch = points(50, 0, 30)
    with torch.no_grad():
        values, out = net.forward_map(xyz, feat, batch), net(xyz, feat, batch)
    place = (xyz[:, :2] - torch.tensor(FOV[0][:2])) / 2  # cells of 4 voxels of 0.5 m
    place = torch.minimum(place, place.new_tensor([7, 3]) - 1e-12)  # past the last: its value
    expected = [read_as_slidr(values[b], p) for b, p in zip(batch, place.tolist(), strict=True)]
    torch.testing.assert_close(out, torch.stack(expected))


def test_what_a_cell_sees_is_around_its_corner():
    """The middle of what reaches a cell of the map is where that cell is read."""
    net = network(fov=((-16, -1, -1), (16, 1, 3))).eval()
    axes = [torch.arange(low, high, 0.25) for low, high in ((-16, 16), (-1, 1), (-1, 3))]
    xyz = torch.cartesian_prod(*axes).double() + 0.125
    feat = torch.ones(len(xyz), 4).double().requires_grad_()
    net.forward_map(xyz, feat, torch.zeros(len(xyz)).long())[0, :, 0, 8].sum().backward()
    seen = xyz[feat.grad.abs().sum(1) > 0][:, 0]
    corner, middle = 8 * 2 - 16, 8.5 * 2 - 16  # cells of 4 voxels of 0.5 m
    center = (seen.min() + seen.max()) / 2
    assert abs(center - corner) < 0.3 < abs(center - middle)


@pytest.mark.parametrize(("top_layer", "reached"), [(False, 28), (True, 40)])
def test_heights_that_reach_the_map(top_layer, reached):
    """Without a layer on top, the published 40 layers lose the last 12."""
    net = network(
        fov=((-8, -8, 0), (8, 8, 40)),
        cell_size=(0.5, 0.5, 1),
        encoder_widths=(3, 3, 3, 3),
        top_layer=top_layer,
    ).eval()
    for height in range(40):
        xyz = torch.tensor([[0.1, 0.1, height + 0.5]]).double()
        net.zero_grad()
        values = net.forward_map(xyz, torch.ones(1, 4).double(), torch.tensor([1]))
        assert values.shape == (2, 7, 4, 4)
        assert values[1].any() == (height < reached), height
        assert not values[0].any()
        values.sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


def test_voxels_hold_the_mean_of_all_points():
    net = network().eval()
    xyz, feat, batch = points(40)
    noise = torch.randn(50, 40, 4, dtype=torch.float64)
    noise -= noise.mean(0)
    out = net(xyz.repeat(50, 1), (feat + noise).flatten(0, 1), batch.repeat(50))
    torch.testing.assert_close(out[:40], net(xyz, feat, batch))


def test_corners_of_the_box_and_beyond():
    net = network().eval()
    low, high = torch.tensor(FOV).double()
    corners = torch.stack([low, torch.nextafter(high.float(), low.float()).double()])
    feat, batch = torch.ones(2, 4).double(), torch.tensor([0, 0])
    assert net(corners, feat, batch).isfinite().all()
    for answer in (net, net.forward_map):
        with pytest.raises(ValueError, match="1 of 2 points lie outside the field of view"):
            answer(torch.stack([low, high]), feat, batch)


def test_few_points_and_none():
    net = network().train()
    xyz, feat, batch = points(2)
    for count in (1, 2, 0):
        net.zero_grad()
        out = net(xyz[:1].repeat(count, 1), feat[:1].repeat(count, 1), batch[:count])
        assert out.shape == (count, 7)
        out.square().sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    values = net.forward_map(xyz[:0], feat[:0], batch[:0], num_scans=2)
    assert values.shape == (2, 7, 4, 8)
    assert not values.any()


def test_bfloat16_autocast():
    net = network().float().eval()
    xyz, feat, batch = (
        value.float() if value.is_floating_point() else value for value in points(40)
    )
    expected = net(xyz, feat, batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(xyz, feat, batch)
    assert (out.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    net = network(encoder_widths=(8, 16, 32)).float().train()
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
    save_backbone(file, net, name="voxelnet", arguments=net.arguments, card={"features": ["x"]})
    again = load_backbone(file)
    assert again.arguments == net.arguments
    xyz, feat, batch = points(20)
    assert torch.equal(
        again(xyz.float(), feat.float(), batch), net(xyz.float(), feat.float(), batch)
    )


@pytest.mark.parametrize(
    ("name", "num_parameters", "map_shape", "final"),
    [
        ("voxelnet", 720_064, (128, 128), (64, 128, 1, 1)),
        ("voxelnet_small", 186_912, (32, 32), (64, 128, 1, 1)),
    ],
)
def test_variants(name, num_parameters, map_shape, final):
    with torch.device("meta"):
        net = create_backbone(name, 4)
    assert sum(parameter.numel() for parameter in net.parameters()) == num_parameters
    assert (net.out_dim, net.map_shape) == (64, map_shape)
    assert net.rpn.ups[0].weight.shape == final
    assert net.arguments["top_layer"] == (name == "voxelnet_small")
    assert [len(stage.layers) for stage in net.stages] == [1, 2, 2, 2]
    assert all(m.bias is None for m in net.modules() if isinstance(m, SparseConv))
    if name == "voxelnet":
        assert net.arguments["fov"] == ((-51.2, -51.2, -5), (51.2, 51.2, 3))
        assert net.box.shape == (1024, 1024, 40)
        norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder_widths": ()}, r"encoder_widths must be positive, got 4, 6, 7 and \(\)"),
        ({"encoder_widths": (3, 0)}, "encoder_widths must be positive"),
        ({"out_dim": 0}, "must be positive, got 4, 6, 0"),
        ({"cell_size": (0.5, 0.5, 0.5)}, "8 layers of voxels are too low for .* 3 stages; take"),
        ({"cell_size": (0.7, 0.5, 0.25)}, "whole numbers"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**wrong)


KERNELS = {  # from (out, z, y, x, in), by version of spconv
    "2.2": (0, 1, 2, 3, 4),
    "2.1": (1, 2, 3, 0, 4),
    "1": (1, 2, 3, 4, 0),
}


def slidr_tensors(*, in_dim=4, widths=(3, 4, 6), flat=8, out=5, version="2.2"):
    """Named as SLidR's; whatever the shape of `final.weight`, its memory is (in, out)."""
    g = torch.Generator().manual_seed(0)
    tensors = {}

    def layer(name, in_, out_, taps=(3, 3, 3)):
        kernel = random_weight((out_, *taps, in_), in_ * 27, g)
        tensors[f"{name}.0.weight"] = kernel.permute(KERNELS[version]).contiguous()
        tensors.update(random_norm(f"{name}.1", out_, g))

    layer("conv_input", in_dim, widths[0])
    layer("conv1.0", widths[0], widths[0])
    for stage, width in enumerate(widths[1:], start=2):
        layer(f"conv{stage}.0", widths[stage - 2], width)
        layer(f"conv{stage}.1", width, width)
        layer(f"conv{stage}.2", width, width)
    layer("conv_out", widths[-1], flat, (3, 1, 1))
    shapes = {"2.2": (out, 1, 1, 1, flat), "2.1": (1, 1, 1, out, flat), "1": (1, 1, 1, flat, out)}
    tensors["final.weight"] = random_weight((flat, out), flat, g).view(shapes[version])
    return tensors


def their_map(w, xyz, feat, batch):
    """What the tensors' names mean, along z, y, x; in evaluation."""
    values, occupied = mean_in_voxels(xyz, feat, batch, int(batch.max()) + 1, 16)
    x, occupied = values.permute(0, 1, 4, 3, 2), occupied.permute(0, 3, 2, 1)[:, None].float()

    def layer(x, occupied, name, stride=1, padding=1, submanifold=True):
        kernel = w[f"{name}.0.weight"].permute(0, 4, 1, 2, 3)
        x = functional.conv3d(x, kernel, None, stride, padding)
        if not submanifold:
            ones = torch.ones_like(kernel[:1, :1])
            occupied = (functional.conv3d(occupied, ones, None, stride, padding) > 0.5).float()
        names = ("running_mean", "running_var", "weight", "bias")
        x = functional.batch_norm(x, *(w[f"{name}.1.{n}"] for n in names), eps=1e-3)
        return x.relu() * occupied, occupied

    state = layer(x, occupied, "conv_input")
    state = layer(*state, "conv1.0")
    for stage, padding in ((2, 1), (3, (0, 1, 1))):
        state = layer(*state, f"conv{stage}.0", 2, padding, submanifold=False)
        state = layer(*state, f"conv{stage}.1")
        state = layer(*state, f"conv{stage}.2")
    x, _ = layer(*state, "conv_out", (2, 1, 1), 0, submanifold=False)
    x = torch.einsum("bczyx,cd->bdzyx", x, w["final.weight"].reshape(x.shape[1], -1))
    return x.flatten(1, 2)


def write(path, tensors, **others):
    content = {"model_points": tensors, "epoch": 50, "config": {"lr": 0.01, "model": "voxelnet"}}
    torch.save(content | others, path / "voxelnet_slidr.pt")
    return path / "voxelnet_slidr.pt"


@pytest.mark.parametrize("prefix", ["", "module.", "model_points."])
@pytest.mark.parametrize("version", KERNELS)
def test_published(tmp_path, version, prefix):
    tensors = slidr_tensors(version=version)
    others = {"height_compression.extra": torch.ones(1)}
    named = {prefix + name: value for name, value in (tensors | others).items()}
    published = load_published(write(tmp_path, named), fov=FOV, cell_size=CELL)
    assert (published.name, published.head, published.missing) == ("voxelnet", None, ())
    assert published.left_over == ((prefix.removeprefix("module.")) + "height_compression.extra",)
    assert len(published.used) == len(tensors)
    backbone = published.backbone
    assert not backbone.training
    assert (backbone.in_dim, backbone.out_dim) == (4, 5)
    assert backbone.arguments["encoder_widths"] == (3, 4, 6)
    assert backbone.arguments["flat_width"] == 8
    xyz, feat, batch = (value.float() if value.is_floating_point() else value
                        for value in points(150, 80))  # fmt: skip
    with torch.inference_mode():
        expected = their_map(slidr_tensors(), xyz, feat, batch)
        torch.testing.assert_close(
            backbone.forward_map(xyz, feat, batch), expected, rtol=1e-4, atol=1e-5
        )


def test_published_sizes(tmp_path):
    tensors = slidr_tensors(widths=(16, 32, 64, 64), flat=128, out=64)
    published = load_published(write(tmp_path, tensors, model_images={"a": torch.ones(1)}))
    assert (published.missing, published.left_over) == ((), ())
    with torch.device("meta"):
        assert published.backbone.arguments == create_backbone("voxelnet", 4).arguments


def drop(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def change(name, value):
    return lambda tensors: tensors | {name: value}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("conv_input.1.weight"), r"stem\.norm\.weight must have 1 axes, and is missing"),
        (drop("conv_out.1.weight"), r"flatten\.norm\.weight must have 1 axes, and is missing"),
        (drop("conv3.1.0.weight"), r"1 missing: stages\.2\.layers\.0\.conv\.weight"),
        (drop("conv3.2.1.bias"), r"1 missing: stages\.2\.layers\.1\.norm\.bias"),
        (drop("final.weight"), r"final\.weight must have 5 axes, and is missing"),
        (change("final.weight", torch.ones(5, 1, 1, 1, 7)), "no 1x1 kernel on 8 channels"),
        (change("conv1.0.0.weight", torch.ones(3, 3)), "the kernels of VoxelNet are not all"),
        (change("conv1.0.0.weight", torch.ones(4, 3, 3, 3, 4)), "the kernels of VoxelNet are not"),
        (
            change("conv4.0.0.weight", torch.ones(3, 3, 3, 3, 3)),
            r"stages\.3\.down\.norm\.weight must",
        ),
        (change("conv3.7.0.weight", torch.ones(6, 3, 3, 3, 6)), "the kernels of VoxelNet are not"),
    ],
)
def test_damaged(tmp_path, damage, message):
    file = write(tmp_path, damage(slidr_tensors()))
    with pytest.raises(ValueError, match=message):
        load_published(file, fov=FOV, cell_size=CELL)


def test_top_layer_does_not_fit_published_weights(tmp_path):
    tensors = slidr_tensors(widths=(16, 32, 64, 64), flat=128, out=64)
    wanted = r"rpn\.ups\.0\.weight \(64, 128, 1, 1\) instead of \(64, 256, 1, 1\)"
    with pytest.raises(ValueError, match=wanted):
        load_published(write(tmp_path, tensors), top_layer=True)
