"""A training step of Masked Scene Contrast beside plain spconv and brute-force matching.

    uv run python -m tests.benchmarks.bench_sparse_unet

Ours: `SparseUNet` on packed batches, pairs by `match_radius`. Plain: the same network from spconv's
layers on integer voxels and offsets, pairs by the nearest neighbours of each room, all distances
computed. Both get the same views, masks and weights, so their features are also compared; a room
has one point a voxel. Rooms are synthetic. Every figure is a median; all sides take turns.
"""

import argparse
import statistics
import time
from collections import defaultdict
from functools import partial

import numpy as np
import torch
from pc_backbones.sparse_unet import SparseUNet
from pc_data import Scan
from pc_data.augment.presets import msc_view
from pc_data.augment.views import View, match_views, msc_views
from pc_losses import color_reconstruction, info_nce
from torch import nn

from tests.plain_sparse_unet import PlainUNet, copy_weights

SIZES = {
    "small": {
        "stem_width": 16,
        "encoder_widths": (16, 32, 64, 128),
        "encoder_depths": (1, 1, 1, 1),
        "decoder_widths": (128, 64, 48, 48),
        "decoder_depths": (1, 1, 1, 1),
    },
    "paper": {
        "stem_width": 32,
        "encoder_widths": (32, 64, 128, 256),
        "encoder_depths": (2, 3, 4, 6),
        "decoder_widths": (256, 128, 96, 96),
        "decoder_depths": (2, 2, 2, 2),
    },
}
NUM_NEAREST = 8


def load_rooms(num_rooms, voxel_size):
    """Furnished rooms with colours and normals, denser than the voxels."""
    from pc_data.readers.scannet_files import vertex_normals
    from pc_data.synthetic.room import make_room

    rooms = []
    for seed in range(num_rooms):
        room = make_room(seed, False, voxel_size=0.8 * voxel_size, num_frames=1)
        color = (room.color / 255).astype(np.float32)
        normal = vertex_normals(room.xyz, room.faces).astype(np.float32)
        rooms.append(Scan(name=f"room {seed}", xyz=room.xyz, color=color, normal=normal))
    return rooms


def make_views(room, rng, voxel_size):
    """The two views of a room, one point a voxel also after rounding."""
    views = msc_views(room, rng, view=msc_view(voxel_size=voxel_size))
    kept = []
    for view in views:
        cells = np.floor(view.scan.xyz.astype(np.float64) / voxel_size)
        keep = np.sort(np.unique(cells, axis=0, return_index=True)[1])
        scan, index, origin = view.scan.select(keep), view.index[keep], view.origin[keep]
        kept.append(View(scan=scan, index=index, origin=origin))
    return kept


def pack_views(views, voxel_size, device):
    """What both networks take: points, features, scans, and voxels with the rooms' ends."""
    cells = [np.floor(view.scan.xyz.astype(np.float64) / voxel_size) for view in views]
    feat = [np.hstack([2 * view.scan.color - 1, view.scan.normal]) for view in views]
    packed = {
        "xyz": np.concatenate([view.scan.xyz for view in views]),
        "feat": np.concatenate(feat).astype(np.float32),
        "batch": np.repeat(np.arange(len(views)), [len(view) for view in views]),
        "voxel": np.concatenate([cell - cell.min(0) for cell in cells]).astype(np.int32),
        "offset": np.cumsum([len(view) for view in views]),
    }
    return {name: torch.from_numpy(array).to(device) for name, array in packed.items()}


def match_ours(query, key, radius, seed):
    """Pairs of one room, by `pc_geometry.match_radius`."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(match_views(query, key, rng, radius=radius, max_neighbors=NUM_NEAREST))


def match_tree(query, key, radius, seed):
    """The same by SciPy's k-d tree."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(key.origin).query(
        query.origin, NUM_NEAREST, distance_upper_bound=radius
    )
    return _draw(torch.from_numpy(distance), torch.from_numpy(index), radius, seed)


def match_brute(query, key, radius, seed, device="cpu", rows=1024):
    """The same from all distances between the two views."""
    nearest = []
    others = torch.from_numpy(key.origin).to(device)
    for some in torch.from_numpy(query.origin).to(device).split(rows):
        distance = torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist")
        nearest.append(distance.topk(min(NUM_NEAREST, len(others)), largest=False))
    distance, index = (torch.cat(parts) for parts in zip(*nearest, strict=True))
    return _draw(distance, index, radius, seed)


def _draw(distance, index, radius, seed):
    """One of the near ones, which come first, for each point that has any."""
    count = (distance < radius).sum(1)
    drawn = torch.rand(len(count), generator=torch.Generator().manual_seed(seed))
    drawn = (drawn.to(count.device) * count).long().clamp(max=index.shape[1] - 1)
    pairs = torch.stack([torch.arange(len(count), device=count.device), index[_rows(drawn)]], 1)
    return pairs[count > 0]


def _rows(drawn):
    return torch.arange(len(drawn), device=drawn.device), drawn


