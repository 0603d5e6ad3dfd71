"""WaffleIron's training step: sparse evaluation against dense padded maps, in one run.

    uv run python -m tests.benchmarks.bench_waffleiron

The points are those of the real nuScenes keyframe if it is there, else a cloud of similar shape.
Both sides share weights and inputs, so their numbers are also compared. Every figure is a median;
the two sides take turns. Peak memory is what a step adds to the process (or to the GPU).
"""

import argparse
import resource
import statistics
import time

import numpy as np
import torch
from pc_backbones import WaffleIron, batch_neighbors

from tests.dense_waffleiron import dense_forward
from tests.real_data import REAL_DATA


def load_points():
    """Return {name: xyz} of one camera's view and of the full scan, thinned to 0.1 m."""
    from pc_geometry import voxel_subsample

    root = REAL_DATA / "nuscenes"
    if root.is_dir():
        file = next((root / "samples" / "LIDAR_TOP").glob("*.bin"))
        xyz = np.fromfile(file, np.float32).reshape(-1, 5)[:, :3]
    else:
        rng = np.random.default_rng(0)
        angle, reach = rng.uniform(-np.pi, np.pi, 34_000), rng.gamma(2.0, 8.0, 34_000)
        xyz = np.stack([reach * np.cos(angle), reach * np.sin(angle), rng.normal(-1, 1, 34_000)], 1)
    xyz = xyz.astype(np.float32)
    xyz = xyz[(np.abs(xyz) < [64, 64, 8]).all(1)]
    xyz = xyz[voxel_subsample(xyz, 0.1)[0]]
    ahead = np.abs(np.arctan2(xyz[:, 0], xyz[:, 1])) < np.deg2rad(35)
    return {"one camera": torch.from_numpy(xyz[ahead]), "full scan": torch.from_numpy(xyz)}


def step(forward, backbone, inputs, target):
    """One forward and backward; returns the output."""
    backbone.zero_grad(set_to_none=True)
    out = forward(*inputs)
    ((out - target) ** 2).mean().backward()
    return out.detach()


def measure_memory(run, device):
    """Peak bytes that `run` adds: of the GPU, or of a fresh child process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    import os

    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)  # a forked process has no OpenMP threads
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writer, str(grown * 1024).encode())
        os._exit(0)
    os.close(writer)
    grown = int(os.read(reader, 64))
    os.waitpid(child, 0)
    return grown


def compare(xyz, channels, depth, repeats, device):
    """Time and memory of both sides for one cloud and width."""
    torch.manual_seed(0)
    backbone = WaffleIron(5, channels=channels, depth=depth, layer_norm=channels > 384).to(device)
    xyz = xyz.to(device)
    feat = torch.cat([torch.rand(len(xyz), 1, device=device), xyz, xyz.norm(dim=1)[:, None]], 1)
    batch = torch.zeros(len(xyz), dtype=torch.long, device=device)
    neighbors = batch_neighbors(xyz, batch, 16)
    target = torch.randn(len(xyz), channels, device=device)
    inputs = (xyz, feat, batch, neighbors)
    sides = {
        "sparse": lambda: step(
            lambda x, f, b, nn: backbone(x, f, b, neighbors=nn), backbone, inputs, target
        ),
        "dense": lambda: step(
            lambda *given: dense_forward(backbone, *given), backbone, inputs, target
        ),
    }
    memory = {name: measure_memory(run, device) for name, run in sides.items()}
    seconds = {name: [] for name in sides}
    outputs = {name: run() for name, run in sides.items()}  # warm up
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    difference = (outputs["sparse"] - outputs["dense"]).abs().max() / outputs["dense"].abs().max()
    return {k: statistics.median(v) for k, v in seconds.items()}, memory, float(difference)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 768])
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print(
        f"{'points':>24} {'width':>5} {'dense s':>9} {'sparse s':>9} {'faster':>7}"
        f" {'dense MB':>9} {'sparse MB':>9} {'less':>6} {'difference':>10}"
    )
    for name, xyz in load_points().items():
        for channels in arguments.widths:
            seconds, memory, difference = compare(
                xyz, channels, arguments.depth, arguments.repeats, arguments.device
            )
            print(
                f"{name + f' ({len(xyz)})':>24} {channels:>5} {seconds['dense']:>9.3f}"
                f" {seconds['sparse']:>9.3f} {seconds['dense'] / seconds['sparse']:>6.1f}x"
                f" {memory['dense'] / 1e6:>9.0f} {memory['sparse'] / 1e6:>9.0f}"
                f" {memory['dense'] / max(memory['sparse'], 1):>5.1f}x {difference:>10.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
