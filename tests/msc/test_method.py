"""The method: its loss by hand, what gets a gradient, mixing, several processes."""

from dataclasses import replace

import pytest
import torch
from msc.method import MSC, mix_scans
from msc.pictures import as_colors
from msc.samples import ViewPair, make_views
from msc.targets import columns_of
from pc_backbones import create_backbone
from pc_data.features import ROOM_FEATURES
from pc_data.loading import Samples, StepLoader, sample_rng
from torch.nn import functional

from tests.msc.test_samples import room
from tests.processes import run_in_processes

SCHEDULE = {"lr": 0.1, "weight_decay": 1e-4, "warmup_steps": 1, "num_steps": 10}
TINY = {
    "voxel_size": 0.1,
    "stem_width": 4,
    "stem_kernel": 3,
    "encoder_widths": (4, 6, 8, 8),
    "encoder_depths": (1, 1, 1, 1),
    "decoder_widths": (8, 6, 6, 6),
    "decoder_depths": (1, 1, 1, 1),
}


def method_of(**changes):
    torch.manual_seed(0)
    backbone = create_backbone("sparse_unet", 6, **TINY)
    arguments = {"features": ROOM_FEATURES, "reconstruct": ("color", "normal")}
    return MSC(backbone, **(arguments | changes), schedule=SCHEDULE)


def samples_of(count=4, **changes):
    return [
        make_views(
            room(1500, seed=seed),
            sample_rng(0, 0, seed),
            **({"voxel_size": 0.1, "match_radius": 0.15} | changes),
        )
        for seed in range(count)
    ]


def test_loss_by_hand():
    method = method_of(contrast_weight=0.5, reconstruct_weight=2.0, temperature=0.3)
    batch = ViewPair.pack(samples_of(mix_probability=0.0))
    features = []
    for view, masked in ((batch.query, batch.query_masked), (batch.key, batch.key_masked)):
        feat = view.feat.clone()
        feat[masked] = method.mask_token[0].detach()
        features.append(method.backbone(view.xyz, feat, view.batch))
    i, j = batch.pairs.T
    similarity = functional.normalize(features[0][i]) @ functional.normalize(features[1][j]).T
    expected = 0.5 * functional.cross_entropy(similarity / 0.3, torch.arange(len(i)))
    hidden = torch.cat([features[0][batch.query_masked], features[1][batch.key_masked]])
    truth = torch.cat([batch.query.feat[batch.query_masked], batch.key.feat[batch.key_masked]])
    color, normal = method.heads["color"](hidden), method.heads["normal"](hidden)
    expected += 2 * (color - truth[:, :3]).square().sum(1).mean()
    expected += 2 * (1 - functional.cosine_similarity(normal, truth[:, 3:])).mean()
    result = method.training_step(batch)
    torch.testing.assert_close(result["loss"], expected, rtol=1e-4, atol=1e-5)
    assert set(result["watch"]) == {
        *("contrast", "color", "normal", "alignment", "negative similarity", "feature spread")
    }


