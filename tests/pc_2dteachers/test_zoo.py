import subprocess
import sys

import numpy as np
import pc_2dteachers
import pytest
import torch
from pc_2dteachers import create_teacher, list_teachers
from pc_2dteachers.catalog import TIMM_NAMES
from sklearn.datasets import load_sample_image
from torch.nn import functional

SHAPES = {
    "dino_vit_s8": (384, 28, 56),
    "dinov2_vit_b14": (768, 16, 32),
    "dinov2_vit_g14": (1536, 16, 32),
    "dinov2_vit_l14": (1024, 16, 32),
    "dinov2_vit_s14": (384, 16, 32),
    "efficientnet_lite0_offline": (112, 14, 28),
    "esvit_swin_t": (384, 14, 28),
    "mae_vit_b16": (768, 14, 28),
    "maskclip_vit_b16": (512, 14, 28),
    "moco_v2_resnet50": (1024, 14, 28),
    "moco_v2_resnet50_dilated": (2048, 56, 112),
    "moco_v3_resnet50": (1024, 14, 28),
}


def image(height=56, width=112):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def sample_photo(name):
    rgb = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)[None] / 255
    return functional.interpolate(rgb, (224, 320), mode="bilinear", antialias=True)


def test_every_name_has_its_shape_here():
    assert list_teachers() == sorted(SHAPES)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_at_the_papers_image_size(name):
    with torch.device("meta"):
        teacher = create_teacher(name, pretrained=False)
        maps = teacher.read(teacher.network, torch.zeros(2, 3, 224, 448))
    assert maps.shape == (2, *SHAPES[name])
    assert teacher.out_dim == SHAPES[name][0]
    assert teacher.stride == 224 // SHAPES[name][1]


@pytest.mark.parametrize("name", ["dinov2_vit_s14", "dino_vit_s8"])
def test_small_vits_run(name):
    teacher = create_teacher(name, pretrained=False)
    maps = teacher(image())
    assert maps.shape == (1, 384, 56 // teacher.stride, 112 // teacher.stride)
    assert maps.isfinite().all()
    with pytest.raises(ValueError, match=rf"multiples of {teacher.stride}, got 60x112"):
        teacher(image(60))


@pytest.mark.parametrize(("name", "level"), [("test_resnet", -2), ("test_vit", -1)])
def test_any_model_of_timm_is_a_teacher(name, level):
    teacher = create_teacher(name, pretrained=False)
    maps = teacher(image(64, 96))
    assert maps.shape == (1, teacher.out_dim, 64 // teacher.stride, 96 // teacher.stride)
    assert torch.equal(maps, create_teacher(name, pretrained=False, level=level)(image(64, 96)))


def test_levels_of_a_cnn():
    shapes = [create_teacher("test_resnet", pretrained=False, level=i) for i in (0, -1)]
    assert shapes[0].stride < shapes[1].stride
    for teacher in shapes:
        maps = teacher(image(64, 96))
        assert maps.shape == (1, teacher.out_dim, 64 // teacher.stride, 96 // teacher.stride)
    with pytest.raises(ValueError, match=r"level must be in \[-\d, \d\) .* got 9"):
        create_teacher("test_resnet", pretrained=False, level=9)


def test_a_model_of_one_image_size_says_so():
    teacher = create_teacher("beit_base_patch16_224", pretrained=False, level=0)
    with pytest.raises(ValueError, match=r"images of 224x224 .* only, got 64x96"):
        teacher(image(64, 96))


def test_random_weights_follow_the_seed_and_leave_the_global_generator():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    maps = [create_teacher("test_vit", pretrained=False, seed=s)(image(64, 96)) for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_hub_weights_are_loaded_by_timm(tmp_path, monkeypatch):
    source = create_teacher("test_resnet", pretrained=False, seed=1)
    torch.save(source.network.state_dict(), tmp_path / "model.bin")
    monkeypatch.setattr("pc_2dteachers.zoo.find_hub_file", lambda _: tmp_path / "model.bin")
    assert torch.equal(create_teacher("test_resnet")(image(64, 96)), source(image(64, 96)))


def test_the_official_dinov2_file_is_a_checkpoint(tmp_path):
    source = create_teacher("dinov2_vit_s14", pretrained=False, seed=1)
    state = {**source.network.state_dict(), "mask_token": torch.zeros(1, 384)}
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    teacher = create_teacher("dinov2_vit_s14", checkpoint=tmp_path / "dinov2_vits14_pretrain.pth")
    assert torch.equal(teacher(image()), source(image()))


def test_unknown_names_list_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown teacher 'dinov2_vits14'; nearest: dinov2_vit_s14"
    ):
        create_teacher("dinov2_vits14")
    with pytest.raises(ValueError, match=r"unknown teacher 'resnet18\.nothing'.*resnet18"):
        create_teacher("resnet18.nothing")


@pytest.mark.parametrize(
    ("photo", "classes"), [("flower.jpg", {985}), ("china.jpg", {442, 449, 663, 698})]
)
def test_the_offline_teacher_knows_what_it_sees(photo, classes):
    teacher = create_teacher("efficientnet_lite0_offline")
    best = teacher.network(teacher.normalize(sample_photo(photo))).topk(4).indices[0].tolist()
    assert best[0] in classes
    assert len(classes.intersection(best)) >= min(len(classes), 3)


def test_the_offline_teacher_sees_more_than_random_weights():
    parts = sample_photo("flower.jpg")
    mirrored = parts.flip(3)
    likeness = []
    for pretrained in (True, False):
        teacher = create_teacher("efficientnet_lite0_offline", pretrained=pretrained)
        a, b = teacher(parts).flip(3).flatten(2)[0], teacher(mirrored).flatten(2)[0]
        a, b = (functional.normalize(x - x.mean(1, keepdim=True), dim=0) for x in (a, b))
        likeness.append(float((a * b).sum(0).mean()))
    assert likeness[0] > 0.5
    assert likeness[0] > likeness[1]


def test_import_and_listing_stay_light():
    code = (
        "import sys, pc_2dteachers; pc_2dteachers.list_teachers(); "
        "sys.exit(bool({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lazy_names():
    assert set(dir(pc_2dteachers)) >= {"Teacher", "TeacherConcat", "create_teacher"}
    assert all(getattr(pc_2dteachers, name) for name in dir(pc_2dteachers))
    with pytest.raises(AttributeError, match="no attribute 'create_student'"):
        pc_2dteachers.create_student  # noqa: B018


def test_catalog_names_exist_in_timm():
    import timm

    assert all(timm.is_model(name) for name in TIMM_NAMES.values())
