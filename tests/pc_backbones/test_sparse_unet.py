"""SparseUNet: the whole against dense torch, and what it does with unusual scans."""

import math

import pytest
import torch
from pc_backbones import create_backbone, load_backbone, save_backbone
from pc_backbones.sparse_conv import DoublingConv, HalvingConv, SubmanifoldConv
from pc_backbones.sparse_unet import SparseUNet
from pc_backbones.voxels import cartesian_cells, find_voxels
from torch import nn
from torch.nn import functional

from tests.lanes import unchecked_only

TINY = {
    "voxel_size": 0.5,
    "stem_width": 4,
    "encoder_widths": (4, 6),
    "encoder_depths": (1, 2),
    "decoder_widths": (5, 3),
    "decoder_depths": (2, 1),
}


def network(in_dim=4, **overrides):
    torch.manual_seed(0)
    net = SparseUNet(in_dim, **(TINY | overrides)).double()
    for module in net.modules():  # every branch counts, and none saturates
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
        elif hasattr(module, "weight"):
            nn.init.normal_(module.weight, std=0.2)
    return net


def points(*sizes, seed=0):
    """Return (xyz, feat, batch); about three points a voxel."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    xyz = torch.rand(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2, 2])
    feat = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return xyz, feat, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


class Dense:
    """The same network through conv3d on the whole box, of which the occupied cells are kept."""

    def __init__(self, net, xyz, batch):
        self.net = net
        lowest = [(xyz[batch == scan] / net.voxel_size).floor().amin(0) for scan in batch.unique()]
        place = (xyz / net.voxel_size).floor() - torch.stack(lowest)[batch]
        self.where = (batch, *place.long().T)
        one = xyz.new_ones(len(xyz))
        self.count = xyz.new_zeros(len(lowest), 16, 16, 16).index_put(self.where, one, True)
        self.levels = [self.count > 0]
        for _ in net.encoder:
            self.levels.append(functional.max_pool3d(self.levels[-1].double(), 2) > 0)

    def forward(self, feat):
        total = feat.new_zeros(*self.count.shape, feat.shape[1]).index_put(self.where, feat, True)
        tokens = total / self.count.clamp(min=1)[..., None]  # [scans x y z c]
        tokens = self.conv_norm(self.net.stem, tokens, 0)
        skips = []
        for level, stage in enumerate(self.net.encoder, start=1):
            skips.append(tokens)
            tokens = self.blocks(stage, self.conv_norm(stage.down, tokens, level), level)
        for level, stage in zip(reversed(range(len(skips))), self.net.decoder, strict=True):
            tokens = torch.cat([self.conv_norm(stage.up, tokens, level), skips[level]], dim=-1)
            tokens = self.blocks(stage, tokens, level)
        return tokens[self.where]

    def conv_norm(self, module, tokens, level):
        convolved = self.convolve(module.conv, tokens)
        return self.at_voxels(module.norm, convolved, level).relu()

    def blocks(self, stage, tokens, level):
        for block in stage.blocks:
            hidden = self.convolve(block.conv1, tokens)
            hidden = self.at_voxels(block.norm1, hidden, level).relu()
            hidden = self.convolve(block.conv2, hidden)
            hidden = self.at_voxels(block.norm2, hidden, level)
            tokens = (hidden + self.at_voxels(block.shortcut, tokens, level)).relu()
        return tokens

    def convolve(self, conv, tokens):
        maps = tokens.permute(0, 4, 1, 2, 3)
        kernel = conv.weight.permute(0, 4, 1, 2, 3)
        if isinstance(conv, DoublingConv):
            maps = functional.conv_transpose3d(maps, kernel.transpose(0, 1), stride=2)
        elif isinstance(conv, HalvingConv):
            maps = functional.conv3d(maps, kernel, stride=2)
        else:
            maps = functional.conv3d(maps, kernel, padding=kernel.shape[-1] // 2)
        return maps.permute(0, 2, 3, 4, 1)

    def at_voxels(self, module, tokens, level):
        """Apply a module to the rows of the occupied cells, zero elsewhere."""
        mask = self.levels[level]
        out = module(tokens[mask])
        dense = out.new_zeros(*mask.shape, out.shape[1])
        return dense.masked_scatter(mask[..., None], out)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "overrides",
    [{}, {"stem_kernel": 3, "down_widths": (4, 4), "block_norm_momentum": 0.1}],
    ids=["spunet", "minkunet"],
)
@pytest.mark.parametrize("sizes", [(200,), (90, 120)], ids=str)
def test_sparse_equals_dense(sizes, overrides, training):
    sparse, dense = (network(**overrides).train(training) for _ in range(2))
    xyz, feat, batch = points(*sizes)
    ours, theirs = feat.clone().requires_grad_(), feat.clone().requires_grad_()
    out, expected = sparse(xyz, ours, batch), Dense(dense, xyz, batch).forward(theirs)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-8)
    for (name, a), b in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-8, msg=name)
    for a, b in zip(sparse.buffers(), dense.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_number_of_parameters():
    """The count of the published network with six input features and no classifier."""
    with torch.device("meta"):
        net = create_backbone("spunet34", 6)
    assert sum(p.numel() for p in net.parameters()) == 39_155_904
    assert len(net.state_dict()) == 354
    assert net.out_dim == 96


def test_where_the_networks_widen():
    with torch.device("meta"):
        spunet, minkunet = create_backbone("spunet34", 6), create_backbone("minkunet34", 1)
        paper = create_backbone("spunet34_paper", 6)
    for net, widths in ((spunet, (32, 64, 128, 256)), (minkunet, (32, 32, 64, 128))):
        assert tuple(len(stage.down.norm.weight) for stage in net.encoder) == widths
    shortcuts = [len(stage.blocks[0].shortcut) for stage in minkunet.encoder]
    assert shortcuts == [0, 2, 2, 2]
    assert spunet.stem.conv.weight.shape == (32, 5, 5, 5, 6)
    assert minkunet.stem.conv.weight.shape == (32, 3, 3, 3, 1)
    assert spunet.decoder[0].blocks[0].shortcut[0].weight.shape == (256, 384)
    assert spunet.decoder[3].up.conv.weight.shape == (96, 2, 2, 2, 96)
    assert paper.out_dim == 64


def test_norms():
    def of(name, key):
        with torch.device("meta"):
            net = create_backbone(name, 3)
        return {m.eps for k, m in net.named_modules() if isinstance(m, nn.BatchNorm1d)}, {
            m.momentum
            for k, m in net.named_modules()
            if isinstance(m, nn.BatchNorm1d) and k.split(".")[-1].startswith(key)
        }

    assert of("spunet34", "norm") == ({1e-3}, {0.01})
    assert of("minkunet34", "norm1") == of("minkunet34", "norm2") == ({1e-5}, {0.1})
    with torch.device("meta"):
        net = create_backbone("minkunet34", 3)
    outer = [net.stem.norm, net.decoder[0].up.norm, net.decoder[0].blocks[0].shortcut[1]]
    assert {norm.momentum for norm in outer} == {0.05}


def test_initial_weights():
    torch.manual_seed(0)
    for name, is_normal in (("spunet34", True), ("minkunet34", False)):
        for module in create_backbone(name, 6).modules():
            if not isinstance(module, SubmanifoldConv | HalvingConv | nn.Linear):
                continue
            weight = module.weight.detach()
            bound = 1 / math.sqrt(weight[0].numel())
            if is_normal and not isinstance(module, HalvingConv):
                assert weight.std() == pytest.approx(0.02, rel=0.05)
                assert weight.abs().max() > 0.05
            else:
                assert weight.abs().max() <= bound
                assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_points_of_a_voxel_share_its_feature():
    net = network().eval()
    xyz, feat, batch = points(150)
    out = net(xyz, feat, batch)
    _, occupants = find_voxels(cartesian_cells(xyz, 0.5), batch)
    assert torch.equal(out, out[occupants.order[occupants.starts]][occupants.voxel])
    assert len(occupants.starts) < 120


def test_pooling():
    """One point a voxel, that of the first or of the mean, is the same as all of them."""
    xyz, feat, batch = points(150)
    _, occupants = find_voxels(cartesian_cells(xyz, 0.5), batch)
    first = occupants.order[occupants.starts]
    mean = torch.stack([feat[occupants.voxel == row].mean(0) for row in range(len(first))])
    one = xyz[first], batch[first]
    for pooling, alone in (("mean", mean), ("first", feat[first])):
        net = network(pooling=pooling).eval()
        torch.testing.assert_close(
            net(xyz, feat, batch), net(one[0], alone, one[1])[occupants.voxel]
        )


def test_place_of_a_scan():
    """Its own minimum, or the frame, decides where the grid is halved."""
    xyz, feat, batch = points(150)
    lowest = (xyz / 0.5).floor().amin(0) * 0.5
    moved = {cells: xyz - lowest + 0.5 * cells for cells in (0, 1, 4)}
    own, absolute = network().eval(), network(absolute_grid=True).eval()
    for cells in (1, 4):
        torch.testing.assert_close(own(moved[cells], feat, batch), own(moved[0], feat, batch))
    torch.testing.assert_close(absolute(moved[0], feat, batch), own(moved[0], feat, batch))
    torch.testing.assert_close(absolute(moved[4], feat, batch), absolute(moved[0], feat, batch))
    difference = absolute(moved[1], feat, batch) - absolute(moved[0], feat, batch)
    assert difference.abs().max() > 0.01


def test_cylindrical_voxels_turn_with_the_scan():
    """Turned by whole degrees away from the seam, a scan occupies the same voxels."""
    net = network(cylindrical=True, voxel_size=0.2).eval()
    xyz, feat, batch = points(150)
    xyz = xyz * torch.tensor([0.1, 0.1, 1]) + torch.tensor([4.0, 1, 0])
    turn = math.radians(-4)  # a multiple of the coarsest voxels
    x, y, z = xyz.unbind(1)
    turned = [x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn), z]
    torch.testing.assert_close(net(torch.stack(turned, 1), feat, batch), net(xyz, feat, batch))
    assert not torch.allclose(net(xyz.flip(1), feat, batch), net(xyz, feat, batch))


def test_batch_mates_and_empty_scans_change_nothing():
    net = network().eval()
    xyz, feat, batch = points(80, 70, 2)
    together = net(xyz, feat, batch)
    for scan in range(3):
        mine = batch == scan
        alone = net(xyz[mine], feat[mine], torch.zeros_like(batch[mine]))
        torch.testing.assert_close(together[mine], alone, rtol=1e-13, atol=1e-13)
    spaced = net(xyz, feat, 2 * batch + 1)  # scans 0, 2 and 4 are empty
    assert torch.equal(spaced, together)


def test_no_points():
    net = network().train()
    xyz, feat, batch = (value[:0] for value in points(3))
    out = net(xyz, feat.requires_grad_(), batch)
    assert out.shape == (0, 3)
    out.sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    assert feat.grad.shape == (0, 4)


@pytest.mark.parametrize("size", [1, 2])
def test_tiny_scan_in_training(size):
    """Batch norm alone would refuse the single voxel that is left of it."""
    net = network().train()
    out = net(*(value[:size] for value in points(3)))
    assert out.isfinite().all()
    out.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize("cylindrical", [False, True])
def test_not_finite(cylindrical):
    xyz, feat, batch = points(9)
    xyz[4, 0] = math.nan
    with pytest.raises(ValueError, match="1 of 9 points have a coordinate that is not finite"):
        network(cylindrical=cylindrical)(xyz, feat, batch)


def test_scan_too_wide_for_its_voxels():
    xyz, feat, batch = points(9)
    xyz[4] = 1e12
    with pytest.raises(ValueError, match=r"span up to 20\d+ x .*drop far points or enlarge voxel"):
        network()(xyz, feat, batch)


def test_bfloat16_autocast_computes_in_single_precision():
    net = network().float()
    xyz, feat, batch = points(100)
    expected = net(xyz, feat.float(), batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(xyz, feat.bfloat16().float(), batch)
        half = net(xyz, feat.bfloat16(), batch)
    assert out.dtype == torch.float32
    assert torch.equal(out, half)
    torch.testing.assert_close(out, expected, rtol=0.1, atol=0.1)  # features were rounded
    out.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())


def test_gradients_do_not_depend_on_the_order_of_threads():
    threads = torch.get_num_threads()
    net = network(8, stem_width=16, voxel_size=0.04).float()
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(3000, 3, generator=generator) * torch.tensor([1, 1, 0.1])
    feat = torch.randn(3000, 8, generator=generator, requires_grad=True)
    batch = torch.arange(2).repeat_interleave(1500)

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


def test_file_rebuilds_any_width(tmp_path):
    net = network(pooling="first", down_widths=(3, 5)).float().eval()
    file = tmp_path / "backbone.safetensors"
    save_backbone(file, net, name="sparse_unet", arguments=net.arguments, card={})
    again = load_backbone(file)
    xyz, feat, batch = points(60)
    assert again.arguments == net.arguments
    assert torch.equal(again(xyz, feat.float(), batch), net(xyz, feat.float(), batch))
    assert load_backbone(file, voxel_size=0.1).voxel_size == 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_dim": 0}, "in_dim and stem_width must be at least 1, got 0 and 4"),
        ({"stem_width": 0}, "in_dim and stem_width must be at least 1, got 4 and 0"),
        ({"voxel_size": 0.0}, "voxel_size must be positive metres, got 0"),
        ({"voxel_size": math.nan}, "voxel_size must be positive metres, got nan"),
        ({"stem_kernel": 4}, "stem_kernel must be odd, so that it has a centre; got 4"),
        ({"decoder_widths": (4,)}, r"one number a stage; they have \[2, 2, 1, 2, 2\]"),
        ({"encoder_depths": (1, 0)}, "widths and depths must be at least 1"),
        ({"pooling": "max"}, "pooling must be one of mean, first, got 'max'"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        network(**wrong)


@pytest.mark.parametrize("width", [3, 5])
def test_features_of_another_network(width):
    xyz, feat, batch = points(9)
    feat = feat[:, :1].expand(-1, width)
    for n in (9, 0):
        with pytest.raises(ValueError, match=rf"feat must be \[{n}, 4\], .*, got \[{n}, {width}\]"):
            network()(xyz[:n], feat[:n], batch[:n])


@unchecked_only
@pytest.mark.parametrize("more", [-1, 2])
def test_features_of_other_points(more):
    """Too many would not be noticed otherwise."""
    xyz, feat, batch = points(9)
    feat = feat[torch.arange(9 + more) % 9]
    with pytest.raises(ValueError, match=rf"feat must be \[9, 4\], .*, got \[{9 + more}, 4\]"):
        network()(xyz, feat, batch)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["spunet14_small", "minkunet14_small"])
def test_gpu_agrees_with_cpu(name):
    torch.manual_seed(0)
    net = create_backbone(name, 4, voxel_size=0.1).train()
    xyz, feat, batch = points(2000, 0, 1500)
    feat = feat.float()
    out = net(xyz, feat, batch)
    out.square().mean().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    net.cuda()
    on_gpu = net(xyz.cuda(), feat.cuda(), batch.cuda())
    on_gpu.square().mean().backward()
    torch.testing.assert_close(on_gpu.cpu(), out, rtol=1e-3, atol=1e-3)
    for (key, parameter), there in zip(net.named_parameters(), expected, strict=True):
        error = (parameter.grad.cpu() - there).abs().max() / there.abs().max().clamp(min=1e-6)
        assert error < 0.02, key
    frozen = feat.cuda().requires_grad_()
    net.eval()(xyz.cuda(), frozen, batch.cuda()).sum().backward()
    assert frozen.grad.abs().sum() > 0  # evaluation, too, passes gradients
    with torch.autocast("cuda", torch.float16):
        assert net(xyz.cuda(), frozen, batch.cuda()).isfinite().all()
