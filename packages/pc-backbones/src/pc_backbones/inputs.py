"""The input features as they are: the floor that every learned backbone has to beat."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pc_backbones.contract import Backbone
from pc_backbones.waffleiron import SCALR_FOV, FieldOfView


class InputFeatures(Backbone):
    """Answers the backbone contract without computing anything.

    Args:
        in_dim: Number of input features of a point.
        fov: Box to which loaders crop, in metres; None if they need not.
        num_neighbors: Neighbours that loaders look up; none is used.

    Attributes:
        in_dim: As given.
        out_dim: Equals `in_dim`.
    """

    def __init__(
        self, in_dim: int, *, fov: FieldOfView | None = SCALR_FOV, num_neighbors: int = 1
    ) -> None:
        super().__init__()
        self.in_dim = self.out_dim = in_dim
        self.num_neighbors = num_neighbors
        self.voxel_size = None
        self.arguments = {"in_dim": in_dim, "fov": fov, "num_neighbors": num_neighbors}
        box = None if fov is None else torch.tensor(fov, dtype=torch.float32)
        self.register_buffer("fov", box, persistent=False)

    def forward(
        self,
        xyz: Float[Tensor, "n 3"],  # noqa: ARG002
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],  # noqa: ARG002
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "n c"]:
        """Return `feat`."""
        return feat

    def layer_groups(self) -> Sequence[nn.Module]:
        """No layers."""
        return []
