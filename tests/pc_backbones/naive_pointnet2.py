"""PointNet++ as loops over points, one scan after the other: the oracle."""

import numpy as np
import torch
from torch.nn import functional


def squared(a, b):
    dx, dy, dz = a - b
    return dx * dx + dy * dy + dz * dz


def farthest(xyz, num, skip_origin=False):
    """Indices, with ties to the lowest; duplicates last, in ascending order."""
    left = [i for i, p in enumerate(xyz) if i == 0 or not skip_origin or squared(p, 0 * p) > 1e-3]
    chosen = [left.pop(0)]
    nearest = {i: squared(xyz[i], xyz[0]) for i in left}
    while nearest and len(chosen) < num:
        best = max(nearest, key=lambda i: (nearest[i], -i))
        chosen.append(best)
        del nearest[best]
        nearest = {i: min(d, squared(xyz[i], xyz[best])) for i, d in nearest.items()}
    return chosen


def ball(xyz, center, radius, num):
    limit = xyz.dtype.type(radius) ** 2
    found = [i for i, p in enumerate(xyz) if squared(p, center) < limit][:num]
    return found + found[:1] * (num - len(found))


def nearest_three(point, xyz):
    """Of (index, weight), the nearest first."""
    order = sorted(range(len(xyz)), key=lambda i: (np.float32(squared(xyz[i], point)), i))[:3]
    weights = np.array([1 / (np.sqrt(squared(xyz[i], point)) + 1e-8) for i in order])
    return list(zip(order, weights / weights.sum(), strict=True))


def mix(layers, rows, training):
    for layer in layers:
        norm, hidden = layer.norm, rows @ layer.linear.weight.T
        single = len(hidden) == 1
        statistics = (norm.running_mean.clone(), norm.running_var.clone())
        rows = functional.batch_norm(
            hidden, *statistics, norm.weight, norm.bias, training and not single, eps=norm.eps
        ).relu()
    return rows


def spread(query, xyz, feat):
    found = [nearest_three(point, xyz) for point in query]
    return torch.stack([sum(feat[i] * float(w) for i, w in near) for near in found])


def cut(rows, like):
    return list(rows.split([len(xyz) for xyz in like]))


def forward(network, scans, feats):
    """Features of all points and of the seeds, and these seeds' points, of each scan."""
    arguments, passed = network.arguments, []
    points = [np.arange(len(xyz)) for xyz in scans]
    start = scans
    for number, level in enumerate(network.encoder):
        passed.append((scans, feats, points))
        radius, num = arguments["radii"][number], arguments["ball_sizes"][number]
        rows, kept, origin = [], [], []
        for xyz, feat, point in zip(scans, feats, points, strict=True):
            chosen = farthest(xyz, arguments["num_centers"][number], arguments["skip_origin"])
            kept.append(xyz[chosen])
            origin.append(point[chosen])
            for center in chosen:
                for i in ball(xyz, xyz[center], radius, num):
                    local = torch.from_numpy((xyz[i] - xyz[center]) / radius)
                    rows.append(torch.cat([local, feat[i]]))
        rows = mix(level.layers, torch.stack(rows), network.training)
        feats = cut(rows.unflatten(0, (-1, num)).max(1).values, kept)
        scans, points = kept, origin
    for level in network.decoder:
        fine, skips, points = passed.pop()
        rows = [
            torch.cat([spread(query, xyz, feat), skip], 1)
            for query, xyz, feat, skip in zip(fine, scans, feats, skips, strict=True)
        ]
        feats, scans = cut(mix(level.layers, torch.cat(rows), network.training), fine), fine
    everywhere = [
        spread(query, xyz, feat) for query, xyz, feat in zip(start, scans, feats, strict=True)
    ]
    return everywhere, feats, points
