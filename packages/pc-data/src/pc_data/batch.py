"""Points of several scans packed into one batch of tensors, never padded."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from pc_geometry import knn
from torch import Tensor

from pc_data.scan import Scan


@runtime_checkable
class Packable(Protocol):
    """What loaders ask of a class of samples: names, and a way to join several.

    `PointBatch` is one; a method with samples of another kind brings its own, a `Movable` for the
    trainer.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each scan."""
        ...

    @classmethod
    def pack(cls, samples: Any, /) -> Any:  # noqa: ANN401 - several of the class, joined to one
        """Join samples of this class end to end."""
        ...


# Not Self: beartype takes that in decorated classes alone.
Moved = TypeVar("Moved", bound="Movable")


class Movable:
    """A dataclass of tensors, and of other such dataclasses, that moves as one."""

    def to(self: Moved, device: torch.device | str, *, non_blocking: bool = False) -> Moved:
        """Copy all tensors to a device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self: Moved) -> Moved:
        """Copy all tensors to page-locked memory, for fast transfer to a GPU."""
        return self._map(lambda part: part.pin_memory())

    def _map(self: Moved, function: Callable[[Any], Any]) -> Moved:
        this: Any = self
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(this)}
        moved = {
            name: function(value)
            for name, value in fields.items()
            if isinstance(value, Tensor | Movable)
        }
        return dataclasses.replace(this, **moved)


@dataclass(frozen=True, kw_only=True)
class PointBatch(Movable):
    """Scans laid end to end; one scan is a batch of one.

    Attributes:
        names: Name of each scan.
        xyz: Points in metres.
        feat: Network input of each point.
        batch: Scan of each point, sorted.
        neighbors: Nearest neighbours as indices into the packed points, the point excluded.
        labels: Training class of each point, -1 = ignored.
        images: One image a scan, in 0..1.
        pixel: (u, v) of each point in the image of its scan.
        nearest: For every point of the original scans, the packed point that answers for it.
        all_labels: Class of every point of the original scans.
    """

    names: tuple[str, ...]
    xyz: Float[Tensor, "n 3"]
    feat: Float[Tensor, "n c"]
    batch: Int64[Tensor, " n"]
    neighbors: Int64[Tensor, "n k"] | None = None
    labels: Int64[Tensor, " n"] | None = None
    images: Float[Tensor, "b 3 h w"] | None = None
    pixel: Float[Tensor, "n 2"] | None = None
    nearest: Int64[Tensor, " m"] | None = None
    all_labels: Int64[Tensor, " m"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def need(self, field: str) -> Tensor:
        """Return an optional field.

        Raises:
            ValueError: If the batch does not have it.
        """
        return need(self, field)

    @classmethod
    def pack(cls, samples: "Sequence[PointBatch]", /) -> "PointBatch":
        """Join batches end to end; indices are shifted to the packed points."""
        num_points = np.cumsum([0, *(len(sample.xyz) for sample in samples)]).tolist()
        num_scans = np.cumsum([0, *(len(sample) for sample in samples)]).tolist()
        names = tuple(name for sample in samples for name in sample.names)
        joined: dict[str, Any] = {"names": names}
        for field in dataclasses.fields(cls):
            if field.name == "names":
                continue
            parts = [getattr(sample, field.name) for sample in samples]
            if any(part is None for part in parts):
                joined[field.name] = None
                continue
            if field.name in ("neighbors", "nearest"):
                parts = [part + shift for part, shift in zip(parts, num_points, strict=False)]
            elif field.name == "batch":
                parts = [part + shift for part, shift in zip(parts, num_scans, strict=False)]
            joined[field.name] = torch.cat(parts)
        return cls(**joined)


def need(batch: Packable, field: str) -> Any:  # noqa: ANN401 - what the field holds
    """Return an optional field of a class of samples.

    Raises:
        ValueError: If the batch does not have it.
    """
    value = getattr(batch, field)
    if value is None:
        raise ValueError(
            f"the batch of scans {', '.join(batch.names)} has no {field}; use a dataset or a "
            "sample function that provides them"
        )
    return value


Packed = TypeVar("Packed", bound=Packable)


def pack(samples: Sequence[Packed]) -> Packed:
    """Join samples end to end, in the way of their class.

    Raises:
        ValueError: If there is nothing to pack.
    """
    if not samples:
        raise ValueError("pack needs at least one batch, got none")
    return samples[0].pack(samples)


def nearest_neighbors(xyz: Float[np.ndarray, "n 3"], k: int) -> Int64[np.ndarray, "n k"]:
    """Find the k nearest other points of each point; a small scan repeats its farthest.

    Source: the neighbourhoods of WaffleIron (Puy et al., ICCV 2023), whose column of the point
        itself is dropped.
    """
    n = len(xyz)
    near = knn(xyz, xyz, min(k + 1, n))[1]
    if n == 1:
        return np.zeros((1, k), np.int64)
    own = near == np.arange(n)[:, None]
    own[~own.any(1), -1] = True  # duplicates crowded the point out: drop the farthest instead
    others = near[~own].reshape(n, -1)
    return np.pad(others, ((0, 0), (0, k - others.shape[1])), mode="edge")


def to_batch(
    scan: Scan,
    feat: Float[np.ndarray, "n c"],
    *,
    num_neighbors: int = 0,
    image: Tensor | None = None,
    pixel: Float[np.ndarray, "n 2"] | None = None,
) -> PointBatch:
    """Turn one scan and its features into a batch of one.

    Args:
        scan: Points and labels.
        feat: Network input of each point.
        num_neighbors: Neighbours to look up, here in the loader's worker; 0 for none.
        image: [3 h w] in 0..1.
        pixel: (u, v) of each point in that image.
    """
    neighbors = nearest_neighbors(scan.xyz, num_neighbors) if num_neighbors else None
    return PointBatch(
        names=(scan.name,),
        xyz=torch.from_numpy(scan.xyz),
        feat=torch.from_numpy(feat),
        batch=torch.zeros(len(scan), dtype=torch.long),
        neighbors=None if neighbors is None else torch.from_numpy(neighbors),
        labels=None if scan.labels is None else torch.from_numpy(scan.labels),
        images=None if image is None else image[None],
        pixel=None if pixel is None else torch.from_numpy(np.asarray(pixel, np.float32)),
    )
