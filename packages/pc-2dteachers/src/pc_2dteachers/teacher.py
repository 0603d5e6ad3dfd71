"""A frozen image network as a dense feature map, and several of them side by side."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Teacher(nn.Module):
    """A frozen image network: images [b 3 h w] in 0..1 -> feature map [b c h/stride w/stride].

    It stays in eval mode whatever the caller does, gives no gradient, and has **no state of its
    own**: a name and a checkpoint file determine it, so `state_dict` is empty and loading a
    method's strict checkpoint leaves it alone (a ViT-L would add 1.2 GB to every checkpoint).
    The weights themselves are in `teacher.network.state_dict()`.

    Attributes:
        name: What it was created as.
        out_dim: Channels of the map.
        stride: Image pixels per cell of the map.
        image_size: (height, width) if the network takes only that one, else None.
        read: (network, normalised image) -> map.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        read: Callable[[nn.Module, Tensor], Tensor],
        *,
        name: str,
        out_dim: int,
        stride: int,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Freeze a network.

        Args:
            network: Taken over, not copied.
            read: (network, normalised image) -> map; a plain function, so that copies of the
                teacher read their own network.
            name: For messages.
            out_dim: Channels of the map.
            stride: Image pixels per cell of the map.
            mean: Of the three channels, subtracted from the image.
            std: Of the three channels, by which the image is then divided.
            image_size: (height, width) if the network takes only that one.
        """
        super().__init__()
        self.network = network
        self.name = name
        self.out_dim = out_dim
        self.stride = stride
        self.image_size = image_size
        self.read = read
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.train(False)
        self.register_load_state_dict_pre_hook(_keep_own_state)

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
        """Return the feature map.

        Args:
            image: RGB in 0..1 (a slight overshoot of bicubic resizing is fine).

        Raises:
            ValueError: If the image is of another type, range or shape than the network takes.
        """
        self._check(image)
        return self.read(self.network, self.normalize(image))

    def require_size(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError unless the network takes images of (height, width) pixels."""
        self._check(torch.empty(0, 3, *image_size))

    def _check(self, image: Tensor) -> None:
        check_image(image, name=self.name, stride=self.stride, image_size=self.image_size)

    def normalize(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Apply the mean and standard deviation of the network's training, in its own precision."""
        return ((image - self.mean) / self.std).to(self.mean.dtype)

    def train(self, mode: bool = True) -> "Teacher":  # noqa: ARG002
        """Stay in eval mode: batch statistics and drop-out of a teacher must not move."""
        return super().train(False)

    def state_dict(  # pyrefly: ignore[bad-override]
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",  # noqa: ARG002
        keep_vars: bool = False,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return nothing (or `destination` as it is): a teacher is not part of checkpoints."""
        return {} if destination is None else destination


def _keep_own_state(teacher: Teacher, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Hand the teacher its own weights when a checkpoint, which has none, is loaded into it."""
    for name, value in (*teacher.named_parameters(), *teacher.named_buffers()):
        state[prefix + name] = value


def check_image(
    image: Float[Tensor, "b 3 h w"],
    *,
    name: str,
    stride: int,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Raise ValueError unless a teacher takes the image; see `Teacher` for the arguments."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(
            f"{name} takes float images of shape [b, 3, h, w], got "
            f"{image.dtype} {list(image.shape)}; scale bytes to 0..1 and add the batch axis"
        )
    height, width = image.shape[2:]
    if image_size is not None and (height, width) != image_size:
        raise ValueError(
            f"{name} takes images of {image_size[0]}x{image_size[1]} (height x "
            f"width) only, got {height}x{width}; resize them"
        )
    if height % stride or width % stride or not (height and width):
        near = [max(round(side / stride), 1) * stride for side in (height, width)]
        raise ValueError(
            f"{name} takes image heights and widths that are multiples of {stride}, "
            f"got {height}x{width}; resize to {near[0]}x{near[1]} "
            "(224x448 suits the strides 8, 14 and 16)"
        )
    if len(image):
        low, high = (float(value) for value in image.aminmax())
        if not (low >= -0.5 and high <= 1.5):
            raise ValueError(
                f"{name} takes image values in 0..1, got {low:g} to {high:g}; "
                "divide bytes by 255 and leave the normalisation to the teacher"
            )


class TeacherConcat(nn.Module):
    """Several teachers side by side: one map each, to be read by `sample_pixels`.

    The maps have grids of their own. Bringing them to one grid would interpolate all but one of
    them twice; instead `sample_pixels` takes the tuple, reads each map at the points and
    concatenates there, which is exactly the concatenation of pixel features in the paper.

    Attributes:
        out_dim: Sum of the teachers' channels, the width of the concatenated features.
        stride: Image heights and widths that are multiples of it suit every teacher.

    Source: ScaLR (Puy et al., CVPR 2024, arXiv:2310.17504), Sec. 4.7. Whether the authors scale
        the features of a teacher before the concatenation is not stated; nothing is scaled here.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        """Put teachers side by side.

        Raises:
            ValueError: If there is none.
        """
        super().__init__()
        if not teachers:
            raise ValueError("a concatenation needs at least one teacher, got none")
        self.teachers = nn.ModuleList(teachers)
        self.out_dim = sum(teacher.out_dim for teacher in teachers)
        self.stride = math.lcm(*(teacher.stride for teacher in teachers))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b ..."], ...]:
        """Return the feature map of each teacher, in order.

        Raises:
            ValueError: If a teacher does not take the image.
        """
        return tuple(teacher(image) for teacher in self.teachers)

    def require_size(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError unless every teacher takes images of (height, width) pixels."""
        for teacher in self.teachers:
            teacher.require_size(image_size)  # pyrefly: ignore[not-callable]
