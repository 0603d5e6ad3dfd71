"""PointNet++ as it is usually written in plain torch: scans of one size, dense arrays.

All distances between centres and points, sorted; sampling as a loop; 1x1 convolutions and maxima
over [b c s k]. Its layers have the names of `PointNet2`'s.
"""

import torch
from torch import nn
from torch.nn import functional


def _gather(values, index):
    """[b n c] at [b ...]."""
    scan = torch.arange(len(values)).view(-1, *[1] * (index.ndim - 1))
    return values[scan, index]


def _sample(xyz, num):
    chosen = torch.zeros(len(xyz), num, dtype=torch.long)
    distance = torch.full(xyz.shape[:2], torch.inf)
    farthest = torch.zeros(len(xyz), dtype=torch.long)
    for step in range(num):
        chosen[:, step] = farthest
        last = _gather(xyz, farthest[:, None])
        distance = torch.minimum(distance, (xyz - last).square().sum(2))
        farthest = distance.argmax(1)
    return chosen


def _balls(xyz, centers, radius, num):
    axes = zip(centers.unbind(2), xyz.unbind(2), strict=True)
    x, y, z = ((a[:, :, None] - b[:, None]).square() for a, b in axes)
    squared, limit = x + y + z, xyz.new_tensor(radius).square()
    index = torch.arange(xyz.shape[1]).expand(squared.shape)
    index = index.masked_fill(squared >= limit, xyz.shape[1]).sort(2).values[:, :, :num]
    return torch.where(index == xyz.shape[1], index[:, :, :1], index)


class _Layer(nn.Module):
    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.linear = nn.Conv2d(in_dim, out_dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_dim)

    def forward(self, x):
        return functional.relu(self.norm(self.linear(x)))


class _Level(nn.Module):
    def __init__(self, in_dim, widths):
        super().__init__()
        sizes = zip([in_dim, *widths], widths, strict=False)
        self.layers = nn.Sequential(*(_Layer(*size) for size in sizes))


class PlainPointNet2(nn.Module):
    """The same network for [b n 3] and [b n c]; returns features [b n d]."""

    def __init__(self, in_dim, *, num_centers, radii, ball_sizes, widths, up_widths, **_):
        super().__init__()
        self.levels = list(zip(num_centers, radii, ball_sizes, strict=True))
        skips = [in_dim, *(layers[-1] for layers in widths)]
        self.encoder = nn.ModuleList(
            _Level(3 + dim, layers) for dim, layers in zip(skips, widths, strict=False)
        )
        self.decoder, width = nn.ModuleList(), skips.pop()
        for layers in up_widths:
            self.decoder.append(_Level(width + skips.pop(), layers))
            width = layers[-1]

    def forward(self, xyz, feat):
        start, passed = xyz, []
        for (num, radius, size), level in zip(self.levels, self.encoder, strict=True):
            passed.append((xyz, feat))
            centers = _gather(xyz, _sample(xyz, num))
            balls = _balls(xyz, centers, radius, size)
            local = (_gather(xyz, balls) - centers[:, :, None]) / radius
            grouped = torch.cat([local, _gather(feat, balls)], 3).permute(0, 3, 1, 2)
            feat = level.layers(grouped).amax(3).transpose(1, 2)
            xyz = centers
        for level in self.decoder:
            fine, skip = passed.pop()
            rows = torch.cat([self._spread(fine, xyz, feat), skip], 2)
            feat = level.layers(rows.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
            xyz = fine
        return self._spread(start, xyz, feat)

    @staticmethod
    def _spread(query, xyz, feat):
        distance = torch.cdist(query, xyz, compute_mode="donot_use_mm_for_euclid_dist")
        distance, index = (part[:, :, :3] for part in distance.sort(2))
        weight = 1 / (distance + 1e-8)
        return (_gather(feat, index) * (weight / weight.sum(2, keepdim=True))[..., None]).sum(2)


def copy_weights(ours, plain):
    """Give the plain network the weights of ours."""
    wanted = plain.state_dict()
    weights = ours.state_dict()
    plain.load_state_dict({name: weights[name].reshape(wanted[name].shape) for name in wanted})
