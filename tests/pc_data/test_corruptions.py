"""Corruptions of LiDAR scans: known answers, alignment of labels, reproducibility."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_data import DataConfig, Scan
from pc_data.corruptions.beams import beam_missing, cross_sensor, find_beams
from pc_data.corruptions.fog import LIGHT_SPEED, fog
from pc_data.corruptions.levels import LEVELS, CorruptedScans, corrupt, vehicles
from pc_data.corruptions.names import CORRUPTIONS, SEVERITIES
from pc_data.corruptions.points import crosstalk, incomplete_echo, motion_blur
from pc_data.corruptions.sensors import SENSORS, Sensor, sensor_of
from pc_data.corruptions.snow import flakes_per_area, snow
from pc_data.corruptions.wet_ground import under_water, wet_ground
from pc_data.errors import DataError
from pc_data.readers.nuscenes import NuScenes

from tests.pc_data.scans import assert_same, boxes_of, camera, copied
from tests.pc_data.tiny_worlds import write_nuscenes
from tests.real_data import REAL_DATA, needs_real_data

SENSOR = SENSORS["nuscenes"]
CLASSES = ("road", "car", "building")
BEAMS, COLUMNS = 32, 300
REMOVING = ("beam_missing", "incomplete_echo", "cross_sensor")


def street(*, beam_by_beam=False, **changes):
    """Flat ground and a round wall, seen by each beam at each azimuth; and the points' beams.

    `time` numbers the points, so that they can be told apart whatever happens to them.
    """
    elevation = np.radians(np.linspace(-30.67, 10.67, BEAMS))
    azimuth = np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False) + 1e-3
    beam, column = np.meshgrid(np.arange(BEAMS), np.arange(COLUMNS), indexing="ij")
    if not beam_by_beam:
        beam, column = beam.T, column.T
    beam, column = beam.ravel(), column.ravel()
    slope, turn = np.tan(elevation[beam]), azimuth[column]
    flat = np.where(slope * 40 < -SENSOR.height, -SENSOR.height / np.minimum(slope, -1e-9), 40.0)
    xyz = np.stack([flat * np.cos(turn), flat * np.sin(turn), flat * slope], axis=1)
    n = len(xyz)
    labels = np.where(flat < 40, 0, 2)
    labels[(labels == 2) & (column % 5 == 0)] = 1
    labels[::11] = -1
    grain = 1 + 0.5 * np.random.default_rng(0).random(n)
    fields = {
        "name": "street/0",
        "xyz": xyz.astype(np.float32),
        "intensity": (grain * np.where(labels == 0, 400 / (3 + flat), 30)).astype(np.float32),
        "labels": labels,
        "instance": np.where(labels == 1, 7, 0),
        "time": np.arange(n, dtype=np.float32),
        "cameras": (camera(),),
        "boxes": boxes_of(3),
        "pose": np.eye(4),
    }
    return Scan(**(fields | changes)), beam


def damaged(scan, corruption, severity="heavy", *, seed=3, sensor=SENSOR, beams=None):
    rng = np.random.default_rng(seed)
    return corrupt(scan, rng, corruption, severity, sensor=sensor, class_names=CLASSES, beams=beams)


def number(scan):
    """Which points of the clean scan these are."""
    return scan.time.astype(int)


# --- all of them


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_same_random_numbers_same_scan(corruption):
    scan, _ = street()
    before = copied(scan)
    assert_same(damaged(scan, corruption), damaged(scan, corruption))
    assert_same(scan, before)
    if corruption not in ("wet_ground", "cross_sensor"):
        other = damaged(scan, corruption, seed=2)
        mine = damaged(scan, corruption)
        assert len(other) != len(mine) or not np.array_equal(other.xyz, mine.xyz)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_labels_stay_with_their_points(corruption, severity):
    scan, _ = street()
    out = damaged(scan, corruption, severity)
    source, made_up = number(out), out.labels < 0
    assert out.xyz.dtype == out.intensity.dtype == np.float32
    assert out.labels.dtype == out.instance.dtype == np.int64
    assert np.isfinite(out.xyz).all()
    assert (out.intensity >= 0).all()
    assert len(np.unique(source)) == len(out) <= len(scan)
    np.testing.assert_array_equal(out.labels[~made_up], scan.labels[source][~made_up])
    np.testing.assert_array_equal(out.instance[~made_up], scan.instance[source][~made_up])
    new = made_up & (scan.labels[source] >= 0)
    assert (out.instance[new] == 0).all()
    assert new.any() == (corruption in ("fog", "snow", "crosstalk"))
    assert out.cameras is scan.cameras
    assert out.boxes is scan.boxes
    assert out.pose is scan.pose


@pytest.mark.parametrize("corruption", REMOVING)
def test_what_only_removes_leaves_all_bits(corruption):
    scan, _ = street()
    out = damaged(scan, corruption)
    assert 0 < len(out) < len(scan)
    assert_same(out, scan.select(number(out)))
    assert (np.diff(number(out)) > 0).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_severity_grows(corruption):
    scan, _ = street()
    known = dataclasses.replace(scan, labels=np.maximum(scan.labels, 0))
    harm = []
    for severity in SEVERITIES:
        out = damaged(known, corruption, severity)
        moved = np.linalg.norm(out.xyz - scan.xyz[number(out)], axis=1)
        lost = len(scan) - len(out)
        harm.append(lost + (out.labels < 0).sum() if corruption != "motion_blur" else moved.mean())
    assert harm[0] < harm[1] < harm[2] or (corruption == "wet_ground" and harm[1] < harm[2])


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_points(corruption, n):
    scan = street()[0].select(np.arange(n))
    out = damaged(scan, corruption)
    assert len(out) <= n
    assert out.xyz.shape == (len(out), 3)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_points_at_the_sensor(corruption):
    scan = street(xyz=np.zeros((BEAMS * COLUMNS, 3), np.float32))[0]
    assert np.isfinite(damaged(scan, corruption).xyz).all()


@pytest.mark.parametrize("corruption", ["fog", "wet_ground", "snow", *REMOVING])
def test_sensor_that_is_not_at_the_origin(corruption):
    scan, _ = street()
    place = np.float32([4, -8, 2])  # sums without rounding
    scan = dataclasses.replace(scan, xyz=np.round(scan.xyz * 1024) / 1024)
    moved = dataclasses.replace(scan, xyz=scan.xyz + place)
    there = dataclasses.replace(SENSOR, position=tuple(place.tolist()))
    expected, out = damaged(scan, corruption), damaged(moved, corruption, sensor=there)
    np.testing.assert_array_equal(number(out), number(expected))
    np.testing.assert_array_equal(out.labels, expected.labels)
    np.testing.assert_allclose(out.xyz - place, expected.xyz, atol=1e-4)


def test_each_corruption_has_three_levels():
    assert tuple(LEVELS) == CORRUPTIONS
    assert all(len(levels) == len(SEVERITIES) for levels in LEVELS.values())


# --- beams


@pytest.mark.parametrize("beam_by_beam", [False, True])
@pytest.mark.parametrize("clockwise", [False, True])
def test_beams_are_found(beam_by_beam, clockwise):
    scan, beam = street(beam_by_beam=beam_by_beam)
    xyz = scan.xyz * np.float32([1, -1 if clockwise else 1, 1])
    np.testing.assert_array_equal(find_beams(xyz, SENSOR), beam)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_beams_of_points_in_any_order(num_beams, per_beam, seed):
    rng = np.random.default_rng(seed)
    beam = rng.permutation(np.repeat(np.arange(num_beams), per_beam))
    elevation = np.radians(-20 + 3.0 * beam)
    turn, reach = rng.uniform(-3, 3, beam.size), rng.uniform(3, 50, beam.size)
    flat = reach * np.cos(elevation)
    xyz = np.stack([flat * np.cos(turn), flat * np.sin(turn), reach * np.sin(elevation)], axis=1)
    sensor = Sensor(num_beams=num_beams, height=1.8, max_intensity=1.0)
    found = find_beams(xyz.astype(np.float32), sensor)
    assert len(np.unique(found)) == num_beams
    assert (found[np.argsort(beam, kind="stable")] == np.sort(found)).all()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_beams_that_are_missing_are_whole(share):
    scan, beam = street()
    for beams in (beam, None):
        rng = np.random.default_rng(0)
        out = beam_missing(scan, rng, sensor=SENSOR, share=share, beams=beams)
        left = np.bincount(beam[number(out)], minlength=BEAMS)
        assert set(left) == {0, COLUMNS}
        assert (left == 0).sum() == share * BEAMS


def test_a_sensor_of_half_the_beams_has_each_second_one():
    scan, beam = street()
    out = cross_sensor(scan, np.random.default_rng(0), sensor=SENSOR, share=0.5)
    left = number(out)
    assert set(beam[left]) == set(range(0, BEAMS, 2))
    column = left // BEAMS
    assert set(column) == set(range(0, COLUMNS, 2))
    for share, gone in ((0.75, {1, 5, 9}), (0.25, {1, 2, 3, 5, 6, 7, 9, 10, 11})):
        out = cross_sensor(scan, np.random.default_rng(0), sensor=SENSOR, share=share, beams=beam)
        assert set(range(12)) - set(beam[number(out)]) == gone


# --- points


def test_motion_blur_shifts_and_shakes():
    scan, _ = street()
    shift = motion_blur(scan, np.random.default_rng(3), std=0.3).xyz - scan.xyz
    common = shift.mean(0)
    assert 0.05 < np.abs(common).max() < 1.2
    np.testing.assert_allclose((shift - common).std(0), [0.03, 0.03, 0.015], rtol=0.05)
    assert_same(motion_blur(scan, np.random.default_rng(3), std=0.0), scan)


def test_crosstalk_takes_its_share():
    scan, _ = street(labels=np.zeros(BEAMS * COLUMNS, np.int64))
    out = crosstalk(scan, np.random.default_rng(0), sensor=SENSOR, share=0.05)
    hit = out.labels < 0
    assert hit.sum() == int(0.05 * len(scan))
    assert_same(out.select(~hit), scan.select(~hit))
    moved = out.xyz[hit] - scan.xyz[hit]
    assert abs(moved.std() - 3) < 0.3
    assert (out.intensity <= SENSOR.max_intensity).all()


def test_incomplete_echoes_are_those_of_vehicles():
    scan, _ = street()
    out = incomplete_echo(scan, np.random.default_rng(0), classes=[1], share=0.95)
    before, after = np.bincount(scan.labels + 1), np.bincount(out.labels + 1)
    assert after.tolist()[:2] == before.tolist()[:2]
    assert after[2] == before[2] - int(0.95 * before[2])
    few = scan.select(np.flatnonzero(scan.labels == 1)[:10])
    assert_same(incomplete_echo(few, np.random.default_rng(0), classes=[1], share=0.95), few)


# --- weather


def test_fog_attenuates_on_both_ways():
    scan, _ = street()
    out = fog(scan, np.random.default_rng(0), sensor=SENSOR, beta=0.0, alphas=[0.02])
    reach = np.linalg.norm(scan.xyz.astype(np.float64), axis=1)
    np.testing.assert_allclose(out.intensity, scan.intensity * np.exp(-0.04 * reach), rtol=1e-6)
    np.testing.assert_array_equal(out.xyz, scan.xyz)
    np.testing.assert_array_equal(out.labels, scan.labels)
    air = fog(scan, np.random.default_rng(0), sensor=SENSOR, beta=0.0, alphas=[0.0])
    assert_same(air, scan)


@pytest.mark.parametrize("alpha", [0.0, 0.03])
def test_fog_returns_what_the_integral_says(alpha):
    """The echo of fog before a surface at 20 m, summed directly."""
    beta, reflectivity, width = 0.008, 1e-6, 20e-9
    time = np.linspace(0, 2 * width, 4001)
    best, where = 0.0, 0.0
    for reach in np.arange(1.0, 20.0, 0.05):
        depth = reach - LIGHT_SPEED * time / 2
        seen = np.clip((depth - 0.9) / 0.1, 0, 1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            density = seen * np.exp(-2 * alpha * depth) / depth**2
        pulse = np.sin(np.pi * time / (2 * width)) ** 2
        echo = np.trapezoid(np.where(seen > 0, pulse * density, 0), time)
        best, where = max((best, where), (echo, reach))
    ratio = best * 20**2 * beta * np.pi / reflectivity
    scan = Scan(name="", xyz=np.float32([[0, 20, 0]]), intensity=np.float32([10]))
    rng = np.random.default_rng(0)
    scale = 10 * np.exp(-2 * alpha * 20) / ratio  # so much fog that it is ten times as strong
    out = fog(scan, rng, sensor=SENSOR, beta=beta * scale, alphas=[alpha], noise=0.0)
    np.testing.assert_allclose(out.xyz, [[0, where, 0]], atol=0.11)
    expected = min(100 * np.exp(-2 * alpha * 20), 255)
    np.testing.assert_allclose(out.intensity, expected, rtol=0.03)


def test_fog_stays_on_the_ray_before_the_surface():
    scan, _ = street()
    out = fog(scan, np.random.default_rng(0), sensor=SENSOR, beta=0.2, alphas=[0.06])
    made_up = (out.xyz != scan.xyz).any(1)
    assert (out.labels[made_up] == -1).all()
    assert made_up.mean() > 0.2
    before, after = scan.xyz[made_up].astype(float), out.xyz[made_up].astype(float)
    ratio = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
    assert ((ratio > 0) & (ratio <= 1)).all()
    np.testing.assert_allclose(after, before * ratio[:, None], atol=1e-4)


def test_flakes_that_are_counted_by_hand():
    # 3.6 mm/h of water at 1 m/s are a millionth of the air, of snow ten times as much.
    assert flakes_per_area(3.6, 1.0, 0.003) == pytest.approx(1e-5 / (np.pi * 3e-6))


def test_snow_leaves_points_that_no_flake_hides():
    scan, _ = street()
    out = snow(
        scan, np.random.default_rng(0), sensor=SENSOR, snowfall_rate=1.0, terminal_velocity=1.6
    )
    clean = scan.select(number(out))
    moved = (out.xyz != clean.xyz).any(1)
    same = ~moved & (out.intensity == clean.intensity)
    assert_same(out.select(same), clean.select(same))
    assert same.mean() > 0.3
    assert (out.intensity[~moved] <= clean.intensity[~moved]).all()
    assert (out.labels[moved] == -1).all()
    before, after = clean.xyz[moved].astype(float), out.xyz[moved].astype(float)
    ratio = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
    assert ((ratio > 0) & (ratio < 1)).all()
    np.testing.assert_allclose(after, before * ratio[:, None], atol=1e-4)
    dry = snow(
        scan, np.random.default_rng(0), sensor=SENSOR, snowfall_rate=0.0, terminal_velocity=1.0
    )
    assert_same(dry, scan)


def test_snow_without_ground():
    scan, _ = street()
    sky = scan.select(scan.xyz[:, 2] > 0)
    out = snow(
        sky, np.random.default_rng(0), sensor=SENSOR, snowfall_rate=2.5, terminal_velocity=1.6
    )
    assert (out.labels < 0).sum() > (sky.labels < 0).sum()


def test_water_passes_as_fresnel_says():
    straight = 4 * 1.0003 * 1.33 / (1.0003 + 1.33) ** 2
    expected = straight**2 * 0.1 / (1 - 0.1 * (1 - straight))
    cosine = np.array([1.0, 0.5, 0.2, 0.05])
    shares = under_water(cosine, np.full(4, 0.1))
    assert shares[0] == pytest.approx(expected)
    assert shares[3] < shares[2] < shares[0] < 0.1
    brewster = np.cos(np.arctan(1.33 / 1.0003))  # nothing of one polarisation is mirrored
    assert under_water(np.array([brewster]), np.array([0.1])) == pytest.approx(0.1)


def test_wet_ground_darkens_the_ground_alone():
    scan, _ = street()
    wet = {"sensor": SENSOR, "noise_floor": 0.2}
    out = wet_ground(scan, np.random.default_rng(0), water_height=1.2e-3, **wet)
    clean = scan.select(number(out))
    ground = np.abs(clean.xyz[:, 2] + SENSOR.height) < 1e-3
    assert_same(out.select(~ground), clean.select(~ground))
    far = ground & (np.linalg.norm(clean.xyz, axis=1) > 15)
    assert far.any()
    assert (out.intensity[far] < 0.7 * clean.intensity[far]).all()
    assert (out.intensity[ground] <= clean.intensity[ground]).all()
    np.testing.assert_array_equal(out.xyz, clean.xyz)
    deep = wet_ground(scan, np.random.default_rng(0), water_height=5e-3, **wet)
    assert_same(deep, out)  # the pavement is covered


# --- refusals


def test_scan_that_lacks_something():
    scan, _ = street(intensity=None)
    for corruption in ("snow", "wet_ground"):
        with pytest.raises(DataError, match=r"street/0 has no intensities; snow and wet ground"):
            damaged(scan, corruption)
    with pytest.raises(DataError, match=r"street/0 has no labels; incomplete echoes need them"):
        damaged(street(labels=None)[0], "incomplete_echo")
    for corruption in ("fog", "crosstalk", "motion_blur", "beam_missing", "cross_sensor"):
        bare = Scan(name="", xyz=scan.xyz)
        assert damaged(bare, corruption).labels is None


def test_classes_without_vehicles():
    assert vehicles(("road", "car", "other-vehicle", "construction_vehicle")) == [1, 2, 3]
    with pytest.raises(ValueError, match=r"none of the 2 classes \(wall, floor, .* is a vehicle"):
        vehicles(("wall", "floor"))


def test_datasets_without_one_known_sensor(tmp_path):
    assert sensor_of(DataConfig(root=tmp_path, name="semantickitti")).num_beams == 64
    with pytest.raises(ValueError, match=r"scans of scannet do not come from one known LiDAR"):
        sensor_of(DataConfig(root=tmp_path, name="scannet"))
    with pytest.raises(ValueError, match=r"pass version pandar64, got ''"):
        sensor_of(DataConfig(root=tmp_path, name="pandaset"))
    assert sensor_of(DataConfig(root=tmp_path, name="waymo", version="top")).height > 2
    with pytest.raises(ValueError, match="num_beams must be positive, got 0"):
        Sensor(num_beams=0, height=1.8, max_intensity=1.0)


# --- datasets


def test_a_scan_depends_on_its_index_alone(tmp_path):
    dataset = NuScenes(write_nuscenes(tmp_path / "world"), split="all")
    first = CorruptedScans(dataset, "crosstalk", "heavy", sensor=SENSOR, seed=5)
    again = pickle.loads(pickle.dumps(first))  # noqa: S301
    assert len(first) == len(dataset) > 1
    assert (first.root, first.split) == (dataset.root, "all")
    backwards = [again[i] for i in reversed(range(len(again)))]
    for mine, other in zip((first[i] for i in range(len(first))), reversed(backwards), strict=True):
        assert_same(mine, other)
    for change in ({"seed": 6}, {"severity": "moderate"}, {"corruption": "motion_blur"}):
        fields = {"corruption": "crosstalk", "severity": "heavy", "seed": 5} | change
        other = CorruptedScans(
            dataset, fields["corruption"], fields["severity"], sensor=SENSOR, seed=fields["seed"]
        )
        assert not np.array_equal(other[0].xyz, first[0].xyz)


def test_beams_of_nuscenes_are_those_of_its_files(tmp_path):
    root = write_nuscenes(tmp_path / "world")
    dataset = NuScenes(root, split="all")
    points = dataset.load_points(0)
    points[:, 4] = np.arange(len(points)) % 4
    points.astype("<f4").tofile(dataset.scan_file(0))
    sensor = Sensor(num_beams=4, height=1.84, max_intensity=255.0)
    out = CorruptedScans(dataset, "beam_missing", "moderate", sensor=sensor)[0]
    kept = np.isin(points[:, 0], out.xyz[:, 0])
    assert sorted(np.bincount(points[kept, 4].astype(int), minlength=4))[:2] == [0, 0]
    assert 24 <= len(out) <= 26  # of 50


def test_corruption_that_cannot_happen_is_refused_at_once(tmp_path):
    dataset = NuScenes(write_nuscenes(tmp_path / "world"), split="all")
    dataset.class_names = ("wall",)
    with pytest.raises(ValueError, match="is a vehicle"):
        CorruptedScans(dataset, "incomplete_echo", "light", sensor=SENSOR)


# --- real scans


def real_nuscenes():
    file = next((REAL_DATA / "nuscenes/samples/LIDAR_TOP").glob("*.bin"))
    rows = np.fromfile(file, "<f4").reshape(-1, 5)
    return rows[:, :3].copy(), rows[:, 3].copy(), rows[:, 4].astype(int)


@needs_real_data
def test_beams_of_a_real_keyframe():
    xyz, _, ring = real_nuscenes()
    clear = np.hypot(xyz[:, 0], xyz[:, 1]) > 1.5
    same = find_beams(xyz, SENSOR) == ring
    assert same[clear].mean() > 0.85
    assert same[clear & (xyz[:, 2] > 0)].all()


@needs_real_data
@pytest.mark.parametrize("name", ["00/000000", "00/000001", "01/000000", "08/000000"])
def test_beams_of_real_turns(name):
    sequence, frame = name.split("/")
    folder = REAL_DATA / "semantickitti/dataset/sequences"
    xyz = np.fromfile(folder / sequence / f"velodyne/{frame}.bin", "<f4").reshape(-1, 4)[:, :3]
    beam = find_beams(xyz, SENSORS["semantickitti"])
    assert np.bincount(beam, minlength=64).min() > 100
    assert (np.diff(beam) != 0).sum() == 63  # stored beam by beam


@needs_real_data
def test_weather_on_a_real_keyframe():
    xyz, intensity, _ = real_nuscenes()
    scan = Scan(name="real", xyz=xyz, intensity=intensity, labels=np.zeros(len(xyz), np.int64))
    made_up = [(damaged(scan, "snow", severity).labels < 0).mean() for severity in SEVERITIES]
    assert 0.005 < made_up[0] < made_up[1] < made_up[2] < 0.2
    lost = [len(scan) - len(damaged(scan, "wet_ground", severity)) for severity in SEVERITIES]
    assert lost[0] <= lost[1] < lost[2] < 5000
