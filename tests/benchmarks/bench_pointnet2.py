"""PointNet++ over packed scans beside the usual dense form in plain torch, on the CPU.

Both get the same weights and the same synthetic rooms, all of one size, as the dense form needs. A
step is forward, a scalar loss, and backward, in training mode. The parts that use no weights
(sampling, balls, interpolation) are timed on their own. All sides take turns.
"""

import argparse
import statistics
import time
from collections import defaultdict

import numpy as np
import torch
from pc_backbones import create_backbone
from pc_backbones.point_ops import group_balls, sample_farthest, three_nearest
from pc_data.synthetic.room import make_room

from tests import plain_pointnet2
from tests.plain_pointnet2 import PlainPointNet2, copy_weights


def load_rooms(num_rooms, num_points):
    """Points [b n 3] of rooms, and their height above the lowest [b n 1]."""
    rng = np.random.default_rng(0)
    rooms = []
    for seed in range(num_rooms):
        xyz = make_room(seed, False, voxel_size=0.02, num_frames=1).xyz
        rooms.append(xyz[rng.choice(len(xyz), num_points, replace=len(xyz) < num_points)])
    xyz = torch.from_numpy(np.stack(rooms).astype(np.float32))
    return xyz, xyz[..., 2:] - xyz[..., 2:].amin(1, keepdim=True)


def make_searches(xyz, arguments):
    """What both sides search at the finest level, as functions."""
    num, radius, size = (arguments[key][0] for key in ("num_centers", "radii", "ball_sizes"))
    sizes = [xyz.shape[1]] * len(xyz)
    rows = xyz.flatten(0, 1)
    centers, counts = sample_farthest(rows, sizes, num)
    dense = rows[centers].view(len(xyz), num, 3)
    seeds = dense[:, : arguments["num_centers"][1]].contiguous()
    seed_sizes = [seeds.shape[1]] * len(xyz)

    def nearest(query):
        distance = torch.cdist(query, seeds, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.sort(2)

    return {
        ("sample", "ours"): lambda: sample_farthest(rows, sizes, num),
        ("sample", "plain"): lambda: plain_pointnet2._sample(xyz, num),
        ("balls", "ours"): lambda: group_balls(
            rows, sizes, centers, counts, radius=radius, num=size
        ),
        ("balls", "plain"): lambda: plain_pointnet2._balls(xyz, dense, radius, size),
        ("nearest", "ours"): lambda: three_nearest(rows, sizes, seeds.flatten(0, 1), seed_sizes),
        ("nearest", "plain"): lambda: nearest(xyz),
    }


def make_steps(ours, plain, xyz, feat):
    """One forward and backward of each side, as functions."""
    batch = torch.arange(len(xyz)).repeat_interleave(xyz.shape[1])
    rows, columns = xyz.flatten(0, 1), feat.flatten(0, 1)

    def step(network, out):
        network.zero_grad(set_to_none=True)
        out.square().mean().backward()

    def forward_ours():
        return ours(rows, columns, batch)

    def forward_plain():
        return plain(xyz, feat)

    return {
        ("forward", "ours"): torch.no_grad()(forward_ours),
        ("forward", "plain"): torch.no_grad()(forward_plain),
        ("step", "ours"): lambda: step(ours, forward_ours()),
        ("step", "plain"): lambda: step(plain, forward_plain()),
    }


def compare_outputs(ours, plain, steps):
    """Largest difference of the features in eval mode, relative to the largest feature."""
    ours.eval()
    plain.eval()
    mine, other = steps["forward", "ours"](), steps["forward", "plain"]().flatten(0, 1)
    ours.train()
    plain.train()
    return float((mine - other).abs().max() / other.abs().max())


def measure(functions, repeats, clock):
    """Median seconds by (what, side); all take turns."""
    seconds = defaultdict(list)
    for repetition in range(repeats + 1):  # the first warms up
        for key, function in functions.items():
            start = clock()
            function()
            if repetition:
                seconds[key].append(clock() - start)
    return {key: statistics.median(values) for key, values in seconds.items()}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="pointnet2_votenet")
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--processor_time", action="store_true", help="for a CPU that others use too, with 1 thread"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    xyz, feat = load_rooms(arguments.rooms, arguments.points)
    ours = create_backbone(arguments.name, 1)
    plain = PlainPointNet2(**ours.arguments)
    copy_weights(ours, plain)
    steps = make_steps(ours, plain, xyz, feat)
    print(f"{arguments.rooms} rooms of {arguments.points:,} points, {arguments.name}")
    print(f"threads: {torch.get_num_threads()} of torch, 1 of the searches")
    print(f"features differ by {compare_outputs(ours, plain, steps):.1e} of the largest")
    clock = time.process_time if arguments.processor_time else time.perf_counter
    functions = make_searches(xyz, ours.arguments) | steps
    medians = measure(functions, arguments.repeats, clock)
    print(f"{'':>10} {'side':>8} {'seconds':>9} {'ours is faster':>15}")
    for (what, side), value in medians.items():
        ratio = "" if side == "ours" else f"{value / medians[what, 'ours']:.2f}x"
        print(f"{what:>10} {side:>8} {value:>9.4f} {ratio:>15}")


if __name__ == "__main__":
    main()
