"""Features of past steps as negatives: a first-in, first-out queue, and InfoNCE against it."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pc_losses.contrast import unit_rows
from pc_losses.reduction import gather_rows, mean_over_processes
from pc_losses.volumes import check_temperature


class FeatureQueue(nn.Module):
    """The last `size` features that were pushed, as unit rows, in all processes the same.

    It starts with random directions, the same in every process and run; `full` tells when the last
    of them is gone. Everything is in the `state_dict`, so that a resumed run goes on with the same
    queue. The default takes 154 MB: under DistributedDataParallel pass `broadcast_buffers=False`,
    which would send it at every step.

    Attributes:
        feature: The rows, float32, of length 1.
        num_pushed: How many rows were ever pushed, by all processes together.

    Source: MoCo (He et al., CVPR 2020, arXiv:1911.05722); the size is that of SSPL (Zhang, Bai and
        Li, NeurIPS 2022), Sec. 3.4. Differs from the code of MoCo and DepthContrast: the size need
        not be a multiple of the batch.
    """

    feature: Float[Tensor, "size dim"]
    num_pushed: Int64[Tensor, ""]

    def __init__(self, dim: int = 128, size: int = 300_000) -> None:
        """Raise ValueError if `dim` or `size` is below 1."""
        super().__init__()
        for name, value in (("dim", dim), ("size", size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; the default will do")
        directions = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("feature", unit_rows(directions))
        self.register_buffer("num_pushed", torch.zeros((), dtype=torch.int64))

    @property
    def size(self) -> int:
        """How many rows it holds."""
        return len(self.feature)

    @property
    def position(self) -> int:
        """The row that is written next; the oldest one once the queue is full."""
        return int(self.num_pushed) % self.size

    @property
    def num_filled(self) -> int:
        """How many rows were pushed and are still held; they are the first ones."""
        return min(int(self.num_pushed), self.size)

    @property
    def full(self) -> bool:
        """Whether every row was pushed, none random."""
        return self.num_filled == self.size

    @torch.no_grad()
    def push(self, feature: Float[Tensor, "b dim"]) -> Int64[Tensor, " p"]:
        """Write the rows of all processes over the oldest ones, in order of rank.

        Every process must call this equally often, with as many rows as it has. Of more rows than
        the queue holds the last ones stay. Compute the losses of a step first: against rows of
        itself a volume has an easy task.

        Args:
            feature: Rows of this process, of any length; they are L2-normalised here.

        Returns:
            The rows of the queue that were written, the oldest first.

        Raises:
            ValueError: If the features are not as wide as the queue.
        """
        width = self.feature.shape[1]
        if feature.ndim != 2 or feature.shape[1] != width:
            raise ValueError(
                f"feature must be [b, {width}], got {list(feature.shape)}; give the queue the "
                "width of the projection"
            )
        rows, _ = gather_rows(unit_rows(feature.detach()).to(self.feature.dtype))
        skipped = max(len(rows) - self.size, 0)
        places = torch.arange(skipped, len(rows), device=rows.device)
        places = (places + self.num_pushed) % self.size
        self.feature[places] = rows[skipped:]
        self.num_pushed += len(rows)
        return places


def queue_info_nce(
    query: Float[Tensor, "v c"],
    key: Float[Tensor, "v c"],
    queue: Float[Tensor, "q c"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Pick each query's own key among that key and all rows of the queue.

    The mean is over the queries of all processes (see `mean_over_processes`); none give a zero
    that can be back-propagated. Rows of the queue get no gradient, and may be overwritten before
    the backward pass.

    Memory and time grow with v * q: about four matrices of this size in float32 and a copy of the
    queue, 2.1 GB for 400 volumes and 300,000 rows. `cluster_info_nce` is there for many volumes.

    Args:
        query: Features in the first view, of any length; L2-normalised here.
        key: Features of the same scans or volumes in the second view.
        queue: Negatives, of length 1: the rows of a `FeatureQueue`.
        temperature: What the cosines are divided by, above 0.

    Raises:
        ValueError: If shapes do not fit or the temperature is not above 0.

    Source: MoCo (He et al., CVPR 2020, arXiv:1911.05722), Eq. 1; DepthContrast (Zhang et al., ICCV
        2021, arXiv:2101.02691), whose temperature this is.
    """
    check_temperature(temperature)
    check_features(query, key, queue)
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, key.dtype)
        query, key = unit_rows(query.to(dtype)), unit_rows(key.to(dtype))
        query = query / temperature
        own = (query * key).sum(dim=1)
        negatives = queue.detach().to(query.dtype, copy=True)  # the backward pass needs it as it is
        total = torch.logaddexp(own, torch.logsumexp(query @ negatives.T, dim=1))
        return mean_over_processes(total - own)


def check_features(query: Tensor, key: Tensor, queue: Tensor) -> None:
    """Raise ValueError unless all have one width, and query and key the same rows."""
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(
            f"query and key must both be [v, c], got {list(query.shape)} and {list(key.shape)}; "
            "give the two features of each volume in the same row"
        )
    if queue.ndim != 2 or queue.shape[1] != query.shape[1]:
        raise ValueError(
            f"the queue must be [q, {query.shape[1]}], as wide as the queries, got "
            f"{list(queue.shape)}"
        )
