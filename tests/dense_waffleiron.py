"""WaffleIron the straightforward way: padded scans, full grids, conv2d. The oracle of the fast one.

Shares the modules (so the parameters) of a `pc_backbones.WaffleIron`.
"""

import torch

PLANE_AXES = ((0, 1), (0, 2), (1, 2))


def dense_forward(backbone, xyz, feat, batch, neighbors):
    """Return [n c] like the backbone, from padded tensors [b c n] and dense maps [b c h w]."""
    counts = torch.bincount(batch)
    cells = [
        _cells(backbone, xyz, axes, grid)
        for axes, grid in zip(PLANE_AXES, backbone.grids, strict=True)
    ]
    tokens = backbone.embedding(feat, neighbors)
    tokens, real = _pad(tokens, counts)  # [b n c], [b n]
    cells = [_pad(cell[:, None], counts)[0][..., 0] for cell in cells]
    for depth, layer in enumerate(backbone.layers):
        cell, grid = cells[depth % 3], backbone.grids[depth % 3]
        tokens = tokens + _spatial(layer, _norm(layer.spatial_norm, tokens, real), cell, real, grid)
        channel = layer.activation(layer.expand(_norm(layer.channel_norm, tokens, real)))
        tokens = tokens + layer.contract(channel) * layer.channel_scale
    return tokens[real]


def _norm(norm, tokens, real):
    if isinstance(norm, torch.nn.LayerNorm) or bool(real.all()):
        return norm(tokens.flatten(0, 1)).view_as(tokens)
    out = torch.zeros_like(tokens)
    out[real] = norm(tokens[real])  # batch norm over real points only
    return out


def _spatial(layer, tokens, cell, real, grid):
    channels = tokens.transpose(1, 2)  # [b c n]
    where = cell[:, None].expand_as(channels)
    zeros = channels.new_zeros(*channels.shape[:2], grid[0] * grid[1])
    total = zeros.scatter_add(2, where, channels * real[:, None])
    count = zeros[:, :1].scatter_add(2, cell[:, None], real[:, None].to(channels.dtype))
    map2d = (total / (count + 1e-6)).unflatten(2, grid)
    mixed = layer.gather(layer.activation(layer.spread(map2d)))
    return (mixed * layer.spatial_scale[:, None, None]).flatten(2).gather(2, where).transpose(1, 2)


def _cells(backbone, xyz, axes, grid):
    low, high = backbone.fov.to(xyz.dtype)
    size = torch.tensor(grid, device=xyz.device)
    index = torch.trunc((xyz[:, axes] - low[list(axes)]) / ((high - low)[list(axes)] / size)).long()
    return index[:, 0] * grid[1] + index[:, 1]


def _pad(values, counts):
    real = torch.arange(int(counts.max()), device=values.device) < counts[:, None]
    padded = values.new_zeros(*real.shape, values.shape[1])
    padded[real] = values
    return padded, real