def test_gradient_reaches_everything():
    method = method_of()
    method.training_step(ViewPair.pack(samples_of()))["loss"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_hidden_points_show_the_token_alone():
    method = method_of().eval()
    sample = samples_of(1)[0]
    view, masked = sample.query, sample.query_masked
    other = view.feat.clone()
    other[masked] = 7.0
    with torch.inference_mode():
        seen = method.encode(view, masked)
        assert torch.equal(method.encode(replace(view, feat=other), masked), seen)
        other[~masked] += 1.0
        assert not torch.equal(method.encode(replace(view, feat=other), masked), seen)


def test_mixing_merges_neighbours():
    batch = ViewPair.pack(samples_of(5, mix_probability=1.0))
    scan = mix_scans(batch)
    assert torch.equal(scan, (batch.query.batch // 2) * 2)
    assert not batch.query.batch.equal(scan)
    apart = ViewPair.pack(samples_of(5, mix_probability=0.0))
    assert torch.equal(mix_scans(apart), apart.query.batch)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_same_scans_are_mixed_whatever_the_number_of_processes(world_size):
    rooms = [replace(room(60, seed=seed), name=str(seed)) for seed in range(9)]
    samples = Samples([(rooms, make_views)], seed=1)

    def mixed(num_processes):
        """Of each step the scans, with the one that each of them is seen in."""
        size = 8 // num_processes
        loaders = [
            StepLoader(samples, batch_size=size, num_steps=3, rank=rank, world_size=num_processes)
            for rank in range(num_processes)
        ]
        return [set().union(*map(_seen_in, batches)) for batches in zip(*loaders, strict=True)]

    steps = mixed(1)
    assert any(name != other for step in steps for name, other in step)
    assert mixed(world_size) == steps


def _seen_in(batch):
    scan = mix_scans(batch)
    own = batch.query.batch.tolist()
    return {(batch.names[i], batch.names[j]) for i, j in zip(own, scan.tolist(), strict=True)}


def test_greys_of_a_reconstruction_are_those_of_the_truth():
    truth = torch.linspace(-1, 2, 101)[:, None]
    nearly_constant = 0.5 + 1e-3 * truth
    shown = as_colors(nearly_constant, "intensity", like=truth)
    assert shown.shape == (101, 3)
    assert abs(shown - 0.5).max() < 0.01
    assert as_colors(truth, "intensity").max() == 1


def test_mixing_changes_the_query_and_not_the_key():
    method = method_of().eval()
    batch = ViewPair.pack(samples_of(2, mix_probability=1.0))
    with torch.inference_mode():
        alone = method.encode(batch.query, batch.query_masked)
        mixed = method.encode(batch.query, batch.query_masked, scan=mix_scans(batch))
    assert not torch.allclose(alone, mixed)


def test_without_reconstruction():
    method = method_of(reconstruct=())
    result = method.training_step(ViewPair.pack(samples_of(2, mask_rate=0.0)))
    torch.testing.assert_close(result["loss"], result["watch"]["contrast"])


def test_no_pair_and_nothing_hidden_still_give_a_gradient():
    method = method_of()
    batch = ViewPair.pack(samples_of(2, mask_rate=0.0, max_pairs=0))
    loss = method.training_step(batch)["loss"]
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize(
    ("target", "features", "match"),
    [
        ("colour", ROOM_FEATURES, "reconstruct must be of color, normal, intensity, got 'colour'"),
        ("intensity", ROOM_FEATURES, "reconstruct intensity needs intensity among the features"),
        ("normal", ("red", "green", "blue"), "needs normal_x, normal_y, normal_z"),
    ],
)
def test_bad_targets(target, features, match):
    with pytest.raises(ValueError, match=match):
        columns_of(target, features)


def test_columns():
    assert columns_of("normal", ROOM_FEATURES) == [3, 4, 5]
    assert columns_of("intensity", ("x", "y", "z", "intensity")) == [3]


def _gradient(samples, gather):
    """Gradient of a step; batch norm by its running statistics, which no process shares."""
    method = method_of(gather=gather).eval()
    method.training_step(ViewPair.pack(samples))["loss"].backward()
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters()])


def _shared_gradient(rank, gather):
    """A process's gradient, averaged over the processes as DDP does."""
    samples = samples_of()
    share = len(samples) // 2
    gradient = _gradient(samples[rank * share : (rank + 1) * share], gather)
    torch.distributed.all_reduce(gradient)
    return gradient / 2


@pytest.mark.slow
@pytest.mark.parametrize("gather", [False, True])
def test_two_processes_step_as_one(gather):
    """With gathering, one process on the joint batch; without, each pair among its process's."""
    first, second = run_in_processes(_shared_gradient, gather)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    expected = _gradient(samples_of(), gather=True) if gather else _gradient_in_shares()
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def _gradient_in_shares():
    """One process on the joint batch, contrast among the pairs of each half."""
    method = method_of().eval()
    batch = ViewPair.pack(samples_of())
    query = method.encode(batch.query, batch.query_masked, scan=mix_scans(batch))
    key = method.encode(batch.key, batch.key_masked)
    i, j = batch.pairs.T
    similarity = functional.normalize(query[i]) @ functional.normalize(key[j]).T / 0.4
    half = batch.query.batch[i] // 2
    similarity = similarity.masked_fill(half[:, None] != half, -torch.inf)
    loss = functional.cross_entropy(similarity, torch.arange(len(i)))
    hidden = torch.cat([query[batch.query_masked], key[batch.key_masked]])
    truth = torch.cat([batch.query.feat[batch.query_masked], batch.key.feat[batch.key_masked]])
    loss = loss + (method.heads["color"](hidden) - truth[:, :3]).square().sum(1).mean()
    cosine = functional.cosine_similarity(method.heads["normal"](hidden), truth[:, 3:])
    (loss + (1 - cosine).mean()).backward()
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters()])
