"""Superpixels pooled from feature maps, upsampled or not: time and memory of one step.

    uv run python -m tests.benchmarks.bench_superpixel_pooling

Forward and backward of `pool_superpixels`, beside the plain way: upsample the map, normalise, sum
pixels by superpixel. Both see the same features and superpixels (a grid of rectangles an image), in
turn; seconds are medians. Peak memory is what a step adds to the process (or to the GPU), features
and superpixels left out. Before anything is timed, results and gradients are compared.
"""

import argparse
import statistics
import time

import torch
from pc_2dteachers.pooling import pool_superpixels
from torch.nn import functional

from tests.benchmarks.bench_waffleiron import measure_memory

IMAGE = (224, 416)
LAYOUTS = {40: (5, 8), 150: (10, 15)}  # rows and columns of superpixels


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--strides", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--superpixels", type=int, nargs="+", default=[40, 150], choices=LAYOUTS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print(f"{arguments.images} images of {IMAGE[0]}x{IMAGE[1]}, {arguments.channels} channels")
    names = ("plain s", "ours s", "ratio", "plain MB", "ours MB", "ratio")
    print(f"{'stride':>6} {'superpixels':>11} " + " ".join(f"{name:>9}" for name in names))
    cases = [(stride, num) for stride in arguments.strides for num in arguments.superpixels]
    # Memory first: what a process has freed it would take again without growing.
    memory = [measure(arguments, *case) for case in cases]
    for case, (plain_mb, our_mb) in zip(cases, memory, strict=True):
        plain, ours = compare(arguments, *case)
        print(
            f"{case[0]:>6} {case[1]:>11} {plain:>9.4f} {ours:>9.4f} {plain / ours:>9.1f} "
            f"{plain_mb:>9.0f} {our_mb:>9.0f} {plain_mb / our_mb:>9.1f}",
            flush=True,
        )


def measure(arguments, stride, num_superpixels):
    """Peak megabytes of both ways."""
    step = make_step(arguments, stride, num_superpixels)
    ways = (pool_upsampled, pool_superpixels)
    return [measure_memory(lambda way=way: step(way), arguments.device) / 1e6 for way in ways]


def compare(arguments, stride, num_superpixels):
    """Median seconds of both ways, whose results and gradients must be the same."""
    step = make_step(arguments, stride, num_superpixels)
    for got, want in zip(step(pool_superpixels), step(pool_upsampled), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)
    ways = (lambda: step(pool_upsampled), lambda: step(pool_superpixels))
    spent = [[timed(way, arguments.device) for way in ways] for _ in range(arguments.repeats)]
    return [statistics.median(column) for column in zip(*spent, strict=True)]


def make_step(arguments, stride, num_superpixels):
    """Forward and backward of a way to pool, on the same input each time."""
    superpixel = grid_superpixels(arguments.images, LAYOUTS[num_superpixels])
    superpixel = superpixel.to(arguments.device)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.images, arguments.channels, IMAGE[0] // stride, IMAGE[1] // stride)
    features = torch.randn(shape, generator=generator).to(arguments.device).requires_grad_(True)
    num = arguments.images * num_superpixels
    target = torch.randn(num, arguments.channels, generator=generator).to(arguments.device)

    def step(pool):
        pooled = pool(features, superpixel, num)
        return pooled.detach(), torch.autograd.grad((pooled * target).sum(), features)[0]

    return step


def pool_upsampled(features, superpixel, num_superpixels):
    """The plain way: the whole map at the image's size, then a sum over pixels."""
    whole = functional.interpolate(
        features, superpixel.shape[1:], mode="bilinear", align_corners=True
    )
    pixels = functional.normalize(whole, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    of = superpixel.flatten().long()
    total = pixels.new_zeros(num_superpixels, pixels.shape[1])
    total = total.scatter_add(0, of[:, None].expand_as(pixels), pixels)
    return total / torch.bincount(of, minlength=num_superpixels)[:, None]


def grid_superpixels(images, layout):
    """Rectangles with uneven borders, numbered through the images."""
    rows, columns = layout
    v, u = torch.meshgrid(torch.arange(IMAGE[0]), torch.arange(IMAGE[1]), indexing="ij")
    v = (v + 3 * torch.sin(u / 5)).clamp(0, IMAGE[0] - 1)
    u = (u + 3 * torch.sin(v / 7)).clamp(0, IMAGE[1] - 1)
    one = (v * rows / IMAGE[0]).long() * columns + (u * columns / IMAGE[1]).long()
    return one + torch.arange(images)[:, None, None] * (rows * columns)


def timed(run, device):
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
