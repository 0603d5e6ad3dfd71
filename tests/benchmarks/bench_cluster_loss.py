"""Global objectives of SSPL against the number of volumes: time and memory of one step.

    uv run python -m tests.benchmarks.bench_cluster_loss

Forward and backward of ClusterInfoNCE, whose cost should stay where it is once all its look-ups are
taken, beside InfoNCE over the whole queue, whose cost should grow with the volumes. Both see the
same features, in turn; seconds are medians. Peak memory is what a step adds to the process (or to
the GPU), the queue itself left out. The refresh of the clusters is timed apart.
"""

import argparse
import statistics
import time

import torch
from pc_losses.clusters import ClusteredQueue, cluster_info_nce
from pc_losses.queue import queue_info_nce

from tests.benchmarks.bench_waffleiron import measure_memory


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, nargs="+", default=[100, 200, 400, 800, 1600])
    parser.add_argument("--rows", type=int, default=300_000, help="size of the queue")
    parser.add_argument("--clusters", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    queue = fill_queue(arguments.rows, arguments.clusters, arguments.device)
    seconds = timed(queue.refresh, arguments.device)
    print(f"refresh of {arguments.rows} rows in {arguments.clusters} clusters: {seconds:.2f} s")
    print(f"{'volumes':>8} {'cluster s':>10} {'queue s':>8} {'cluster MB':>11} {'queue MB':>9}")
    for num in arguments.volumes:
        steps = steps_of(queue, num)
        memory = [measure_memory(step, arguments.device) / 1e6 for step in steps]
        spent = [
            [timed(step, arguments.device) for step in steps] for _ in range(arguments.repeats)
        ]
        medians = [statistics.median(column) for column in zip(*spent, strict=True)]
        print(
            f"{num:>8} {medians[0]:>10.3f} {medians[1]:>8.3f} {memory[0]:>11.0f} {memory[1]:>9.0f}",
            flush=True,
        )


def fill_queue(num_rows, num_clusters, device):
    """A full queue of features around as many directions as there are clusters."""
    generator = torch.Generator().manual_seed(0)
    queue = ClusteredQueue(size=num_rows, num_clusters=num_clusters).to(device)
    centers = torch.randn(num_clusters, 128, generator=generator)
    which = torch.randint(num_clusters, (num_rows,), generator=generator)
    noise = torch.randn(num_rows, 128, generator=generator)
    queue.push((centers[which] + noise).to(device))
    return queue


def steps_of(queue, num_volumes):
    """The two objectives of as many volumes, which look like rows of the queue."""
    drawn = torch.arange(num_volumes, device=queue.feature.device)
    key = queue.feature[drawn] + 0.02 * torch.randn_like(queue.feature[drawn])
    query = key.clone().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)

    def clustered():
        cluster_info_nce(
            query,
            key,
            queue.feature,
            queue.labels,
            num_clusters=queue.num_clusters,
            generator=generator,
        ).backward()

    def whole():
        queue_info_nce(query, key, queue.feature).backward()

    return clustered, whole


def timed(run, device):
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
