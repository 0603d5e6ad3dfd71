"""Objects as lists of solids, and their packing into arrays."""

from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32

from pc_data.synthetic.categories import Category
from pc_data.synthetic.solids import BOX, CYLINDER, ELLIPSOID, Primitives

Color = tuple[float, float, float]
Vector = tuple[float, float, float]


class Material(IntEnum):
    """How a solid looks; the numbers are the ones `pc_data.synthetic.textures` reads."""

    PLAIN = 0
    FACADE = 1
    FOLIAGE = 2
    BARK = 3
    CAR_BODY = 4
    CAR_CABIN = 5
    WHEEL = 6
    STRIPES = 7
    DIAGONAL = 8
    METAL = 9
    SIGN = 10
    BUS_BODY = 11
    CARGO = 12
    TRUCK_CAB = 13
    WALL = 14
    ROOF = 15
    CLOTH = 16
    SKIN = 17
    SIGNAL = 18
    GLASS = 19


class Part(NamedTuple):
    """One solid in its object's frame (x forward, y left, z up from the ground), metres, radians.

    Attributes:
        kind: BOX, CYLINDER or ELLIPSOID.
        center: Of the solid.
        half: Half sizes.
        material: How it looks.
        color: Main colour, linear 0..1.
        accent: Second colour.
        euler: Yaw, then pitch (nose down), then roll.
        taper: Top width over bottom width.
        solidity: See `Primitives`.
        pattern: What the texture of this material needs.
        category: If it differs from the object's.
    """

    kind: int
    center: Vector
    half: Vector
    material: Material
    color: Color
    accent: Color = (0.02, 0.02, 0.02)
    euler: Vector = (0.0, 0.0, 0.0)
    taper: tuple[float, float] = (1.0, 1.0)
    solidity: float = 1.0
    pattern: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    category: Category | None = None


box = partial(Part, BOX)
tube = partial(Part, CYLINDER)  # an elliptic cylinder or cone along its own z
ball = partial(Part, ELLIPSOID)


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """Parts that stand or move together.

    Attributes:
        category: What it is.
        parts: Its solids.
        s: Arc length along the road at time 0, metres.
        d: Offset to the left of the road, metres.
        yaw: Relative to the road's heading there, radians.
        speed: Along its own x, metres per second.
        instance: Whether it is a countable object with an annotation box.
        tilts: Whether it follows the slope of the ground.
    """

    category: Category
    parts: tuple[Part, ...]
    s: float
    d: float
    yaw: float = 0.0
    speed: float = 0.0
    instance: bool = False
    tilts: bool = False

    def extent(self) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, " 3"]]:
        """Lower and upper corner of all parts in the object's frame, metres."""
        table = PartTable.of(self.parts)
        reach = np.einsum("nij,nj->ni", np.abs(table.axes), table.half)
        return (table.center - reach).min(0), (table.center + reach).max(0)


def rotation(euler: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """Rz(yaw) Ry(pitch) Rx(roll) of each row."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(euler).T, np.sin(euler).T
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


class PartTable(NamedTuple):
    """The parts of one or many objects as arrays, each in its object's frame."""

    kind: Int32[np.ndarray, " n"]
    center: Float64[np.ndarray, "n 3"]
    half: Float64[np.ndarray, "n 3"]
    axes: Float64[np.ndarray, "n 3 3"]
    taper: Float32[np.ndarray, "n 2"]
    solidity: Float32[np.ndarray, " n"]
    material: Int32[np.ndarray, " n"]
    color: Float32[np.ndarray, "n 3"]
    accent: Float32[np.ndarray, "n 3"]
    pattern: Float32[np.ndarray, "n 4"]

    @classmethod
    def of(cls, parts: tuple[Part, ...]) -> "PartTable":
        """Stack the rows."""
        columns = list(zip(*parts, strict=True))
        kind, center, half, material, color, accent, euler, taper, solidity, pattern, _ = columns
        return cls(
            np.array(kind, dtype=np.int32),
            np.array(center, dtype=np.float64),
            np.array(half, dtype=np.float64),
            rotation(np.array(euler, dtype=np.float64)),
            np.array(taper, dtype=np.float32),
            np.array(solidity, dtype=np.float32),
            np.array(material, dtype=np.int32),
            np.array(color, dtype=np.float32),
            np.array(accent, dtype=np.float32),
            np.array(pattern, dtype=np.float32),
        )

    def place(
        self,
        owner: Int32[np.ndarray, " n"],
        position: Float64[np.ndarray, "o 3"],
        axes: Float64[np.ndarray, "o 3 3"],
        salt: Int32[np.ndarray, " n"],
    ) -> Primitives:
        """Move each part with its owner into the scene's frame."""
        turned = np.einsum("nij,nj->ni", axes[owner], self.center)
        return Primitives(
            self.kind,
            (position[owner] + turned).astype(np.float32),
            (axes[owner] @ self.axes).astype(np.float32),
            self.half.astype(np.float32),
            self.taper,
            self.solidity,
            salt,
        )
