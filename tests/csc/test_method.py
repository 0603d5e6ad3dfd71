"""The method: its losses by hand, what gets a gradient, prototypes in one process and in two."""

import copy
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from csc.method import CSC
from csc.samples import SuperpixelBatch, make_pairs
from pc_2dteachers import Teacher
from pc_backbones import create_backbone
from pc_data import NuScenes
from pc_data.loading import sample_rng
from pc_data.superpixel_files import open_superpixels
from pc_losses.prototypes import prototype_contrast
from pc_losses.superpixels import superpixel_info_nce
from torch.nn import functional

from tests.processes import run_in_processes

SIZE = (64, 128)
SCHEDULE = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9, "dampening": 0.1, "num_steps": 5}
BLENDED = ["blend", "concat"]


class _Trainer(SimpleNamespace):
    """What the method asks its trainer, which Lightning refers to weakly."""

    def __init__(self, rank=0, world_size=1):
        plugin = SimpleNamespace(forward_context=torch.enable_grad)
        super().__init__(global_rank=rank, world_size=world_size, precision_plugin=plugin)


def _read(network, image):
    return network(image)


def _teacher():
    torch.manual_seed(1)
    network = torch.nn.Conv2d(3, 12, 8, stride=8)
    given = {"mean": (0.5, 0.5, 0.5), "std": (0.3, 0.3, 0.3)}
    return Teacher(network, _read, name="tiny", out_dim=12, stride=8, **given)


