"""A frozen network that names what each pixel shows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from pc_2dteachers.teacher import check_image

_CHANNELS_AT_ONCE = 16


class Segmenter(nn.Module):
    """A frozen semantic segmenter: images [b 3 h w] in 0..1 -> class of each pixel [b h w].

    One number means the same in every image, which is what makes its regions superpixels that can
    be told alike across a dataset (CSC, Chen et al., CVPR 2024). It stays in eval mode whatever
    the caller does and gives no gradient.

    Attributes:
        network: Images in 0..1 -> classes.
        name: What it was created as.
        num_classes: Classes are 0 to one less.
        class_names: A name for each.
        settings: What decides the classes besides the weights and the name.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        class_names: Sequence[str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Freeze a network.

        Args:
            network: Taken over, not copied; it normalises images itself and takes any size.
            name: For messages and manifests.
            class_names: One for each class.
            settings: What a weight file's own configuration decides, such as the size that images
                are resized to; values that JSON holds.
        """
        super().__init__()
        self.network = network
        self.name = name
        self.class_names = tuple(class_names)
        self.num_classes = len(self.class_names)
        self.settings = dict(settings or {})
        self.requires_grad_(False)
        self.train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b h w"]:
        """Return the class of each pixel, -1 = none.

        Args:
            images: RGB in 0..1, of any size.

        Raises:
            ValueError: If the images are of another type, range or shape.
        """
        check_image(images, name=self.name, stride=1)
        return self.network(images)

    def train(self, mode: bool = True) -> "Segmenter":  # noqa: ARG002
        """Stay in eval mode."""
        return super().train(False)

    def digest(self) -> str:
        """SHA-256 over weights, their names and settings: of one name and digest, two agree."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode())
        tensors = dict(chain(self.network.named_parameters(), self.network.named_buffers()))
        for name in sorted(tensors):
            value = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {list(value.shape)};".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def segment_image(
    segmenter: Segmenter,
    image: UInt8[np.ndarray, "h w 3"],
    *,
    size: tuple[int, int] | None = None,
) -> Int32[np.ndarray, "h w"]:
    """Segment one image as it comes from its file.

    Args:
        segmenter: On any device.
        image: RGB.
        size: (height, width) that the segmenter sees; the image is resized to it bilinearly, with
            a low-pass, and the classes are brought back without mixing. The default is the
            image's own size.

    Returns:
        Class of each pixel of the image, -1 = none.
    """
    weight = next(chain(segmenter.parameters(), segmenter.buffers()), torch.zeros(0))
    pixels = (
        torch.from_numpy(np.array(image)).to(weight.device).permute(2, 0, 1)[None].float() / 255
    )
    whole = tuple(pixels.shape[2:])
    if size is not None and tuple(size) != whole:
        pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    classes = segmenter(pixels)
    if classes.shape[1:] != whole:
        classes = _enlarge(classes, whole)
    return classes[0].to(torch.int32).cpu().numpy()


def _enlarge(classes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Take the class at the middle of each pixel."""
    rows, columns = (
        (2 * torch.arange(new, device=classes.device) + 1) * old // (2 * new)
        for old, new in zip(classes.shape[1:], size, strict=True)
    )
    return classes[:, rows[:, None], columns]


def argmax_resized(
    scores: Float[Tensor, "b c y x"], size: tuple[int, int]
) -> Int64[Tensor, "b h w"]:
    """Return the best channel at each pixel of the bilinearly resized maps.

    A few channels are resized at a time: 150 of them at 900x1600 would take 860 MB an image. Ties
    go to the lowest channel.

    Args:
        scores: Of each class on a grid.
        size: (height, width) in pixels; outer edges lie on outer edges (align_corners=False).
    """
    best = index = None
    for first in range(0, scores.shape[1], _CHANNELS_AT_ONCE):
        part = scores[:, first : first + _CHANNELS_AT_ONCE]
        resized = functional.interpolate(part, size, mode="bilinear", align_corners=False)
        value, channel = resized.max(dim=1)
        channel = channel + first
        if best is None or index is None:
            best, index = value, channel
        else:
            index = torch.where(value > best, channel, index)
            best = torch.maximum(value, best)
    if index is None:
        raise ValueError("scores must be of at least one class, got none")
    return index


def pad_to_stride(
    images: Float[Tensor, "b 3 h w"], stride: int
) -> tuple[Float[Tensor, "b 3 h2 w2"], tuple[slice, slice]]:
    """Pad images with zeros to multiples of a stride, as much on either side.

    Args:
        images: Normalised, so that zero is the mean.
        stride: Of the network, in pixels.

    Returns:
        The padded images, and where rows and columns of the original lie in them.
    """
    height, width = images.shape[2:]
    above, left = (-height % stride) // 2, (-width % stride) // 2
    below, right = -height % stride - above, -width % stride - left
    padded = functional.pad(images, (left, right, above, below))
    return padded, (slice(above, above + height), slice(left, left + width))
