import numpy as np
import pytest
from pc_data.synthetic.categories import KITTI_ID, NUSCENES_INDEX, Category
from pc_data.synthetic.ground import Road, Side, height_raster, road_coordinates
from pc_data.synthetic.noise import normal3, uniform3
from pc_data.synthetic.raycast import GROUND, MISS, build_world, cast_rays, height_at
from pc_data.synthetic.solids import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    LEAF,
    Primitives,
    normal_at,
    own_frame,
)

_SIDE = Side(2.2, 1.0, 2.0, False, 0.12, 0.05)
_ROAD = Road(
    0.004, 3.5, 2, 0.0, _SIDE, _SIDE, 30.0, 4.0, (0.01, 0.0), (0.3, 0.05, 0, 0.2, 0.06, 1), 0.03, 5
)


@pytest.fixture(scope="module")
def heights():
    return height_raster(_ROAD)


def _random_primitives(rng, n, *, spread=12.0, kinds=(BOX, CYLINDER, ELLIPSOID)):
    axes = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    return Primitives(
        rng.choice(kinds, n).astype(np.int32),
        (rng.uniform(-spread, spread, (n, 3)) * [1, 1, 0.3] + [0, 0, 3]).astype(np.float32),
        axes.astype(np.float32),
        rng.uniform(0.2, 2.0, (n, 3)).astype(np.float32),
        rng.uniform(0.1, 1.0, (n, 2)).astype(np.float32),
        np.ones(n, dtype=np.float32),
        np.arange(n, dtype=np.int32),
    )


def _inside(p, i, xyz):
    """Whether points lie in primitive i, straight from the definition."""
    u = (xyz - p.center[i]) @ p.axes[i] / p.half[i]
    if p.kind[i] == ELLIPSOID:
        return (u**2).sum(-1) <= 1
    width = 1 + (p.taper[i] - 1) * (u[..., 2:] + 1) / 2
    if p.kind[i] == CYLINDER:
        return (np.hypot(u[..., 0], u[..., 1]) <= width[..., 0]) & (abs(u[..., 2]) <= 1)
    return (abs(u[..., :2]) <= width).all(-1) & (abs(u[..., 2]) <= 1)


def _first_inside(p, heights, origin, rays, steps):
    """First sample of each ray inside anything, by brute force."""
    best = np.full(len(rays), np.inf)
    for k, ray in enumerate(rays):
        xyz = origin + steps[:, None] * ray
        met = np.zeros(len(steps), dtype=bool)
        for i in range(len(p.kind)):
            met |= _inside(p, i, xyz)
        near = np.flatnonzero(xyz[:, 2] < heights.max())
        ground = np.array([height_at(heights, float(x), float(y)) for x, y, _ in xyz[near]])
        met[near] |= xyz[near, 2] < ground
        if met.any():
            best[k] = steps[met.argmax()]
    return best


def _rays(rng, n):
    rays = rng.normal(size=(n, 3)) * [1, 1, 0.4] - [0, 0, 0.7]
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_first_hit_equals_brute_force(heights, n):
    rng = np.random.default_rng(n)
    primitives = _random_primitives(rng, n)
    origin = np.array([0.3, 0.2, 12.0])
    rays = _rays(rng, 120)
    rays[:4] = [[1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 1]]
    world = build_world(heights, _ROAD.params(), primitives)
    t, hit = cast_rays(world, origin, rays, far=30.0)
    step = 0.01
    steps = np.arange(0.0, 30.0, step)
    expected = _first_inside(primitives, heights, origin, rays, steps)
    # A ray that clips a corner for less than one step is seen by the caster alone.
    graze = (hit != MISS) & (t < expected - 2 * step)
    assert graze.mean() < 0.02
    met = ~graze & np.isfinite(expected)
    assert met.sum() > 30
    # Hills are followed in steps of 0.3 m, so a crest may be cut short a little.
    solid = met & (hit >= 0)
    assert np.abs(t[solid] - expected[solid]).max(initial=0) < 2 * step
    ground = met & (hit == GROUND)
    assert np.quantile(np.abs(t[ground] - expected[ground]), 0.95) < 0.1
    assert (hit[~graze & ~np.isfinite(expected)] == MISS).all()


