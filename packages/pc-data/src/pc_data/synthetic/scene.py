"""A scene over time: the objects placed, the recording car's path, boxes of what counts."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from pc_geometry.compiling import kernel

from pc_data.synthetic.ground import Road, height_raster
from pc_data.synthetic.parts import PartTable, SceneObject
from pc_data.synthetic.raycast import World, build_world, height_at
from pc_data.synthetic.sensors import Light
from pc_data.synthetic.street import ego_lane, lay_street
from pc_data.synthetic.style import Style, draw_light, draw_paving, draw_road
from pc_data.synthetic.textures import Paving, look_table

_MAX_PATH = 40.0  # metres that the car may drive, so that the world surrounds it all the time


@kernel
def _count_points(
    xyz: np.ndarray, center: np.ndarray, size: np.ndarray, axes: np.ndarray, counts: np.ndarray
) -> None:
    for b in range(len(center)):
        reach = 0.25 * (size[b, 0] ** 2 + size[b, 1] ** 2 + size[b, 2] ** 2)
        for k in range(len(xyz)):
            x, y, z = xyz[k, 0] - center[b, 0], xyz[k, 1] - center[b, 1], xyz[k, 2] - center[b, 2]
            if x * x + y * y + z * z > reach:
                continue
            inside = True
            for i in range(3):
                own = axes[b, 0, i] * x + axes[b, 1, i] * y + axes[b, 2, i] * z
                inside = inside and abs(own) <= 0.5 * size[b, i]
            counts[b] += inside


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Oriented boxes of the countable objects at one moment, in the scene's frame.

    Attributes:
        instance: Number of the object, from 1.
        category: What it is.
        center: Metres.
        size: Length, width and height, metres.
        axes: Scene-from-box rotation (x forward).
        speed: Metres per second.
    """

    instance: Int32[np.ndarray, " b"]
    category: Int32[np.ndarray, " b"]
    center: Float64[np.ndarray, "b 3"]
    size: Float64[np.ndarray, "b 3"]
    axes: Float64[np.ndarray, "b 3 3"]
    speed: Float64[np.ndarray, " b"]

    def select(self, keep: Int64[np.ndarray, " m"]) -> "Boxes":
        """Some of the boxes."""
        return Boxes(
            instance=self.instance[keep],
            category=self.category[keep],
            center=self.center[keep],
            size=self.size[keep],
            axes=self.axes[keep],
            speed=self.speed[keep],
        )

    def count_points(self, xyz: Float64[np.ndarray, "n 3"]) -> Int64[np.ndarray, " b"]:
        """Number of points (scene frame) in each box."""
        counts = np.zeros(len(self.instance), dtype=np.int64)
        _count_points(np.ascontiguousarray(xyz), self.center, self.size, self.axes, counts)
        return counts


