"""WaffleIron: point tokens mixed on axis-aligned 2D grids (Puy et al., ICCV 2023).

The spatial mixing is evaluated exactly on occupied cells and their neighbourhoods only, see
`pc_backbones.planes`; the published network runs dense maps and gives the same numbers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.contract import Backbone
from pc_backbones.neighbors import batch_neighbors
from pc_backbones.planes import (
    PlaneCells,
    find_cells,
    gather_from_hidden,
    mean_per_cell,
    read_cells,
    spread_to_hidden,
)

Grids = Sequence[Sequence[int]]
FieldOfView = Sequence[Sequence[float | int]]

SCALR_GRIDS: Grids = ((256, 256), (256, 32), (256, 32))
SCALR_FOV: FieldOfView = ((-64.0, -64.0, -8.0), (64.0, 64.0, 8.0))
_PLANE_AXES = ((0, 1), (0, 2), (1, 2))


class WaffleIron(Backbone):
    """WaffleIron backbone over packed batches.

    Layer d mixes on plane d modulo 3 (xy, xz, yz), then across channels.

    Args:
        in_dim: Number of input features of a point.
        channels: Width of the tokens.
        depth: Number of layers.
        layer_norm: Layer norm instead of batch norm in the layers; the widest network (768) is
            unstable with batch norm. The embedding keeps batch norm.
        grids: Cells of the xy, xz and yz planes along their two axes. No weight depends on them.
        fov: Lower and upper corner in metres of the box that the grids divide.
        num_neighbors: Neighbours whose features enter the embedding.
        drop_path: Probability that a scan skips a residual branch in training; the same in
            every layer; less than 1.
        gelu: GELU instead of ReLU in both mixings (ScaLR+).

    Attributes:
        in_dim: As given.
        out_dim: Equals `channels`.
        arguments: What rebuilds the network.

    Raises:
        ValueError: If `drop_path` is not in [0, 1).

    Source: WaffleIron (Puy et al., ICCV 2023, arXiv:2301.10100), Sec. 3; ScaLR (Puy et al.,
        CVPR 2024, arXiv:2310.17504). Batch norm counts real points only, where the published
        code counts the padding of shorter scans too.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        channels: int = 768,
        depth: int = 48,
        layer_norm: bool = True,
        grids: Grids = SCALR_GRIDS,
        fov: FieldOfView = SCALR_FOV,
        num_neighbors: int = 16,
        drop_path: float = 0.0,
        gelu: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {drop_path}")
        self.in_dim = in_dim
        self.out_dim = channels
        self.grids = tuple((int(rows), int(columns)) for rows, columns in grids)
        self.num_neighbors = num_neighbors
        self.voxel_size = None
        self.arguments = {
            "in_dim": in_dim,
            "channels": channels,
            "depth": depth,
            "layer_norm": layer_norm,
            "grids": self.grids,
            "fov": tuple(tuple(corner) for corner in fov),
            "num_neighbors": num_neighbors,
            "drop_path": drop_path,
            "gelu": gelu,
        }
        self.register_buffer("fov", torch.tensor(fov, dtype=torch.float32), persistent=False)
        self.embedding = _Embedding(in_dim, channels)
        self.layers = nn.ModuleList(
            _Layer(channels, layer_norm=layer_norm, drop_path=drop_path, gelu=gelu)
            for _ in range(depth)
        )

    def forward(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """Compute a feature for every point.

        Args:
            xyz: Points in metres, inside the field of view.
            feat: Input features.
            batch: Scan of each point, sorted.
            neighbors: Nearest neighbours of each point within its scan, itself excluded, as
                indices into the packed points; found here if not given.

        Raises:
            ValueError: If a point lies outside the field of view.
        """
        planes = self._find_planes(xyz, batch)
        num_scans = int(batch[-1]) + 1 if len(batch) else 0
        if neighbors is None:
            neighbors = batch_neighbors(xyz, batch, self.num_neighbors)
        tokens = self.embedding(feat, neighbors)
        for depth, layer in enumerate(self.layers):
            tokens = layer(tokens, planes[depth % 3], batch, num_scans)
        return tokens

    def layer_groups(self) -> Sequence[nn.Module]:
        """Modules from input to output, for layer-wise learning-rate decay."""
        return [self.embedding, *self.layers]

    def _find_planes(self, xyz: Tensor, batch: Tensor) -> list[PlaneCells]:
        low, high = self.fov
        planes = []
        outside = ~((xyz >= low) & (xyz < high)).all(1)
        if num_outside := int(outside.sum()):
            raise ValueError(
                f"{num_outside} of {len(xyz)} points lie outside the field of view "
                f"{low.tolist()} to {high.tolist()} m; crop the scans or pass another fov"
            )
        for axes, grid in zip(_PLANE_AXES, self.grids, strict=True):
            axis = list(axes)
            size = (high[axis] - low[axis]) / torch.tensor(grid, device=xyz.device)
            index = ((xyz[:, axis] - low[axis]) / size).long()
            # Rounding may push a point just below the upper border into the next cell.
            index = torch.minimum(index, torch.tensor(grid, device=xyz.device) - 1)
            planes.append(find_cells(index[:, 0], index[:, 1], batch, grid))
        return planes


class _Embedding(nn.Module):
    """Input features and their differences to the neighbours' as one token per point."""

    def __init__(self, in_dim: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(in_dim)
        self.point = nn.Linear(in_dim, channels)
        self.neighbor = nn.Sequential(
            nn.BatchNorm1d(in_dim),
            nn.Linear(in_dim, channels, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Linear(channels, channels, bias=False),
        )
        self.merge = nn.Linear(2 * channels, channels)

    def forward(self, feat: Tensor, neighbors: Tensor) -> Tensor:
        feat = self.norm(feat)
        # Not feat[neighbors]: its gradient is summed in whatever order the threads come.
        difference = functional.embedding(neighbors, feat) - feat[:, None]  # [n k c]
        around = self.neighbor(difference.flatten(0, 1)).unflatten(0, neighbors.shape).max(1).values
        return self.merge(torch.cat([self.point(feat), around], dim=1))


class _Layer(nn.Module):
    """Spatial mixing, then channel mixing; both pre-norm residual with a scale per channel."""

    def __init__(self, channels: int, *, layer_norm: bool, drop_path: float, gelu: bool) -> None:
        super().__init__()
        norm = nn.LayerNorm if layer_norm else nn.BatchNorm1d
        self.drop_path = drop_path
        self.activation = functional.gelu if gelu else functional.relu
        self.spatial_norm = norm(channels)
        # Never called: their weights act on sparse cells. Conv2d for its initialisation and names.
        self.spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.gather = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.spatial_scale = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        self.channel_norm = norm(channels)
        self.expand = nn.Linear(channels, channels)
        self.contract = nn.Linear(channels, channels)
        self.channel_scale = nn.Parameter(torch.empty(channels).uniform_(-1, 1))

    def forward(self, tokens: Tensor, plane: PlaneCells, batch: Tensor, num_scans: int) -> Tensor:
        occupied = mean_per_cell(self.spatial_norm(tokens), plane)
        hidden = spread_to_hidden(occupied, self.spread.weight, plane)
        hidden = self.activation(hidden + self.spread.bias)  # pyrefly: ignore[unsupported-operation]
        mixed = gather_from_hidden(hidden, self.gather.weight, plane)
        mixed = mixed + self.gather.bias  # pyrefly: ignore[unsupported-operation]
        spatial = read_cells(mixed * self.spatial_scale, plane)
        tokens = tokens + self._drop(spatial, batch, num_scans)
        hidden = self.activation(self.expand(self.channel_norm(tokens)))
        # The scale on the weights instead of on every token: the same product, fewer passes.
        channel = functional.linear(
            hidden,
            self.contract.weight * self.channel_scale[:, None],
            self.contract.bias * self.channel_scale,
        )
        return tokens + self._drop(channel, batch, num_scans)

    def _drop(self, branch: Tensor, batch: Tensor, num_scans: int) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        kept = torch.rand(num_scans, device=branch.device) < keep
        return branch * (kept[batch] / keep)[:, None].to(branch.dtype)
