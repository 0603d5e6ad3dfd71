import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_2dteachers.spherical import nearest_centroid, spherical_kmeans
from torch.nn import functional


def directions(count, channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, channels, generator=generator), dim=1)


def bundles(num_bundles, each, spread=0.05, seed=0):
    """Directions near well separated axes, and which axis each is near."""
    axes = torch.eye(num_bundles)
    noise = torch.randn(
        num_bundles * each, num_bundles, generator=torch.Generator().manual_seed(seed)
    )
    label = torch.arange(num_bundles).repeat_interleave(each)
    return functional.normalize(axes[label] + spread * noise, dim=1), label


def plain_rounds(unit, centroids, rounds):
    """Lloyd's rounds on the sphere, one vector at a time."""
    for _ in range(rounds):
        cluster = [int(np.argmax([x @ c for c in centroids])) for x in unit]
        means = [
            np.sum([x for x, at in zip(unit, cluster, strict=True) if at == k], axis=0)
            for k in range(len(centroids))
        ]
        centroids = [mean / np.linalg.norm(mean) for mean in means]
    return np.array(centroids)


def test_rounds_are_those_of_the_plain_form():
    unit = directions(60, 4, seed=1).double()
    start = spherical_kmeans(unit, 4, max_iterations=1)
    for rounds in (1, 2, 4):
        want = plain_rounds(unit.numpy(), list(start.numpy()), rounds)
        got = spherical_kmeans(unit, 4, max_iterations=rounds + 1).numpy()
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_separate_bundles_are_found():
    unit, label = bundles(6, 50)
    for seed in range(5):
        centroids = spherical_kmeans(unit, 6, seed=seed)
        _, cluster = nearest_centroid(unit, centroids)
        pairs = {(int(a), int(b)) for a, b in zip(label, cluster, strict=True)}
        assert len(pairs) == 6


def test_the_end_is_a_fixed_point_and_better_than_the_start():
    unit = directions(400, 8)
    centroids = spherical_kmeans(unit, 10)
    similarity, cluster = nearest_centroid(unit, centroids)
    sums = torch.stack([unit[cluster == k].sum(0) for k in range(10)])
    torch.testing.assert_close(functional.normalize(sums, dim=1), centroids)
    start, _ = nearest_centroid(unit, spherical_kmeans(unit, 10, max_iterations=1))
    assert similarity.mean() > start.mean()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**16), st.booleans())
def test_few_duplicate_or_opposite_vectors(count, channels, seed, opposite):
    unit = directions(count, channels, seed)
    unit = torch.cat([unit, -unit if opposite else unit])
    for num_clusters in (1, count, 2 * count):
        centroids = spherical_kmeans(unit, num_clusters, seed=seed)
        assert centroids.shape == (num_clusters, channels)
        torch.testing.assert_close(centroids.norm(dim=1), torch.ones(num_clusters))


def test_lost_clusters_start_anew_far_from_the_others():
    """Two of three first centroids fall on the same of three bundles of copies."""
    unit = torch.eye(3).repeat_interleave(4, dim=0)
    for seed in range(8):
        centroids = spherical_kmeans(unit, 3, seed=seed)
        assert sorted(centroids.argmax(dim=1).tolist()) == [0, 1, 2]


def test_the_seed_decides_and_the_global_generator_stays():
    unit = directions(300)
    state = torch.get_rng_state()
    a, b, c = (spherical_kmeans(unit, 12, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_wrong_settings_are_refused():
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=rf"num_clusters must be in \[1, 4\] .* got {wrong}"):
            spherical_kmeans(directions(4), wrong)
    with pytest.raises(ValueError, match="max_iterations must be 1 or more, got 0"):
        spherical_kmeans(directions(4), 2, max_iterations=0)