def _samples(world, run, count=3):
    """Draws of the two keyframes."""
    dataset, files = NuScenes(world), open_superpixels(run / "superpixels")
    make = partial(
        make_pairs,
        features=("intensity",),
        intensity_mean=18.0,
        intensity_std=22.0,
        read_superpixels=files.read,
        has_classes=bool(files.manifest.class_names),
        image_size=SIZE,
    )
    return [make(dataset[i % 2], sample_rng(0, i // 2, i % 2)) for i in range(count)]


@pytest.fixture(scope="module")
def samples(street_world, semantic_run):
    return _samples(street_world, semantic_run)


@pytest.fixture(scope="module")
def batch(samples):
    return SuperpixelBatch.pack(samples[:2])


@pytest.fixture(scope="module")
def many(street_world, slic_run):
    """More superpixels, without classes: some are ignored by the tolerant contrast."""
    return SuperpixelBatch.pack(_samples(street_world, slic_run, 2))


def _method(keyframes=(), *, prototypes="none", classes=8, **changes):
    torch.manual_seed(0)
    backbone = create_backbone("minkunet14_small", 1)
    method = CSC(
        backbone,
        _teacher(),
        prototypes=prototypes,
        num_classes=0 if prototypes == "none" else classes,
        keyframes=lambda rank, world_size: keyframes[rank::world_size],
        prototype_steps=2,
        **({"dim": 16, "schedule": SCHEDULE} | changes),
    )
    if hasattr(method, "blend"):  # as it is drawn its prototypes are all but zero
        with torch.no_grad():
            for parameter in method.blend.parameters():
                parameter.add_(torch.randn(parameter.shape) / 4)
    return method


def _with_prototypes(keyframes, **settings):
    """A method after a pass; the trainer that it only refers to comes with it."""
    method = _method(keyframes, **settings)
    method.trainer = trainer = _Trainer()
    method.make_prototypes()
    method.keeps = [trainer]
    return method


def _keep_statistics(method):
    """Those of the backbone, whose batch is another; all processes blend the same prototypes."""
    method.eval()
    if hasattr(method, "blend"):
        method.blend.train()


def _points(method, batch):
    points = batch.points
    feature = method.point_head(method.backbone(points.xyz, points.feat, points.batch))
    return functional.normalize(feature)


def _by_hand(method, batch):
    """Superpoints and superpixels by loops over the upsampled map; and the teacher's."""
    feature = _points(method, batch)
    raw = method.teacher(batch.images)
    up = partial(functional.interpolate, size=SIZE, mode="bilinear", align_corners=True)
    pixels = functional.normalize(up(method.image_head(raw)), dim=1)
    point, pixel, guide = [], [], []
    for number in range(len(batch.superpixel_class)):
        rows = batch.pair_point[batch.pair_superpixel == number]
        point.append(torch.stack([feature[row] for row in rows]).mean(dim=0))
        mask = batch.superpixel == number
        pixel.append(pixels.permute(0, 2, 3, 1)[mask].mean(dim=0))
        guide.append(up(raw).permute(0, 2, 3, 1)[mask].mean(dim=0))
    return torch.stack(point), torch.stack(pixel), torch.stack(guide)


def _cross_entropy(scores, own):
    return torch.logsumexp(scores, 0) - scores[own]


def test_contrast_of_superpixels_by_hand(batch):
    method = _method().eval()
    with torch.no_grad():
        point, pixel, _ = _by_hand(method, batch)
        got = method.superpixels(batch)
        result = method.training_step(batch)
    torch.testing.assert_close(got[0], point, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], pixel, rtol=1e-4, atol=1e-5)
    losses = [
        _cross_entropy(torch.stack([point[i] @ other / 0.07 for other in pixel]), i)
        for i in range(len(point))
    ]
    torch.testing.assert_close(result["loss"], sum(losses) / len(losses), rtol=1e-4, atol=1e-4)
    assert result["loss"] == result["watch"]["superpixels"]
    assert set(result["watch"]) == {"superpixels", "accuracy", "alignment", "feature spread"}


def test_tolerant_contrast_by_hand(many):
    """ST-SLidR: the most similar superpixels do not repel, common ones count less."""
    method = _method(contrast="tolerant").eval()
    with torch.no_grad():
        point, pixel, guide = _by_hand(method, many)
        result = method.training_step(many)
    num = len(point)
    alike = functional.cosine_similarity(guide[:, None], guide[None], dim=2).clamp(0, 1)
    ignored = math.ceil(0.01 * (num - 1)) - 1  # the superpixel itself is the first of them
    assert ignored >= 1
    votes = torch.stack([sum(a for a in row if a >= 0.5) for row in alike])
    balance = 1 - (votes - votes.min()) / (votes.max() - votes.min())
    losses = []
    for i in range(num):
        others = sorted((j for j in range(num) if j != i), key=lambda j, i=i: -alike[i, j])
        weight = torch.ones(num)
        weight[others[:ignored]] = 0
        losses.append(_cross_entropy((pixel @ point[i]) * weight / 0.07, i))
    expected = (torch.stack(losses) * balance).sum() / balance.sum()
    torch.testing.assert_close(result["loss"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_pairs", [50, 10**6])
def test_contrast_of_pixels_by_hand(batch, num_pairs):
    """PPKT: the draw is the global generator's, which is seeded before each step."""
    method = _method(contrast="pixel", num_pairs=num_pairs).eval()
    if num_pairs > len(batch.pair_point):
        few = torch.arange(0, len(batch.pair_point), 97)
        kept = {k: getattr(batch, k)[few] for k in ("pair_point", "pixel", "image_index")}
        batch = SuperpixelBatch(**(vars(batch) | kept))
    torch.manual_seed(5)
    with torch.no_grad():
        result = method.training_step(batch)
        torch.manual_seed(5)
        drawn = torch.randperm(len(batch.pair_point))[:num_pairs]
        maps = functional.interpolate(
            method.image_head(method.teacher(batch.images)),
            SIZE,
            mode="bilinear",
            align_corners=True,
        )
        u, v = batch.pixel[drawn].long().T
        pixel = functional.normalize(maps[batch.image_index[drawn], :, v, u])
        point = _points(method, batch)[batch.pair_point[drawn]]
    losses = [_cross_entropy(pixel @ point[i] / 0.07, i) for i in range(len(point))]
    torch.testing.assert_close(result["loss"], sum(losses) / len(losses), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        other = method.training_step(batch)["loss"]
    assert torch.isclose(other, result["loss"], rtol=1e-6) == (num_pairs > 50)


@pytest.mark.parametrize(
    ("prototypes", "absent", "average"),
    [("blend", False, False), ("concat", True, True), ("point", True, False)],
)
def test_before_the_first_pass(batch, prototypes, absent, average):
    """The loss is that of superpixels alone, and still everything takes part."""
    changes = {"absent_classes": absent, "average_losses": average}
    method = _method(prototypes=prototypes, **changes).train()
    result = method.training_step(batch)
    assert result["watch"]["prototypes"] == 0
    torch.testing.assert_close(result["loss"], result["watch"]["superpixels"])
    result["loss"].backward()
    for name, parameter in method.named_parameters():
        if not name.startswith("teacher."):
            assert parameter.grad is not None, name
            assert (parameter.grad != 0).any() != name.startswith("blend."), name
    for name, value in method.named_buffers():
        assert value.isfinite().all(), name


@pytest.fixture(scope="module")
def passed(samples):
    """After a pass over superpixels of ten classes, of which two occur nowhere; it learns no more.

    Backbone and heads are drawn alike whatever the prototypes.
    """
    return _with_prototypes(samples, prototypes="point", classes=10).eval()


def test_prototypes_by_hand(samples, passed):
    """Plain means over all superpixels of a class, one by one."""
    sums = {}
    with torch.no_grad():
        for one in samples:
            for point, pixel, cls in zip(
                *passed.superpixels(one), one.superpixel_class, strict=True
            ):
                sums.setdefault(int(cls), []).append(torch.stack([point, pixel]).double())
    assert 3 < len(sums) <= 8
    bank = passed.bank
    for cls in range(10):
        assert bool(bank.present[cls]) == (cls in sums)
        rows = torch.stack(sums.get(cls, [torch.zeros(2, 16)])).mean(dim=0).float()
        torch.testing.assert_close(bank.point[cls], rows[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(bank.pixel[cls], rows[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prototypes", [*BLENDED, "point"])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_loss_after_a_pass_by_hand(passed, batch, prototypes, absent, average):
    """Classes that occur nowhere count as rows of zeros, or not at all."""
    changes = {"absent_classes": absent, "average_losses": average}
    settings = {"prototypes": prototypes, "prototype_temperature": 0.5, "classes": 10}
    method = _method(**settings, **changes)
    method.bank.load_state_dict(passed.bank.state_dict())
    _keep_statistics(method)
    bank, rows = method.bank, torch.arange(10)
    if not absent:
        rows = rows[passed.bank.present]
    mixed = bank.point[rows]
    if prototypes != "point":
        mixed = copy.deepcopy(method.blend)(bank.point[rows], bank.pixel[rows])
    where = {int(cls): place for place, cls in enumerate(rows)}
    with torch.no_grad():
        superpoint, _ = method.superpixels(batch)
    losses = [
        _cross_entropy(mixed @ one / 0.5, where[int(cls)])
        for one, cls in zip(superpoint, batch.superpixel_class, strict=True)
        if int(cls) in where
    ]
    across = sum(losses) / len(losses)
    result = method.training_step(batch)
    torch.testing.assert_close(result["watch"]["prototypes"], across.detach())
    expected = (result["watch"]["superpixels"] + across) / (2 if average else 1)
    torch.testing.assert_close(result["loss"], expected)


def test_a_superpixel_without_a_class(samples, batch):
    """None is known, or its class has no prototype: in the one loss, not in the other."""
    cls = batch.superpixel_class.clone()
    cls[::2] = -1
    some = SuperpixelBatch(**(vars(batch) | {"superpixel_class": cls}))
    method = _with_prototypes(samples, prototypes="point").eval()
    with torch.no_grad():
        results = [method.training_step(one)["watch"] for one in (batch, some)]
        point, _ = method.superpixels(batch)
        rows = point[1::2]
        expected = prototype_contrast(rows, method.bank.point, cls[1::2], method.bank.present)
    assert results[0]["superpixels"] == results[1]["superpixels"]
    torch.testing.assert_close(results[1]["prototypes"], expected)
    unknown = SuperpixelBatch(**(vars(batch) | {"superpixel_class": torch.full_like(cls, -1)}))
    method.make_prototypes()
    with torch.no_grad():
        assert method.training_step(unknown)["watch"]["prototypes"] == 0


def _gradients(method, batch, change=None):
    method.zero_grad()
    if change is not None:
        hook = method.blend.register_forward_hook(change)
    method.train()
    method.training_step(batch)["loss"].backward()
    if change is not None:
        hook.remove()
    return {k: v.grad.clone() for k, v in method.named_parameters() if v.grad is not None}


def _detach(module, given, mixed):
    return mixed.detach()


@pytest.mark.parametrize("prototypes", BLENDED)
def test_gradient_through_prototypes(samples, batch, prototypes):
    """It reaches the blend alone; networks learn from the other side of the contrast."""
    settings = {"prototypes": prototypes}
    method = _with_prototypes(samples, **settings)
    state = copy.deepcopy(method.state_dict())
    whole = _gradients(method, batch)
    method.load_state_dict(state)
    cut = _gradients(method, batch, _detach)
    blend = {name for name in whole if name.startswith("blend.")}
    assert blend == {f"blend.{name}" for name, _ in method.blend.named_parameters()}
    # A bias before a batch norm does nothing.
    idle = {name for name in blend if whole[name].abs().max() < 1e-6}
    assert len(idle) < len(blend) / 2
    assert not any(name.endswith("weight") for name in idle)
    assert set(whole) - blend == set(cut)
    for name, value in cut.items():
        assert torch.equal(value, whole[name]), name
    assert any(name.startswith("backbone.") for name in cut)
    assert not any(name.startswith(("bank", "teacher")) for name in whole)
    assert not any(value.requires_grad for value in method.bank.buffers())
    # And pixels do not meet prototypes at all.
    alone = _gradients(_method(), batch)
    for name in ("image_head.weight", "image_head.bias"):
        torch.testing.assert_close(whole[name], alone[name])
    name = "point_head.weight"
    assert not torch.allclose(whole[name], alone[name], rtol=1e-2)


@pytest.mark.parametrize(
    ("learn_heads", "optimizer"), [(True, "sgd"), (False, "sgd"), (False, "adam")]
)
def test_heads_that_do_not_learn(samples, batch, learn_heads, optimizer):
    schedule = {"lr": 1e-3, "weight_decay": 1e-2, "num_steps": 5}
    if optimizer == "sgd":
        schedule |= {"momentum": 0.9, "dampening": 0.1}
    settings = {"learn_heads": learn_heads, "optimizer": optimizer, "schedule": schedule}
    method = _with_prototypes(samples, prototypes="blend", **settings).train()
    stepper = method.configure_optimizers()["optimizer"]
    before = {name: value.clone() for name, value in method.named_parameters()}
    for _ in range(2):
        stepper.zero_grad()
        method.training_step(batch)["loss"].backward()
        stepper.step()
    moved = {k for k, v in method.named_parameters() if not torch.equal(v, before[k])}
    learning = {k.partition(".")[0] for k in moved}
    heads = {"image_head", "blend"} if learn_heads else set()
    assert learning == {"backbone", "point_head"} | heads
    assert {k for k in before if k.startswith(tuple(learning))} == moved


@pytest.mark.parametrize("contrast", ["superpixel", "tolerant", "pixel"])
def test_images_are_seen_once(batch, contrast):
    """The image network is what takes longest."""
    method, seen = _method(contrast=contrast), []
    method.teacher.register_forward_hook(lambda *given: seen.append(given))
    method.training_step(batch)
    assert len(seen) == 1


def test_dampening_and_momentum():
    """SLidR's SGD, which torch's default is not."""
    group = _method().configure_optimizers()["optimizer"].param_groups[0]
    assert (group["momentum"], group["dampening"], group["nesterov"]) == (0.9, 0.1, False)


def test_no_point_head_where_the_backbone_is_as_wide():
    backbone = create_backbone("minkunet14_small", 1)
    method = CSC(backbone, _teacher(), dim=backbone.out_dim, prototypes="none", schedule=SCHEDULE)
    assert isinstance(method.point_head, torch.nn.Identity)


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_leaves_no_trace(samples, training):
    """But prototypes: weights, running statistics, modes and random numbers stay."""
    method = _method(samples, prototypes="blend").train(training)
    method.trainer = trainer = _Trainer()
    before = copy.deepcopy(method.state_dict())
    modes = {name: module.training for name, module in method.named_modules()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    method.make_prototypes()
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in method.named_modules()} == modes
    assert not any(module.training for module in method.teacher.modules())
    changed = {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"bank.point", "bank.pixel", "bank.present"}
    assert all(parameter.grad is None for parameter in method.parameters())
    first = method.bank.point.clone()
    method.make_prototypes()  # nothing is left of the pass before
    assert torch.equal(method.bank.point, first)
    assert trainer.world_size == 1


def test_prototypes_are_in_a_checkpoint(samples, batch):
    method = _with_prototypes(samples, prototypes="blend").train()
    fresh = _method(prototypes="blend")
    fresh.load_state_dict(method.state_dict())
    results = [one.train().training_step(batch)["loss"] for one in (method, fresh)]
    assert torch.equal(*results)
    assert not any(name.startswith("teacher") for name in method.state_dict())


@pytest.mark.parametrize(
    ("prototypes", "due"), [("blend", [2, 4, 6]), ("point", [2, 4, 6]), ("none", [])]
)
def test_when_passes_are_due(prototypes, due):
    method = _method(prototypes=prototypes)
    made = []
    method.make_prototypes = lambda: made.append(method.trainer.global_step)
    trainer = _Trainer()
    for step in range(7):
        trainer.global_step = step
        method.trainer = trainer
        method.on_train_batch_start(None, step)
    assert made == due


def test_without_keyframes():
    method = CSC(
        create_backbone("minkunet14_small", 1), _teacher(), num_classes=3, schedule=SCHEDULE
    )
    with pytest.raises(ValueError, match="prototypes are made of keyframes, got none"):
        method.make_prototypes()


# --- two processes


def _both(rank, samples, states):
    """What the tests below need of a process; to start two takes longer than all of it."""
    passes = {count: _pass_of_two(rank, samples[:count]) for count in (3, 1)}
    steps = {
        prototypes: _step_of_two(rank, samples[1:], state, prototypes)
        for prototypes, state in states.items()
    }
    return passes, steps


def _pass_of_two(rank, keyframes):
    """The statistics of the second process are others, as they are without synchronised norms."""
    method = _method(keyframes, prototypes="blend").train()
    if rank:
        with torch.no_grad():
            for buffer in method.backbone.buffers():
                if buffer.is_floating_point():
                    buffer.mul_(1.5)
    method.trainer = trainer = _Trainer(rank, 2)
    method.make_prototypes()
    del trainer
    return method.bank.state_dict()


def _step_of_two(rank, parts, state, prototypes):
    """Loss and gradient of this process's part."""
    method = _method(prototypes=prototypes)
    method.load_state_dict(state)
    _keep_statistics(method)
    result = method.training_step(parts[rank])
    result["loss"].backward()
    gradient = {k: v.grad for k, v in method.named_parameters() if v.grad is not None}
    return {"loss": result["loss"].detach(), **result["watch"]}, gradient


@pytest.fixture(scope="module")
def trained(samples):
    """Methods after a pass over all keyframes."""
    return {name: _with_prototypes(samples, prototypes=name) for name in ("blend", "point")}


@pytest.fixture(scope="module")
def both(samples, trained):
    states = {name: copy.deepcopy(method.state_dict()) for name, method in trained.items()}
    return run_in_processes(_both, samples, states)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 1])
def test_prototypes_of_two_processes_are_those_of_one(samples, both, count):
    """Three keyframes are two and one; of one keyframe the second process has none."""
    whole = _with_prototypes(samples[:count], prototypes="blend").bank.state_dict()
    first, second = (passes[count] for passes, _ in both)
    for name, value in whole.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-6, atol=1e-7)
    assert whole["present"].any()


@pytest.mark.slow
@pytest.mark.parametrize("prototypes", ["blend", "point"])
def test_a_step_of_two_processes_is_the_joint_step(samples, trained, both, prototypes):
    """Superpixels have the negatives of their process, and each weighs the same; superpoints meet
    prototypes as in one process."""
    method, parts = trained[prototypes], samples[1:]
    _keep_statistics(method)
    joint = SuperpixelBatch.pack(parts)
    counts = [len(part.superpixel_class) for part in parts]
    assert counts[0] != counts[1]
    point, pixel = method.superpixels(joint)
    of_parts = zip(point.split(counts), pixel.split(counts), strict=True)
    within = sum(len(one) * superpixel_info_nce(one, other) for one, other in of_parts)
    within = within / sum(counts)
    bank = method.bank
    mixed = bank.point
    if prototypes == "blend":
        mixed = method.blend(bank.point, bank.pixel, bank.present)
    across = prototype_contrast(point, mixed, joint.superpixel_class, bank.present)
    (within + across).backward()
    results = [steps[prototypes] for _, steps in both]
    expected = {"loss": within + across, "superpixels": within, "prototypes": across}
    for name, value in expected.items():
        mean = sum(watch[name] for watch, _ in results) / 2
        torch.testing.assert_close(mean, value.detach(), rtol=1e-4, atol=1e-5)
    # What a bias before a softmax or a normalisation gets is rounding alone: it has no scale.
    blended = [v.grad for k, v in method.named_parameters() if k.startswith("blend.")]
    of_blend = max((float(grad.abs().max()) for grad in blended), default=0.0)
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            mean = sum(gradient[name] for _, gradient in results) / 2
            scale = max(float(parameter.grad.abs().max()), 0.02)
            if name.startswith("blend."):
                scale = of_blend
            torch.testing.assert_close(
                mean / scale, parameter.grad / scale, rtol=1e-3, atol=1e-3, msg=name
            )


def test_a_batch_without_superpixels(batch):
    """Such a process still takes part: a loss of zero that can be back-propagated."""
    nothing = SuperpixelBatch(
        points=batch.points,
        images=batch.images,
        superpixel=torch.full_like(batch.superpixel, -1),
        pair_point=batch.pair_point[:0],
        pair_superpixel=batch.pair_superpixel[:0],
        pixel=batch.pixel[:0],
        image_index=batch.image_index[:0],
        superpixel_class=batch.superpixel_class[:0],
    )
    for contrast in ("superpixel", "tolerant"):
        method = _method(contrast=contrast).train()
        loss = method.training_step(nothing)["loss"]
        loss.backward()
        assert loss == 0
        assert all(not value.grad.any() for value in method.parameters() if value.grad is not None)
