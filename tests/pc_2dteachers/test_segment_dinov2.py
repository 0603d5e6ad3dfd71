import pytest
import torch
from pc_2dteachers import create_segmenter, create_teacher
from pc_2dteachers.ade20k import CLASS_NAMES
from torch.nn import functional

NAME = "dinov2_linear_ade20k_vits14"


def head_state(num_levels=1, width=384, **changes):
    """The layout of the authors' files."""
    generator = torch.Generator().manual_seed(5)
    channels = width * num_levels
    state = {
        "conv_seg.weight": torch.randn(150, channels, 1, 1, generator=generator),
        "conv_seg.bias": torch.randn(150, generator=generator),
        "bn.weight": torch.rand(channels, generator=generator) + 0.5,
        "bn.bias": torch.randn(channels, generator=generator),
        "bn.running_mean": torch.randn(channels, generator=generator),
        "bn.running_var": torch.rand(channels, generator=generator) + 0.5,
        "bn.num_batches_tracked": torch.tensor(40000),
    }
    state |= changes
    return {f"decode_head.{key}": value for key, value in state.items() if value is not None}


def save_head(file, **options):
    meta = {"mmseg_version": "0.27.0", "CLASSES": list(CLASS_NAMES), "PALETTE": [[120, 120, 120]]}
    torch.save({"meta": meta, "state_dict": head_state(**options)}, file)
    return file


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A random DINOv2 in the layout of its authors' file."""
    network = create_teacher("dinov2_vit_s14", pretrained=False, seed=1).network
    for parameter in network.parameters():  # fresh scales are too even
        parameter.data += 0.02 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
        )
    file = tmp_path_factory.mktemp("dinov2") / "dinov2_vits14_pretrain.pth"
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 384)}, file)
    return file


@pytest.mark.parametrize("num_levels", [1, 4])
def test_classes_are_those_of_the_head_by_hand(tmp_path, backbone, num_levels):
    image = torch.rand(1, 3, 42, 70, generator=torch.Generator().manual_seed(0))
    tokens = []
    for level in range(12 - num_levels, 12):
        teacher = create_teacher("dinov2_vit_s14", checkpoint=backbone, level=level)
        tokens.append(teacher.network.norm(teacher(image)[0].permute(1, 2, 0)))
    x = torch.cat(tokens, dim=2).double()  # [y x c]
    mean, variance = x.mean(dim=(0, 1)), x.var(dim=(0, 1))
    statistics = {"bn.running_mean": mean.float(), "bn.running_var": variance.float()}
    file = save_head(tmp_path / "head.pth", num_levels=num_levels, **statistics)
    segmenter = create_segmenter(NAME, checkpoint=file, backbone=backbone)
    assert (segmenter.num_classes, segmenter.class_names) == (150, CLASS_NAMES)
    state = head_state(num_levels, **statistics)
    head = {key.partition(".")[2]: value.double() for key, value in state.items()}
    x = (x - head["bn.running_mean"]) / (head["bn.running_var"] + 1e-5).sqrt()
    x = x * head["bn.weight"] + head["bn.bias"]
    scores = x @ head["conv_seg.weight"][:, :, 0, 0].T + head["conv_seg.bias"]
    maps = functional.interpolate(
        scores.permute(2, 0, 1)[None], (42, 70), mode="bilinear", align_corners=False
    )
    got, want = segmenter(image), maps.argmax(dim=1)
    assert len(want.unique()) > 5
    assert (got == want).double().mean() > 0.999  # but for rounding at borders


def test_any_image_size(tmp_path, backbone):
    segmenter = create_segmenter(
        NAME, checkpoint=save_head(tmp_path / "head.pth"), backbone=backbone
    )
    for size in ((1, 1), (15, 29), (28, 28)):
        classes = segmenter(torch.rand(2, 3, *size))
        assert classes.shape == (2, *size)
        assert classes.dtype == torch.int64
        assert 0 <= classes.min() <= classes.max() < 150


def test_the_padding_is_the_mean_color_on_both_sides(tmp_path, backbone):
    segmenter = create_segmenter(
        NAME, checkpoint=save_head(tmp_path / "head.pth"), backbone=backbone
    )
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    image = mean.expand(1, 3, 42, 42).clone()
    image[:, :, 3:38, 5:36] = torch.rand(1, 3, 35, 31, generator=torch.Generator().manual_seed(0))
    whole = segmenter(image)
    inner = segmenter(image[:, :, 3:38, 5:36])
    assert (inner == whole[:, 3:38, 5:36]).double().mean() > 0.999


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conv_seg.weight": None}, r"holds no decode_head\.conv_seg\.weight, but decode_head"),
        ({"conv_seg.weight": torch.zeros(21, 384, 1, 1)}, r"conv_seg\.weight must be \[150, c, 1"),
        ({"conv_seg.weight": torch.zeros(150, 384, 3, 3)}, r"got \[150, 384, 3, 3\]; use a linear"),
        ({"conv_seg.bias": torch.zeros(21)}, r"decode_head\.conv_seg\.bias must be \[150\], got"),
        ({"bn.running_var": None}, r"decode_head\.bn\.running_var must be \[384\], got none"),
        ({"bn.weight": torch.zeros(383)}, r"decode_head\.bn\.weight must be \[384\], got \[383\]"),
    ],
)
def test_errors_name_the_file_and_the_tensor(tmp_path, changes, text):
    file = save_head(tmp_path / "wrong_head.pth", **changes)
    with pytest.raises(ValueError, match=rf"wrong_head\.pth: .*{text}"):
        create_segmenter(NAME, checkpoint=file)  # before the backbone is asked for


def test_a_head_of_another_width_is_refused(tmp_path, backbone):
    file = save_head(tmp_path / "head.pth", width=100)
    text = r"conv_seg\.weight reads 100 channels, but dinov2_linear_ade20k_vits14 needs a multiple"
    with pytest.raises(ValueError, match=text):
        create_segmenter(NAME, checkpoint=file, backbone=backbone)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vitb14 needs the head .*dinov2_vitb14_ade20k"):
        create_segmenter("dinov2_linear_ade20k_vitb14")
    with pytest.raises(FileNotFoundError, match=r"none\.pth: there is no such weight file"):
        create_segmenter(NAME, checkpoint=tmp_path / "none.pth")
    (tmp_path / "cut.pth").write_bytes(save_head(tmp_path / "head.pth").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut\.pth: does not load as plain weights"):
        create_segmenter(NAME, checkpoint=tmp_path / "cut.pth")
