"""Class prototypes over a whole dataset, in two modalities, and contrast with their blend."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_losses.reduction import gather_rows, mean_over_processes
from pc_losses.volumes import check_temperature


class PrototypeBank(nn.Module):
    """The mean superpoint and superpixel of each class over all superpixels of a dataset.

    A pass makes them anew: `start()`, `add(...)` for every batch with both networks in eval mode,
    `finish()`. Between passes they stay as they are and nothing back-propagates into them. They
    are a function of the last pass alone: a class that no process met in it is not present, and
    its rows are zeros that `PrototypeBlend` and `prototype_contrast` pass over.

    Prototypes are in the `state_dict`, so that a resumed run goes on with the same ones. The sums
    of an unfinished pass are not, as each process has its own and one of them writes the file; a
    pass changes no weights, so begin it again. Nor are they buffers, which DistributedDataParallel
    would overwrite by those of the first process.

    Attributes:
        point: Mean superpoint of each class, float32.
        pixel: Mean superpixel of each class, float32.
        present: Which classes have a prototype; none before the first pass.

    Source: CSC (Chen et al., CVPR 2024), Eq. 1, read with the modalities the right way round.
        Differs from the released code, which averages the processes' means with zeros where a
        process lacks a class, and files a class one row before the one that it is compared with.
    """

    point: Float[Tensor, "t c"]
    pixel: Float[Tensor, "t c"]
    present: Bool[Tensor, " t"]

    def __init__(self, num_classes: int = 150, dim: int = 64) -> None:
        """Start without prototypes; raise ValueError if `num_classes` or `dim` is below 1."""
        super().__init__()
        for name, value in (("num_classes", num_classes), ("dim", dim)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; the default will do")
        self.register_buffer("point", torch.zeros(num_classes, dim))
        self.register_buffer("pixel", torch.zeros(num_classes, dim))
        self.register_buffer("present", torch.zeros(num_classes, dtype=torch.bool))
        self._sums: Tensor | None = None  # [t 2c+1]: of points, of pixels, counts

    @property
    def num_classes(self) -> int:
        """T."""
        return len(self.point)

    def start(self) -> None:
        """Begin a pass; forget one that was not finished. Prototypes stay until `finish`."""
        width = 2 * self.point.shape[1] + 1
        self._sums = torch.zeros(
            self.num_classes, width, dtype=torch.float64, device=self.point.device
        )

    @torch.no_grad()
    def add(
        self, point: Float[Tensor, "s c"], pixel: Float[Tensor, "s c"], cls: Int64[Tensor, " s"]
    ) -> None:
        """Count in a batch of this process, in float64; every superpixel weighs the same.

        Args:
            point: Mean point feature of each superpixel, as `prototype_contrast` gets it.
            pixel: Mean pixel feature of each.
            cls: Class of each; negative = none, left out.

        Raises:
            ValueError: If no pass was started, shapes do not fit or a class is too large.
        """
        width = self.point.shape[1]
        if point.shape != (len(cls), width) or pixel.shape != point.shape:
            raise ValueError(
                f"point and pixel must both be [{len(cls)}, {width}], a row a class given, got "
                f"{list(point.shape)} and {list(pixel.shape)}"
            )
        _check_classes(cls, self.num_classes)
        rows = torch.cat([point.double(), pixel.double(), point.new_ones(len(cls), 1).double()], 1)
        known = cls >= 0
        # Not in place: sums of torch.inference_mode may be added to outside of it.
        self._sums = self._running().index_add(0, cls[known], rows[known])

    @torch.no_grad()
    def finish(self) -> None:
        """Take the means over all processes as the new prototypes; every process must call it.

        Processes may have seen any number of superpixels, also none. All get the same bits.

        Raises:
            ValueError: If no pass was started.
        """
        gathered, _ = gather_rows(self._running())
        total = gathered.view(-1, *self._running().shape).sum(dim=0)
        count = total[:, -1:]
        point, pixel = (total[:, :-1] / count.clamp(min=1)).chunk(2, dim=1)
        self.point.copy_(point)
        self.pixel.copy_(pixel)
        self.present.copy_(count[:, 0] > 0)
        self._sums = None

    def _running(self) -> Tensor:
        if self._sums is None:
            raise ValueError("no pass is under way; call start() before add() and finish()")
        return self._sums


class PrototypeBlend(nn.Module):
    """Mix the prototypes of both modalities: a projection for each, then an MLP on both.

    Each modality has its Linear; batch norm, GELU, Linear, batch norm, GELU, Linear follow on the
    two side by side. This is `ConcatBlend` without the weights that would mix the modalities in
    its first layer. Batch norm is over the classes that are present.

    It runs in single precision under mixed precision too. It is to learn: keep it in train mode
    while training, and put it into the optimiser.

    Source: CSC (Chen et al., CVPR 2024), Eq. 2 and 3, which name linear layers, neither how many
        nor what is in between; that is taken from the released code.
    """

    def __init__(self, dim: int = 64) -> None:
        """Take prototypes of width `dim` and give as wide ones."""
        super().__init__()
        self.point_projection = nn.Linear(dim, dim)
        self.pixel_projection = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(*_after_first(dim))
        self.apply(_draw_weights)

    def forward(
        self,
        point: Float[Tensor, "t c"],
        pixel: Float[Tensor, "t c"],
        present: Bool[Tensor, " t"] | None = None,
    ) -> Float[Tensor, "t c"]:
        """Blend row by row; classes that are not present get zeros.

        Args:
            point: Prototypes of the points.
            pixel: Prototypes of the pixels.
            present: Which classes there are. None: all, their rows of zeros as well, which is what
                the released code does.
        """
        with torch.autocast(point.device.type, enabled=False):
            known = _present_rows(point, present)
            both = [self.point_projection(point[known]), self.pixel_projection(pixel[known])]
            return _back_in_place(self.mlp(torch.cat(both, dim=1)), known, len(point))


class ConcatBlend(nn.Module):
    """Mix the prototypes of both modalities by one MLP on the two side by side.

    Linear, batch norm, GELU, Linear, batch norm, GELU, Linear on [point, pixel]; otherwise as
    `PrototypeBlend`.

    Source: the released code of CSC (Chen et al., CVPR 2024), whose `predictor_slot` has the same
        names in its `state_dict`.
    """

    def __init__(self, dim: int = 64) -> None:
        """Take prototypes of width `dim` and give as wide ones."""
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 2 * dim), *_after_first(dim))
        self.apply(_draw_weights)

    def forward(
        self,
        point: Float[Tensor, "t c"],
        pixel: Float[Tensor, "t c"],
        present: Bool[Tensor, " t"] | None = None,
    ) -> Float[Tensor, "t c"]:
        """Blend row by row, see `PrototypeBlend.forward`."""
        with torch.autocast(point.device.type, enabled=False):
            known = _present_rows(point, present)
            mixed = self.mlp(torch.cat([point[known], pixel[known]], dim=1))
            return _back_in_place(mixed, known, len(point))


def prototype_contrast(
    point: Float[Tensor, "s c"],
    prototype: Float[Tensor, "t c"],
    cls: Int64[Tensor, " s"],
    present: Bool[Tensor, " t"] | None = None,
    *,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Pick each superpoint's class among the prototypes: cross entropy of k . P / temperature.

    The softmax is over the classes that are present; superpixels of others, and those without a
    class, are left out. The loss is the mean over the superpixels of all processes that are left
    (see `mean_over_processes`); none, as before the first pass, give a zero that can be
    back-propagated, through the blend as well.

    Args:
        point: Mean point feature of each superpixel, taken as it is.
        prototype: Blended prototypes: of a `PrototypeBlend`, through which they get gradients. They
            are not normalised either.
        cls: Class of each superpixel; negative = none.
        present: Which classes have a prototype. None: all rows count, be they zeros or not.
        temperature: What the products are divided by, above 0.

    Raises:
        ValueError: If shapes do not fit, a class is too large or the temperature is not above 0.

    Source: CSC (Chen et al., CVPR 2024), Eq. 4 and the temperature. The released code counts all
        rows of its 150 classes, which `present=None` does here and in the blend; absent classes
        are then negatives.
    """
    check_temperature(temperature)
    _check_contrast(point, prototype, cls, present)
    with torch.autocast(point.device.type, enabled=False):
        dtype = torch.promote_types(point.dtype, prototype.dtype)
        dtype = torch.promote_types(dtype, torch.float32)
        scores = (point.to(dtype) / temperature) @ prototype.to(dtype).T  # [s t]
        counted = cls >= 0
        if present is not None:
            scores = scores.masked_fill(~present, -torch.inf)
            counted = counted & present[cls.clamp(min=0)]
        terms = functional.cross_entropy(scores[counted], cls[counted], reduction="none")
        return mean_over_processes(terms)