def test_equal_primitives_give_the_first(heights):
    rng = np.random.default_rng(1)
    one = _random_primitives(rng, 1)
    two = Primitives(*(np.concatenate([a, a]) for a in one))
    origin = np.array([0.0, 0.0, 12.0])
    ray = one.center[0] - origin
    ray = (ray / np.linalg.norm(ray))[None]
    t1, hit1 = cast_rays(build_world(heights, _ROAD.params(), one), origin, ray)
    t2, hit2 = cast_rays(build_world(heights, _ROAD.params(), two), origin, ray)
    assert hit1[0] == hit2[0] == 0
    assert t1[0] == t2[0]


@pytest.mark.parametrize("kind", [BOX, CYLINDER, ELLIPSOID])
def test_normals_point_out_of_the_solid(heights, kind):
    rng = np.random.default_rng(kind)
    primitives = _random_primitives(rng, 1, spread=1.0, kinds=(kind,))
    world = build_world(heights, _ROAD.params(), primitives)
    origin = primitives.center[0] + 6.0 * _rays(rng, 200) * [1, 1, -1]
    rays = primitives.center[0] - origin
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    t, hit = cast_rays(world, origin, rays)
    for k in np.flatnonzero(hit == 0):
        p = origin[k] + t[k] * rays[k]
        q = own_frame(world.solids, 0, *p)
        normal = np.array(normal_at(world.solids, 0, q)[:3])
        assert abs(np.linalg.norm(normal) - 1) < 1e-6
        assert not _inside(primitives, 0, p + 2e-3 * normal)
        assert _inside(primitives, 0, p - 2e-3 * normal)


def test_porous_solids_let_some_rays_through(heights):
    rng = np.random.default_rng(4)
    for solidity, low, high in ((0.15, 0.2, 0.999), (-1.0, 0.1, 0.8), (-3.0, 0.1, 0.9)):
        primitives = Primitives(
            np.array([BOX], dtype=np.int32),
            np.array([[6.0, 0.0, 6.0]], dtype=np.float32),
            np.eye(3, dtype=np.float32)[None].repeat(1, axis=0)[:, [1, 0, 2]],
            np.array([[2.0, 2 * LEAF, 2.0]], dtype=np.float32),
            np.ones((1, 2), dtype=np.float32),
            np.array([solidity], dtype=np.float32),
            np.array([3], dtype=np.int32),
        )
        target = np.array([6.0, 0.0, 6.0]) + rng.uniform(-1.9, 1.9, (400, 3)) * [0, 1, 1]
        origin = np.array([0.0, 0.0, 6.0])
        rays = target - origin
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        _, hit = cast_rays(build_world(heights, _ROAD.params(), primitives), origin, rays)
        assert low < (hit == 0).mean() < high


@pytest.mark.parametrize("curvature", [0.0, 0.006, -0.006])
def test_road_coordinates_invert_the_road(curvature):
    road = _ROAD._replace(curvature=curvature)
    s, d = np.random.default_rng(0).uniform(-60, 60, (2, 50))
    d *= 0.4
    x, y, _ = road.to_xy(s, d)
    back = [road_coordinates(float(a), float(b), curvature) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(back, np.stack([s, d], axis=1), atol=1e-9)


def test_hashes_look_random():
    u = np.array([uniform3(i, j, 3) for i in range(-50, 50) for j in range(40)])
    assert abs(u.mean() - 0.5) < 0.02
    assert abs(u.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.05
    z = np.array([normal3(i, 7, 9) for i in range(4000)])
    assert abs(z.mean()) < 0.06
    assert abs(z.std() - 1) < 0.05


def test_every_category_has_its_raw_ids():
    assert len(NUSCENES_INDEX) == len(KITTI_ID) == len(Category)
    assert [NUSCENES_INDEX[c] for c in (Category.CAR, Category.CONE, Category.TERRAIN)] == [
        17,
        12,
        27,
    ]
    assert KITTI_ID[Category.BICYCLIST].tolist() == [31, 253]
    assert KITTI_ID[Category.TRUNK].tolist() == [71, 71]
