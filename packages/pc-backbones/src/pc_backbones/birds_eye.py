"""Networks that see scans from above: cells in a box, a map of them, and its values at points."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_backbones.contract import Backbone
from pc_backbones.rpn import RegionProposalNetwork
from pc_backbones.voxels import Occupants, VoxelGrid, find_voxels
from pc_backbones.waffleiron import FieldOfView


@dataclass(frozen=True, kw_only=True)
class CellBox:
    """A box in space, divided into equal cells.

    Attributes:
        low: Lower corner, metres.
        high: Upper corner, metres.
        cell_size: Sides of a cell along x, y and z, metres.
        shape: Number of cells along x, y and z.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    cell_size: tuple[float, ...]
    shape: tuple[int, int, int]

    def places(self, xyz: Float[Tensor, "n 3"]) -> Float64[Tensor, "n 3"]:
        """Where each point is, counted in cells from the lower corner."""
        xyz = xyz.double()
        return (xyz - xyz.new_tensor(self.low)) / xyz.new_tensor(self.cell_size)

    def find_cells(
        self, xyz: Float[Tensor, "n 3"], batch: Int64[Tensor, " n"], num_scans: int
    ) -> tuple[VoxelGrid, Occupants]:
        """Find the occupied cells of every scan, counted from the lower corner of the box."""
        cells = self.places(xyz).floor().long()
        # Rounding may push a point at the border into a cell beyond it.
        cells = torch.minimum(cells.clamp(min=0), cells.new_tensor(self.shape) - 1)
        # Moved by a multiple of more cells than there are: not at all.
        grid, occupants = find_voxels(cells, batch, multiple=max(self.shape))
        return grid._replace(shape=self.shape, num_scans=num_scans), occupants


def divide_box(fov: FieldOfView, cell_size: Sequence[float | int]) -> CellBox:
    """Divide a field of view into cells.

    Args:
        fov: Lower and upper corner, metres.
        cell_size: Sides of a cell along x, y and z, metres; without the last, as high as the box.

    Raises:
        ValueError: If it is no box, or no whole number of cells.
    """
    corners = [[float(value) for value in corner] for corner in fov]
    sizes = [float(size) for size in cell_size]
    if [len(corner) for corner in corners] != [3, 3] or not all(
        low < high and math.isfinite(high - low) for low, high in zip(*corners, strict=True)
    ):
        raise ValueError(f"fov must be a lower and a higher corner (x, y, z) in metres, got {fov}")
    low, high = corners
    extents = [upper - lower for lower, upper in zip(low, high, strict=True)]
    sizes += extents[2:] if len(sizes) == 2 else []
    if len(sizes) != 3 or not all(0 < size < math.inf for size in sizes):
        raise ValueError(f"the sides of a cell must be positive metres, got {tuple(cell_size)}")
    counts = [extent / size for extent, size in zip(extents, sizes, strict=True)]
    x_size, y_size, z_size = (round(count) for count in counts)
    if any(count < 0.5 or abs(count - round(count)) > 1e-3 for count in counts):
        raise ValueError(
            f"the fov of {' x '.join(f'{extent:g}' for extent in extents)} m is "
            f"{' x '.join(f'{count:g}' for count in counts)} cells; it must be whole numbers of "
            "them, so change its corners or the cells"
        )
    return CellBox(
        low=tuple(low),
        high=tuple(high),
        cell_size=tuple(sizes),
        shape=(x_size, y_size, z_size),
    )


