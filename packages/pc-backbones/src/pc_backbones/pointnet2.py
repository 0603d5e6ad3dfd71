"""PointNet++: features of ever wider balls, and back to the points (Qi et al., NeurIPS 2017)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.contract import Backbone
from pc_backbones.neighbors import scan_sizes
from pc_backbones.norms import RowNorm
from pc_backbones.point_ops import group_balls, interpolate, sample_farthest, three_nearest

Widths = Sequence[Sequence[int]]


class PointNet2(Backbone):
    """PointNet++ over packed batches, with one scale a level.

    On the way down each level keeps fewer points and gathers, around each, what a ball of the level
    before holds. On the way up features are interpolated and joined with what was there. That ends
    at the seeds, the centres of the level reached; every point gets what its three nearest hold.

    Args:
        in_dim: Number of input features of a point; may be 0.
        num_centers: Centres that each level keeps of a scan, or all if it has fewer.
        radii: Of the balls of each level, metres.
        ball_sizes: Points of a ball that each level looks at: the first ones in index order, so a
            scan's order matters unless balls hold no more.
        widths: Channels of each level's layers on the way down.
        up_widths: Channels of each level's layers on the way up, coarse to fine; as many levels,
            fewer than on the way down.
        norm_momentum: Of all batch norms.
        skip_origin: Never centre a ball near the frame's origin, see `point_ops.sample_farthest`.

    Attributes:
        in_dim: As given.
        out_dim: Features of a seed, and so of a point.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If numbers of levels do not agree, or an argument is out of range.

    Source: PointNet++ (Qi et al., NeurIPS 2017, arXiv:1706.02413); by default as VoteNet (Qi et
        al., ICCV 2019, arXiv:1904.09664) sets it: coordinates in a ball are divided by its radius.
        Differs in that scans of any size lie end to end, and no centre is chosen twice.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        num_centers: Sequence[int] = (2048, 1024, 512, 256),
        radii: Sequence[float] = (0.2, 0.4, 0.8, 1.2),
        ball_sizes: Sequence[int] = (64, 32, 16, 16),
        widths: Widths = ((64, 64, 128), (128, 128, 256), (128, 128, 256), (128, 128, 256)),
        up_widths: Widths = ((256, 256), (256, 256)),
        norm_momentum: float = 0.1,
        skip_origin: bool = False,
    ) -> None:
        super().__init__()
        _check(in_dim, num_centers, radii, ball_sizes, widths, up_widths)
        self.in_dim = in_dim
        self.num_neighbors = 0
        self.register_buffer("fov", None, persistent=False)
        self.voxel_size = None
        self.arguments = {
            "in_dim": in_dim,
            "num_centers": tuple(num_centers),
            "radii": tuple(radii),
            "ball_sizes": tuple(ball_sizes),
            "widths": tuple(tuple(layers) for layers in widths),
            "up_widths": tuple(tuple(layers) for layers in up_widths),
            "norm_momentum": norm_momentum,
            "skip_origin": skip_origin,
        }
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips = [in_dim]
        for layers, radius, num in zip(widths, radii, ball_sizes, strict=True):
            self.encoder.append(_Abstraction(skips[-1], layers, radius, num, norm_momentum))
            skips.append(layers[-1])
        width = skips.pop()
        for layers in up_widths:
            self.decoder.append(_Propagation(width, skips.pop(), layers, norm_momentum))
            width = layers[-1]
        self.out_dim = width

    def forward(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "n d"]:
        """Compute a feature for every point, between those of its scan's nearest seeds.

        Args:
            xyz: Points in metres.
            feat: Input features.
            batch: Scan of each point, sorted.
            neighbors: Not used.

        Raises:
            ValueError: If there are not `in_dim` features for each point, a coordinate is not
                finite, or `batch` is not sorted.
        """
        seeds, values = self.forward_seeds(xyz, feat, batch)
        if not len(xyz):
            return values
        xyz = _at_least_float32(xyz)
        nearest = three_nearest(xyz, scan_sizes(batch), xyz[seeds], scan_sizes(batch[seeds]))
        return interpolate(values, *nearest)

    def forward_seeds(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
    ) -> tuple[Int64[Tensor, " s"], Float[Tensor, "s d"]]:
        """Compute a feature for every seed.

        Args:
            xyz: Points in metres.
            feat: Input features.
            batch: Scan of each point, sorted.

        Returns:
            The points that are seeds, scan by scan, and their features.

        Raises:
            ValueError: As `forward`.
        """
        if feat.shape != (len(xyz), self.in_dim):
            raise ValueError(
                f"feat must be [{len(xyz)}, {self.in_dim}], the features of each point that the "
                f"network was built for (in_dim), got {list(feat.shape)}"
            )
        if not len(xyz):
            # Everything gets a gradient, zero: other processes may wait for it.
            nothing = feat.sum() + sum(parameter.sum() for parameter in self.parameters())
            return batch.new_empty(0), feat.new_zeros(0, self.out_dim) * nothing
        if not xyz.isfinite().all():
            raise ValueError("xyz must be finite, got NaN or infinite coordinates; drop the points")
        xyz, feat = _at_least_float32(xyz), feat.to(next(self.parameters()).dtype)
        return self._mix(xyz, feat, scan_sizes(batch))

    def layer_groups(self) -> Sequence[nn.Module]:
        """Modules from input to output, for layer-wise learning-rate decay."""
        return [*self.encoder, *self.decoder]

    def _mix(self, xyz: Tensor, feat: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        num_centers = self.arguments["num_centers"]
        sampled, sampled_sizes = sample_farthest(
            xyz, sizes, num_centers[0], skip_origin=self.arguments["skip_origin"]
        )
        passed = []  # of each level on the way down: positions, features, sizes, points
        points = torch.arange(len(xyz), device=xyz.device)
        for level, num in zip(self.encoder, num_centers, strict=True):
            passed.append((xyz, feat, sizes, points))
            # Coarser samples are the first of the finest ones.
            centers = sampled if len(passed) == 1 else _first_of_each(sizes, num, xyz.device)
            center_sizes = sampled_sizes if len(passed) == 1 else [min(size, num) for size in sizes]
            feat = level(xyz, feat, sizes, centers, center_sizes)
            xyz, points, sizes = xyz[centers], points[centers], center_sizes
        for level in self.decoder:
            fine_xyz, skip, fine_sizes, points = passed.pop()
            feat = level(feat, skip, *three_nearest(fine_xyz, fine_sizes, xyz, sizes))
            xyz, sizes = fine_xyz, fine_sizes
        return points, feat


class _Layer(nn.Module):
    """A linear layer, batch norm and ReLU of rows."""

    def __init__(self, in_dim: int, out_dim: int, norm_momentum: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim, bias=False)
        self.norm = RowNorm(out_dim, momentum=norm_momentum)
        nn.init.kaiming_normal_(self.linear.weight)

    def forward(self, rows: Tensor) -> Tensor:
        return self.finish(self.linear(rows))

    def finish(self, rows: Tensor) -> Tensor:
        """What follows the linear layer."""
        return functional.relu(self.norm(rows), inplace=True)


class _Abstraction(nn.Module):
    """From points to fewer centres: the maximum over what layers find in the ball of each."""

    def __init__(
        self, in_dim: int, widths: Sequence[int], radius: float, num: int, norm_momentum: float
    ) -> None:
        super().__init__()
        self.radius, self.num = radius, num
        self.layers = _layers(3 + in_dim, widths, norm_momentum)

    def forward(
        self,
        xyz: Tensor,
        feat: Tensor,
        sizes: Sequence[int],
        centers: Tensor,
        center_sizes: Sequence[int],
    ) -> Tensor:
        balls = group_balls(xyz, sizes, centers, center_sizes, radius=self.radius, num=self.num)
        local = ((xyz[balls] - xyz[centers][:, None]) / self.radius).flatten(0, 1)
        rows = self._enter(local.to(feat.dtype), feat, balls.flatten())
        for layer in self.layers[1:]:
            rows = layer(rows)
        # Not amax, which divides its gradient among equals: nine times as long on a CPU.
        return rows.unflatten(0, balls.shape).max(1).values

    def _enter(self, local: Tensor, feat: Tensor, index: Tensor) -> Tensor:
        """The first layer on (local position, feature of the point)."""
        first: _Layer = self.layers[0]  # pyrefly: ignore[bad-assignment]
        # Not feat[index]: its gradient is summed in whatever order the threads come.
        if feat.shape[1] < first.linear.out_features:
            around = functional.embedding(index, feat) if feat.shape[1] else local[:, :0]
            return first(torch.cat([local, around], dim=1))
        # Wide features: multiplied once for each point, not for each ball that it lies in.
        weight = first.linear.weight
        table = functional.linear(feat, weight[:, 3:])
        rows = functional.linear(local, weight[:, :3]) + functional.embedding(index, table)
        return first.finish(rows)


class _Propagation(nn.Module):
    """From centres back to the points of the level before: interpolation, then layers."""

    def __init__(
        self, in_dim: int, skip_dim: int, widths: Sequence[int], norm_momentum: float
    ) -> None:
        super().__init__()
        self.layers = _layers(in_dim + skip_dim, widths, norm_momentum)

    def forward(self, feat: Tensor, skip: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        rows = torch.cat([interpolate(feat, index, weight), skip], dim=1)
        for layer in self.layers:
            rows = layer(rows)
        return rows


def _layers(in_dim: int, widths: Sequence[int], norm_momentum: float) -> nn.ModuleList:
    return nn.ModuleList(_Layer(*pair, norm_momentum) for pair in pairwise([in_dim, *widths]))


def _first_of_each(sizes: Sequence[int], num: int, device: torch.device) -> Tensor:
    """The first `num` rows of each scan, or all that it has."""
    counts = torch.tensor(sizes, device=device)
    place = torch.arange(sum(sizes), device=device)
    return (place - (counts.cumsum(0) - counts).repeat_interleave(counts) < num).nonzero()[:, 0]


def _at_least_float32(xyz: Tensor) -> Tensor:
    xyz = xyz.detach()
    return xyz if xyz.dtype == torch.float64 else xyz.float()


def _check(
    in_dim: int,
    num_centers: Sequence[int],
    radii: Sequence[float],
    ball_sizes: Sequence[int],
    widths: Widths,
    up_widths: Widths,
) -> None:
    if in_dim < 0:
        raise ValueError(f"in_dim must be at least 0, got {in_dim}")
    lengths = [len(levels) for levels in (num_centers, radii, ball_sizes, widths)]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(
            "num_centers, radii, ball_sizes and widths must have one entry a level; they have "
            f"{lengths}"
        )
    if len(up_widths) >= len(widths):
        raise ValueError(
            f"up_widths must have fewer levels than the {len(widths)} of widths, as the input has "
            f"no layers of its own; got {len(up_widths)}"
        )
    if not all(0 < radius < float("inf") for radius in radii):
        raise ValueError(f"radii must be positive metres, got {tuple(radii)}")
    layers = [*widths, *up_widths]
    if min(*num_centers, *ball_sizes, *(min(level, default=0) for level in layers)) < 1:
        raise ValueError(
            "num_centers, ball_sizes and all widths must be at least 1, with one layer a level at "
            "least"
        )