class _RowNorm(nn.BatchNorm1d):
    """Batch norm that takes the running statistics where a batch is too small to have any."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        if len(input) > 1 or not self.training:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


def _after_first(dim: int) -> list[nn.Module]:
    """What follows the first linear layer, on both modalities side by side."""
    both = 2 * dim
    return [
        _RowNorm(both),
        nn.GELU(),
        nn.Linear(both, both),
        _RowNorm(both),
        nn.GELU(),
        nn.Linear(both, dim),
    ]


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _present_rows(point: Tensor, present: Tensor | None) -> Int64[Tensor, " p"]:
    if present is None:
        return torch.arange(len(point), device=point.device)
    return present.nonzero()[:, 0]


def _back_in_place(rows: Tensor, place: Tensor, num: int) -> Tensor:
    return rows.new_zeros(num, rows.shape[1]).index_copy(0, place, rows)


def _check_contrast(point: Tensor, prototype: Tensor, cls: Tensor, present: Tensor | None) -> None:
    if point.ndim != 2 or prototype.ndim != 2 or point.shape[1] != prototype.shape[1]:
        raise ValueError(
            "point and prototype must be [s, c] and [t, c], got "
            f"{list(point.shape)} and {list(prototype.shape)}; blend to the width of the points"
        )
    if cls.shape != point.shape[:1]:
        raise ValueError(f"cls must be [{len(point)}], a class a row, got {list(cls.shape)}")
    if present is not None and present.shape != prototype.shape[:1]:
        raise ValueError(
            f"present must be [{len(prototype)}], a flag a class, got {list(present.shape)}"
        )
    _check_classes(cls, len(prototype))


def _check_classes(cls: Tensor, num_classes: int) -> None:
    if len(cls) and cls.max() >= num_classes:
        raise ValueError(
            f"classes must be below {num_classes}, the number of prototypes, got {int(cls.max())}; "
            "count classes from 0, and make the bank for all that the segmenter knows"
        )