class Scene:
    """A street, furnished once, and seen at any time within `duration` seconds."""

    def __init__(self, style: Style, *, seed: tuple[int, ...], duration: float) -> None:
        rng = np.random.default_rng(seed)
        self.salt = int(rng.integers(1 << 20))
        self.road: Road = draw_road(rng, style, salt=self.salt)
        self.paving: Paving = draw_paving(rng, style, salt=self.salt)
        self.light: Light = draw_light(rng, style, salt=self.salt)
        self.ego_speed = float(min(rng.uniform(4, 9), _MAX_PATH / max(duration, 1e-3)))
        self.ego_start = -0.5 * duration * self.ego_speed
        self.objects: list[SceneObject] = lay_street(
            rng, style, self.road, ego_speed=self.ego_speed, ego_start=self.ego_start
        )
        self._draw_materials(rng)

    def _draw_materials(self, rng: np.random.Generator) -> None:
        objects = self.objects
        parts = tuple(itertools.chain.from_iterable(item.parts for item in objects))
        counts = np.array([len(item.parts) for item in objects])
        self._owner = np.repeat(np.arange(len(objects), dtype=np.int32), counts)
        self._table = PartTable.of(parts)
        self._salts = rng.integers(1, 1 << 20, len(parts)).astype(np.int32)
        # Materials overlap on purpose: brightness in the infrared tells little about the class.
        whole = rng.normal(np.log(0.22), 0.6, len(objects))[self._owner]
        reflect = np.exp(whole + rng.normal(0, 0.35, len(parts)))
        category = [
            part.category if part.category is not None else item.category
            for item in objects
            for part in item.parts
        ]
        numbers = np.array([k + 1 if item.instance else 0 for k, item in enumerate(objects)])
        self.look = look_table(
            material=self._table.material,
            color=self._table.color,
            accent=self._table.accent,
            pattern=self._table.pattern,
            reflectivity=np.clip(reflect, 0.04, 0.95).astype(np.float32),
            category=np.array(category, dtype=np.int32),
            instance=numbers[self._owner].astype(np.int32),
        )

    @cached_property
    def heights(self) -> Float32[np.ndarray, "rows columns"]:
        """Ground raster."""
        return height_raster(self.road)

    def release(self) -> None:
        """Forget the ground raster, most of a scene's memory; it is made again when needed."""
        vars(self).pop("heights", None)

    @cached_property
    def moving(self) -> Bool[np.ndarray, " instances1"]:
        """Whether the instance of that number moves; entry 0 is False."""
        return np.array([False, *(item.speed != 0 for item in self.objects)])

    def ground_pose(
        self, s: np.ndarray, d: np.ndarray, yaw: np.ndarray, tilts: np.ndarray
    ) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3 3"]]:
        """Position on the ground and scene-from-own rotation, x forward."""
        x, y, heading = self.road.to_xy(s, d)
        yaw = heading + yaw
        ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)

        def height(px: np.ndarray, py: np.ndarray) -> np.ndarray:
            pairs = zip(px, py, strict=True)
            return np.array([height_at(self.heights, float(a), float(b)) for a, b in pairs])

        z = height(x, y)
        reach = 1.3
        rise = height(x + reach * ahead[:, 0], y + reach * ahead[:, 1])
        rise -= height(x - reach * ahead[:, 0], y - reach * ahead[:, 1])
        forward = np.column_stack([ahead, np.where(tilts, rise / (2 * reach), 0.0)])
        forward /= np.linalg.norm(forward, axis=1, keepdims=True)
        left = np.column_stack([-ahead[:, 1], ahead[:, 0], np.zeros(len(z))])
        axes = np.stack([forward, left, np.cross(forward, left)], axis=2)
        return np.column_stack([x, y, z]), axes

    def ego_pose(self, time: float) -> Float64[np.ndarray, "4 4"]:
        """Scene-from-ego: on the ground under the rear axle, x forward, y left, z up."""
        s = np.array([self.ego_start + self.ego_speed * time])
        # The lane's middle is held to a few centimetres, slowly.
        d = ego_lane(self.road) + 0.15 * np.sin(0.7 * s / 5.0)
        yaw = 0.15 * 0.14 * np.cos(0.7 * s / 5.0)
        position, axes = self.ground_pose(s, d, yaw, np.array([True]))
        pose = np.eye(4)
        pose[:3, :3] = axes[0]
        pose[:3, 3] = position[0]
        return pose

    def _poses(
        self, time: float
    ) -> tuple[Float64[np.ndarray, "o 3"], Float64[np.ndarray, "o 3 3"]]:
        rows = [
            (item.s + np.cos(item.yaw) * item.speed * time, item.d, item.yaw, item.tilts)
            for item in self.objects
        ]
        s, d, yaw, tilts = np.array(rows, dtype=np.float64).T
        return self.ground_pose(s, d, yaw, tilts > 0)

    def world(self, time: float) -> World:
        """Everything that rays can meet at that moment."""
        position, axes = self._poses(time)
        solids = self._table.place(self._owner, position, axes, self._salts)
        return build_world(self.heights, self.road.params(), solids)

    def boxes(self, time: float) -> Boxes:
        """Boxes of the countable objects at that moment."""
        chosen = [k for k, item in enumerate(self.objects) if item.instance]
        position, axes = self._poses(time)
        corners = [self.objects[k].extent() for k in chosen]
        low = np.array([corner[0] for corner in corners]).reshape(-1, 3)
        high = np.array([corner[1] for corner in corners]).reshape(-1, 3)
        middle = np.einsum("nij,nj->ni", axes[chosen], 0.5 * (low + high))
        return Boxes(
            instance=np.array(chosen, dtype=np.int32) + 1,
            category=np.array([self.objects[k].category for k in chosen], dtype=np.int32),
            center=position[chosen] + middle,
            size=high - low,
            axes=axes[chosen],
            speed=np.array([self.objects[k].speed for k in chosen], dtype=np.float64),
        )