class BirdsEyeBackbone(Backbone):
    """What networks share that make a map of a scan as seen from above.

    Args:
        in_dim: Number of input features of a point.
        box: What is mapped, divided into cells.
        rpn: What convolves the map.
        map_stride: Side of a cell of the map that `rpn` takes, in cells of the box.

    Attributes:
        in_dim: As given.
        out_dim: Channels of the map, and so features of a point.
        map_shape: Rows (along y) and columns (along x) of the map.
        map_cell: Sides in metres of its cells along x and y.

    Raises:
        ValueError: If the map does not divide evenly between the blocks of `rpn`.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        box: CellBox,
        rpn: RegionProposalNetwork,
        map_stride: int = 1,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.out_dim = rpn.out_dim
        self.num_neighbors = 0
        self.voxel_size = None  # a map is read between its cells: no two points share a feature
        self.box = box
        fov = torch.tensor([box.low, box.high], dtype=torch.float32)
        self.register_buffer("fov", fov, persistent=False)
        self.rpn = rpn
        columns, rows = (-(-size // map_stride) for size in self.box.shape[:2])
        self._input_shape = (rows, columns)
        self.map_shape = (rpn.map_size(rows), rpn.map_size(columns))
        self._stride = map_stride * rpn.stride
        self.map_cell = tuple(side * self._stride for side in self.box.cell_size[:2])

    def forward(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        neighbors: Int64[Tensor, "n k"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "n d"]:
        """Read each scan's map at its points, bilinearly between the centres of its cells.

        Args:
            xyz: Points in metres, inside the field of view.
            feat: Input features; which ones, each network says.
            batch: Scan of each point, sorted.
            neighbors: Not used.

        Raises:
            ValueError: If a point lies outside the field of view.
        """
        if not len(xyz):
            # Everything gets a gradient, zero: other processes may wait for it.
            nothing = feat.sum() + sum(parameter.sum() for parameter in self.parameters())
            return feat.new_zeros(0, self.out_dim) * nothing
        # A scan without points has no feature to read, so it needs no map.
        scans, scan = torch.unique(batch, return_inverse=True)
        values = self.forward_map(xyz, feat, scan, num_scans=len(scans))
        return read_map(values, self.box.places(xyz)[:, :2] / self._stride, scan)

    def forward_map(
        self,
        xyz: Float[Tensor, "n 3"],
        feat: Float[Tensor, "n c"],
        batch: Int64[Tensor, " n"],
        *,
        num_scans: int | None = None,
    ) -> Float[Tensor, "b d h w"]:
        """Make the map of every scan, for detection heads: rows along y, columns along x.

        The cell in row i and column j covers `map_cell` metres from the lower corner of `fov`
        plus (j, i) cells. A scan without points has a map, too.

        Args:
            xyz: Points in metres, inside the field of view.
            feat: Input features, as for `forward`.
            batch: Scan of each point, sorted.
            num_scans: How many scans there are, if the last ones may be without points.

        Raises:
            ValueError: If a point lies outside the field of view or in a scan past `num_scans`.
        """
        least = int(batch.max()) + 1 if len(batch) else 0
        num_scans = least if num_scans is None else num_scans
        if num_scans < max(least, 1):
            raise ValueError(
                f"num_scans is {num_scans}, but there are at least {max(least, 1)}; pass how many"
            )
        self._check_inside(xyz)
        feat = feat.to(next(self.rpn.parameters()).dtype)
        if len(xyz):
            values = self._encode(xyz, feat, batch, num_scans)
        else:
            nothing = feat.sum() + sum(parameter.sum() for parameter in self.parameters())
            rows, columns = self._input_shape
            values = feat.new_zeros(num_scans, self._encoded_dim(), rows, columns) + 0 * nothing
        return self.rpn(values)

    def layer_groups(self) -> Sequence[nn.Module]:
        """Modules from input to output, for layer-wise learning-rate decay."""
        return [*self._encoder_groups(), *self.rpn.blocks, self.rpn.ups]

    @abstractmethod
    def _encode(self, xyz: Tensor, feat: Tensor, batch: Tensor, num_scans: int) -> Tensor:
        """From points, one at least, to the map that `rpn` takes: [b c h w]."""

    @abstractmethod
    def _encoded_dim(self) -> int:
        """Channels of the map that `rpn` takes."""

    @abstractmethod
    def _encoder_groups(self) -> Sequence[nn.Module]:
        """Modules before `rpn`, from input to output."""

    def _check_inside(self, xyz: Tensor) -> None:
        low, high = self.fov
        outside = ~((xyz >= low) & (xyz < high)).all(1)
        if num_outside := int(outside.sum()):
            raise ValueError(
                f"{num_outside} of {len(xyz)} points lie outside the field of view "
                f"{low.tolist()} to {high.tolist()} m; crop the scans or pass another fov"
            )


def scatter_to_map(values: Float[Tensor, "v c"], grid: VoxelGrid) -> Float[Tensor, "b cz y x"]:
    """Lay the values of occupied cells out from above, zero elsewhere.

    The layers along z become channels: channel c of layer z is channel c * layers + z.
    """
    columns, rows, layers = grid.shape
    scan, x, y, z = grid.indices.long().unbind(1)
    key = ((scan * rows + y) * columns + x) * layers + z
    size = grid.num_scans * rows * columns * layers
    dense = values.new_zeros(size, values.shape[1]).index_copy(0, key, values)
    dense = dense.view(grid.num_scans, rows, columns, layers, -1).transpose(3, 4).flatten(3)
    return dense.permute(0, 3, 1, 2)  # the channels stay last in memory: convolutions like it


def read_map(
    values: Float[Tensor, "b d h w"], place: Float[Tensor, "n 2"], scan: Int64[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """Read a map between the centres of its cells, bilinearly; past the outermost, their value.

    Args:
        values: A map for each scan.
        place: Column and row of each point, counted in cells from the corner of the map.
        scan: Which map to read.
    """
    rows, columns = values.shape[2:]
    last = place.new_tensor([columns - 1, rows - 1])
    place = torch.minimum((place - 0.5).clamp(min=0), last)
    near = place.floor()
    far = torch.minimum(near + 1, last)
    to_far = place - near
    (x0, y0), (x1, y1) = near.long().unbind(1), far.long().unbind(1)
    (u, v), first = to_far.unbind(1), scan * rows
    index = torch.stack([(first + y) * columns + x for y in (y0, y1) for x in (x0, x1)], dim=1)
    weight = torch.stack([p * q for p in (1 - v, v) for q in (1 - u, u)], dim=1)
    table = values.permute(0, 2, 3, 1).flatten(0, 2)
    # One sum instead of four gathered copies; its gradient does not depend on threads.
    return functional.embedding_bag(
        index, table, mode="sum", per_sample_weights=weight.to(table.dtype)
    )
