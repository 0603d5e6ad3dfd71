"""What every backbone answers."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn


class Backbone(nn.Module):
    """A network from packed points to one feature per point.

    Attributes:
        in_dim: Number of input features of a point.
        out_dim: Number of output features of a point.
        num_neighbors: Neighbours of each point that `forward` takes or finds; 0 if it needs none.
        fov: Lower and upper corner in metres of the box that points must lie in, [2 3]; None if
            they may lie anywhere.
        voxel_size: Side in metres of the voxels that share a feature; None if there are none.
        arguments: What rebuilds the network: keyword arguments of its class.
    """

    in_dim: int
    out_dim: int
    num_neighbors: int
    fov: Tensor | None
    voxel_size: float | None
    arguments: dict[str, Any]

    @abstractmethod
    def forward(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """Compute a feature for every point; `batch` is the sorted scan index."""

    @abstractmethod
    def layer_groups(self) -> Sequence[nn.Module]:
        """Modules from input to output, for layer-wise learning-rate decay."""
