"""Feature maps read at pixels, without upsampling the maps."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional


def sample_pixels(
    features: Float[Tensor, "b c y x"] | Sequence[Float[Tensor, "b ..."]],
    pixel: Float32[Tensor, "m 2"],
    image_index: Int64[Tensor, " m"],
    *,
    image_size: tuple[int, int],
) -> Float[Tensor, "m c"]:
    """Read feature maps bilinearly at pixels of the image.

    At whole pixels the result is `interpolate(features, (height, width), mode="bilinear",
    align_corners=True)[image_index, :, v, u]`, but only the m points are ever computed: a whole
    map of 1024 channels at 224x448 would take 400 MB an image. Differentiable in `features`.

    Args:
        features: Map of each image; or several of them (`TeacherConcat`), each read on its own
            grid and concatenated over channels.
        pixel: (u, v): column and row, in [0, width) and [0, height). As `align_corners` has it, the
            first pixel lies on the centre of the first cell and the last on that of the last cell;
            fractions beyond the last pixel read the same as it.
        image_index: Which image each pixel lies in.
        image_size: (width, height) of the images whose pixels these are.

    Raises:
        ValueError: If a pixel lies outside the image, an index outside the batch, or shapes differ.

    Source: ScaLR (Puy et al., CVPR 2024, arXiv:2310.17504), Sec. 3.2; same numbers, other order.
    """
    maps = (features,) if isinstance(features, Tensor) else tuple(features)
    check_pixels(maps, pixel, image_index, image_size)
    sampled = [sample_map(one, pixel, image_index, image_size) for one in maps]
    return sampled[0] if len(sampled) == 1 else torch.cat(sampled, dim=1)


def sample_map(
    features: Float[Tensor, "b c y x"],
    pixel: Float32[Tensor, "m 2"],
    image_index: Int64[Tensor, " m"],
    image_size: tuple[int, int],
) -> Float[Tensor, "m c"]:
    """Read one map as `sample_pixels` does, without its checks."""
    rows, columns = features.shape[2:]
    # Half precision holds neither the weights of the corners nor their sum well enough.
    exact = torch.promote_types(features.dtype, torch.float32)
    left, right, along_x = find_corners(pixel[:, 0].to(exact), image_size[0], columns)
    top, bottom, along_y = find_corners(pixel[:, 1].to(exact), image_size[1], rows)
    return sum_cells(
        features,
        image_index,
        torch.stack([top, bottom], dim=1),
        torch.stack([1 - along_y, along_y], dim=1),
        torch.stack([left, right], dim=1),
        torch.stack([1 - along_x, along_x], dim=1),
    )


def sum_cells(
    features: Float[Tensor, "b c y x"],
    image_index: Int64[Tensor, " m"],
    row: Int64[Tensor, "m r"],
    row_weight: Float[Tensor, "m r"],
    column: Int64[Tensor, "m k"],
    column_weight: Float[Tensor, "m k"],
) -> Float[Tensor, "m c"]:
    """Weighted sum over a block of r x k cells of an image's map for each point.

    The weight of a cell is that of its row times that of its column.
    """
    batch, channels, rows, columns = features.shape
    line = (image_index[:, None] * rows + row) * columns
    cell = (line[:, :, None] + column[:, None]).flatten(1)  # [m r*k]
    weight = (row_weight[:, :, None] * column_weight[:, None]).flatten(1)
    cells = features.permute(0, 2, 3, 1).reshape(batch * rows * columns, channels)
    cells = cells.to(weight.dtype)
    sampled = functional.embedding_bag(cell, cells, per_sample_weights=weight, mode="sum")
    return sampled.to(features.dtype)


def find_corners(
    at: Float[Tensor, " m"], pixels: int, cells: int
) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"], Float[Tensor, " m"]]:
    """Cells left and right of image coordinates along one axis, and the share of the right one."""
    scale = (cells - 1) / (pixels - 1) if pixels > 1 else 0.0
    position = (at * scale).clamp(0, cells - 1)
    left = position.floor()
    low = left.long()
    return low, (low + 1).clamp(max=cells - 1), position - left


def check_pixels(
    maps: tuple[Float[Tensor, "b ..."], ...],
    pixel: Float32[Tensor, "m 2"],
    image_index: Int64[Tensor, " m"],
    image_size: tuple[int, int],
) -> None:
    """Raise ValueError unless the pixels lie in the images that the maps are of."""
    if not maps or any(one.ndim != 4 or 0 in one.shape for one in maps):
        shapes = ", ".join(str(list(one.shape)) for one in maps) or "no map"
        raise ValueError(f"feature maps must be [b, c, h, w] and not empty, got {shapes}")
    if len({len(one) for one in maps}) > 1:
        sizes = ", ".join(str(len(one)) for one in maps)
        raise ValueError(f"the feature maps must be of the same images, got batches of {sizes}")
    if pixel.ndim != 2 or pixel.shape[1] != 2 or image_index.shape != pixel.shape[:1]:
        raise ValueError(
            "pixel must be [m, 2] as (u, v) and image_index [m], got "
            f"{list(pixel.shape)} and {list(image_index.shape)}"
        )
    if not len(pixel):
        return
    width, height = image_size
    limit = pixel.new_tensor([width, height])
    outside = ~((pixel >= 0) & (pixel < limit)).all(dim=1)
    if outside.any():
        u, v = pixel[outside][0].tolist()
        raise ValueError(
            f"pixels must lie in the image of {width}x{height} (width x height), but "
            f"{int(outside.sum())} of {len(pixel)} do not, the first at ({u:g}, {v:g}); drop "
            "points outside the camera and scale pixels along with the image"
        )
    low, high = (int(value) for value in image_index.aminmax())
    if low < 0 or high >= len(maps[0]):
        raise ValueError(
            f"image_index must be in [0, {len(maps[0])}) (the number of images), "
            f"got {low} to {high}"
        )