class Step(nn.Module):
    """One network with what MSC adds to it."""

    def __init__(self, encode, network, match, width, device):
        super().__init__()
        torch.manual_seed(1)
        self.encode, self.network, self.match = encode, network, match
        self.token, self.head = nn.Parameter(torch.zeros(1, 6)), nn.Linear(width, 3)
        self.to(device)
        self.optimizer = torch.optim.SGD(self.parameters(), 1e-6, momentum=0.9, nesterov=True)

    def run(self, rooms, views, masks, max_pairs, clock):
        """Match, encode, both losses, update; return the seconds of matching and of all."""
        start = clock()
        pairs, first = [], torch.zeros(2, dtype=torch.long)
        for seed, (query, key) in enumerate(rooms):
            pairs.append(self.match(query, key, seed=seed).cpu() + first)
            first = first + torch.tensor([len(query), len(key)])
        order = torch.randperm(sum(map(len, pairs)), generator=torch.Generator().manual_seed(0))
        pairs = torch.cat(pairs)[order[:max_pairs]].to(self.token.device)
        matched = clock()
        query, key = (
            self.encode(self.network, view, torch.where(mask[:, None], self.token, view["feat"]))
            for view, mask in zip(views, masks, strict=True)
        )
        hidden = torch.cat([query[masks[0]], key[masks[1]]])
        target = torch.cat([view["feat"][mask] for view, mask in zip(views, masks, strict=True)])
        loss = info_nce(query[pairs[:, 0]], key[pairs[:, 1]])
        loss = loss + color_reconstruction(self.head(hidden), target[:, :3])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return matched - start, clock() - start


def encode_ours(network, view, feat):
    """Features of a view by `SparseUNet`."""
    return network(view["xyz"], feat, view["batch"])


def encode_plain(network, view, feat):
    """Features of a view by the plain network."""
    return network(view["voxel"], feat, view["offset"])


def make_steps(size, voxel_size, radius, device):
    """Both sides, with the same weights."""
    torch.manual_seed(0)
    ours = SparseUNet(6, voxel_size=voxel_size, **SIZES[size])
    plain = PlainUNet(6, native=device == "cpu", **SIZES[size])
    copy_weights(ours, plain)
    brute = partial(match_brute, radius=radius, device=device)
    return {
        "ours": Step(encode_ours, ours, partial(match_ours, radius=radius), ours.out_dim, device),
        "plain": Step(encode_plain, plain, brute, ours.out_dim, device),
    }


def compare_outputs(steps, view):
    """Largest difference of the features in eval mode, relative to the largest feature."""
    with torch.no_grad():
        ours, plain = (
            step.encode(step.network.eval(), view, view["feat"]) for step in steps.values()
        )
    for step in steps.values():
        step.network.train()
    return float((ours - plain).abs().max() / ours.abs().max())


def measure(steps, rooms, views, masks, arguments):
    """Medians by (what, side); all sides take turns."""
    now = time.process_time if arguments.processor_time else time.perf_counter

    def clock():
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        return now()

    radius, seconds = 1.5 * arguments.voxel_size, defaultdict(list)
    for repetition in range(arguments.repeats + 1):  # the first warms up
        taken = {}
        for side, step in steps.items():
            matching, whole = step.run(rooms, views, masks, arguments.pairs, clock)
            taken["matching", side] = matching
            taken["network", side] = whole - matching
            taken["step", side] = whole
        start = clock()
        for seed, (query, key) in enumerate(rooms):
            match_tree(query, key, radius, seed)
        taken["matching", "cKDTree"] = clock() - start
        for name, value in taken.items() if repetition else ():
            seconds[name].append(value)
    return {name: statistics.median(values) for name, values in seconds.items()}


def count_pairs(rooms, radius):
    """How many points of the query find a partner, by each way to match."""
    matchers = {"ours": match_ours, "cKDTree": match_tree, "plain": match_brute}
    return {
        side: sum(len(match(query, key, radius, 0)) for query, key in rooms)
        for side, match in matchers.items()
    }


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--rooms", type=int, default=2)
    parser.add_argument("--voxel_size", type=float, default=0.1)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--processor_time", action="store_true", help="for a CPU that others use too, with 1 thread"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    voxel_size, device = arguments.voxel_size, arguments.device
    torch.set_num_threads(arguments.threads)
    radius, rng = 1.5 * voxel_size, np.random.default_rng(0)
    rooms = [make_views(room, rng, voxel_size) for room in load_rooms(arguments.rooms, voxel_size)]
    views = [pack_views([room[side] for room in rooms], voxel_size, device) for side in (0, 1)]
    generator = torch.Generator().manual_seed(0)
    masks = [(torch.rand(len(v["xyz"]), generator=generator) < 0.3).to(device) for v in views]
    steps = make_steps(arguments.size, voxel_size, radius, device)
    points = " and ".join(f"{len(view['xyz']):,}" for view in views)
    print(f"{arguments.rooms} rooms, {points} points in the two views, {device}, {arguments.size}")
    print(f"threads: {torch.get_num_threads()} of torch, 1 of match_radius, 1 of cKDTree")
    print(f"points with a partner: {count_pairs(rooms, radius)}")
    print(f"features differ by {compare_outputs(steps, views[0]):.1e} of the largest")
    medians = measure(steps, rooms, views, masks, arguments)
    print(f"{'':>10} {'side':>8} {'seconds':>9} {'ours is faster':>15}")
    for (what, side), value in medians.items():
        ratio = "" if side == "ours" else f"{value / medians[what, 'ours']:.2f}x"
        print(f"{what:>10} {side:>8} {value:>9.4f} {ratio:>15}")


if __name__ == "__main__":
    main()
