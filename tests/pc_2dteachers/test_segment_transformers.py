import json
import shutil
import sys

import huggingface_hub
import pytest
import torch
from pc_2dteachers import create_segmenter, list_segmenters

MASK2FORMER, ONEFORMER = "mask2former_ade20k_swin_tiny", "oneformer_ade20k_swin_tiny"
SIZES = {"shortest_edge": 64, "longest_edge": 256}
SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
LABELS = {index: f"thing {index}" for index in range(150)}


def save_mask2former(transformers, folder):
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=20,
        id2label=LABELS,
    )
    save_model(transformers.Mask2FormerForUniversalSegmentation, config, folder)
    transformers.Mask2FormerImageProcessor(size=SIZES).save_pretrained(folder)


def save_oneformer(transformers, folder):
    config = transformers.OneFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN),
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=20,
        text_encoder_width=32,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=300,
        query_dec_layers=1,
        task_seq_len=24,
        max_seq_len=12,
        id2label=LABELS,
    )
    save_model(transformers.OneFormerForUniversalSegmentation, config, folder)
    transformers.OneFormerImageProcessor(size=SIZES).save_pretrained(folder)
    preprocessing = folder / "preprocessor_config.json"
    content = json.loads(preprocessing.read_text())
    content |= {"repo_path": "shi-labs/oneformer_demo", "class_info_file": "ade20k_panoptic.json"}
    preprocessing.write_text(json.dumps(content))
    words = ["the</w>", "task</w>", "is</w>", "semantic</w>"]
    letters = sorted({*"thetaskissemantic"})
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters), *words]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


def save_model(kind, config, folder):
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)


SAVE = {MASK2FORMER: save_mask2former, ONEFORMER: save_oneformer}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def copies(transformers, tmp_path_factory):
    """Small random networks in the layout of the repositories."""
    folders = {}
    for name, save in SAVE.items():
        folders[name] = tmp_path_factory.mktemp(name)
        save(transformers, folders[name])
    return folders


def images(height=48, width=80):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SAVE)
def test_classes_are_those_of_masks_and_their_classes(copies, name):
    segmenter = create_segmenter(name, checkpoint=copies[name])
    assert segmenter.class_names == tuple(LABELS.values())
    got = segmenter(images())
    assert (got.shape, got.dtype) == ((2, 48, 80), torch.int64)
    assert 0 <= got.min() <= got.max() < 150
    assert torch.equal(got, segmenter(images()))
    network = segmenter.network
    kept = []
    handle = network.model.register_forward_hook(lambda *call: kept.append(call[-1]))
    assert torch.equal(segmenter(images()[:1])[0], got[0])  # whatever else is in the batch
    handle.remove()
    masks = kept[0].masks_queries_logits
    if name == MASK2FORMER:
        masks = torch.nn.functional.interpolate(masks, (384, 384), mode="bilinear")
    classes = kept[0].class_queries_logits.softmax(-1)[0, :, :150]
    scores = torch.einsum("qc,qyx->cyx", classes, masks[0].sigmoid())
    maps = torch.nn.functional.interpolate(scores[None], (48, 80), mode="bilinear")
    assert (maps.argmax(1)[0] == got[0]).double().mean() > 0.999


@pytest.mark.parametrize("name", SAVE)
def test_images_are_normalized_and_resized_as_in_training(copies, name):
    segmenter = create_segmenter(name, checkpoint=copies[name])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 48)
    kept = []
    segmenter.network.model.register_forward_pre_hook(
        lambda *call: kept.append(call[-1]), with_kwargs=True
    )
    segmenter(mean)
    pixels = kept[0]["pixel_values"]
    assert min(pixels.shape[2:]) >= 64
    assert pixels.abs().max() < 0.05
    if name == ONEFORMER:  # <start>, the 17 letters of "the task is semantic", <end>, zeros
        task = kept[0]["task_inputs"][0]
        assert task.shape == (24,)
        assert (task[:19] > 0).all()
        assert not task[19:].any()


def test_a_copy_of_another_model_is_refused(copies, tmp_path):
    with pytest.raises(ValueError, match=r"not load as oneformer_\w+ \(it holds a mask2former"):
        create_segmenter(ONEFORMER, checkpoint=copies[MASK2FORMER])
    with pytest.raises(FileNotFoundError, match=r"there is no config\.json in it; pass the folder"):
        create_segmenter(MASK2FORMER, checkpoint=tmp_path)


@pytest.mark.parametrize("name", SAVE)
@pytest.mark.parametrize(
    ("file", "part", "change"),
    [
        ("preprocessor_config.json", "size", {"shortest_edge": 96, "longest_edge": 256}),
        ("preprocessor_config.json", "image_mean", [0.5, 0.5, 0.5]),
        ("config.json", "layer_norm_eps", 0.5),
    ],
)
def test_the_digest_is_of_the_processing_too(copies, tmp_path, name, file, part, change):
    before = create_segmenter(name, checkpoint=copies[name])
    folder = tmp_path / "copy"
    shutil.copytree(copies[name], folder)
    assert create_segmenter(name, checkpoint=folder).digest() == before.digest()
    content = json.loads((folder / file).read_text())
    (content if part in content else content["backbone_config"])[part] = change
    (folder / file).write_text(json.dumps(content))
    assert create_segmenter(name, checkpoint=folder).digest() != before.digest()


def test_damaged_copies_are_refused(copies, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(copies[MASK2FORMER], folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    removed = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != removed}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of its tensors are not in the file, e\.g\. "):
        create_segmenter(MASK2FORMER, checkpoint=folder)
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"copy: does not load as {MASK2FORMER}"):
        create_segmenter(MASK2FORMER, checkpoint=folder)
    weights.unlink()
    with pytest.raises(ValueError, match=rf"copy: does not load as {MASK2FORMER}"):
        create_segmenter(MASK2FORMER, checkpoint=folder)


def test_without_a_network_one_sentence_says_what_to_do(transformers, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    text = r"oneformer_ade20k_swin_large is not in the local cache .*HF_HUB_OFFLINE.*\(checkpoint\)"
    with pytest.raises(FileNotFoundError, match=text) as error:
        create_segmenter("oneformer_ade20k_swin_large")
    assert "\n" not in str(error.value)


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    assert set(SAVE) <= set(list_segmenters())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"need transformers: pip install '.*\[segmenters\]'"):
        create_segmenter(MASK2FORMER)
