"""Files that rebuild their network, and what happens when they cannot."""

import json

import pytest
import torch
from pc_backbones import create_backbone, load_backbone, read_card, save_backbone
from pc_geometry.atomic import atomic_file
from safetensors.torch import save_file

NAME = "waffleiron_6_64"
CARD = {"features": ["intensity", "x", "y", "z", "radius"], "intensity_mean": 18.7}


def build(**overrides):
    torch.manual_seed(0)
    return create_backbone(NAME, 5, **({"channels": 8, "depth": 3} | overrides))


def save(path, backbone=None, **overrides):
    backbone = build(**overrides) if backbone is None else backbone
    save_backbone(path, backbone, name=NAME, arguments=backbone.arguments, card=CARD)
    return backbone


def outputs(backbone):
    generator = torch.Generator().manual_seed(1)
    xyz = torch.rand(20, 3, generator=generator) * 6
    feat = torch.rand(20, 5, generator=generator)
    with torch.no_grad():
        return backbone(xyz, feat, torch.zeros(20, dtype=torch.long))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_round_trip(tmp_path, layer_norm):
    file = tmp_path / "new folder" / "backbone.safetensors"
    backbone = build(layer_norm=layer_norm, fov=((-70, -70, -9), (70, 70, 9.5)), gelu=True)
    xyz, feat = torch.rand(9, 3), torch.rand(9, 5)
    backbone(xyz, feat, torch.zeros(9, dtype=torch.long))  # moves running statistics
    save(file, backbone)
    loaded = load_backbone(file)
    assert not loaded.training
    assert type(loaded) is type(backbone)
    assert torch.equal(outputs(loaded), outputs(backbone.eval()))
    assert json.dumps(loaded.arguments) == json.dumps(backbone.arguments)


def test_text_path(tmp_path):
    file = f"{tmp_path}/backbone.safetensors"
    backbone = save(file)
    assert read_card(file)["card"] == CARD
    assert torch.equal(outputs(load_backbone(file)), outputs(backbone.eval()))


def test_card(tmp_path):
    backbone = save(tmp_path / "a.safetensors")
    card = read_card(tmp_path / "a.safetensors")
    assert card["name"] == NAME
    assert card["card"] == CARD
    assert card["arguments"] == json.loads(json.dumps(backbone.arguments))


def test_overrides(tmp_path):
    save(tmp_path / "a.safetensors")
    loaded = load_backbone(tmp_path / "a.safetensors", drop_path=0.3, num_neighbors=5)
    assert loaded.arguments["drop_path"] == 0.3
    assert loaded.num_neighbors == 5
    assert loaded.layers[0].drop_path == 0.3


def test_override_that_weights_depend_on(tmp_path):
    save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors does not fit .*layers\.2"):
        load_backbone(tmp_path / "a.safetensors", depth=2)


def test_unknown_override(tmp_path):
    save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="no argument 'droppath'; the nearest are: drop_path"):
        load_backbone(tmp_path / "a.safetensors", droppath=0.3)


def test_failure_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    backbone = save(file)
    old = file.read_bytes()

    def full_disk(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr("pc_geometry.atomic.os.fsync", full_disk)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    with pytest.raises(OSError, match="No space"):
        save(file, backbone)
    assert file.read_bytes() == old
    assert list(tmp_path.iterdir()) == [file]


def test_failure_of_the_block(tmp_path):
    file = tmp_path / "new"

    def interrupted():
        with atomic_file(file) as handle:
            handle.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_file_is_readable_by_others(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    save(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == ordinary.stat().st_mode


def test_nothing_is_written_for_a_card_that_json_cannot_hold(tmp_path):
    backbone = build()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_backbone(
            tmp_path / "a", backbone, name=NAME, arguments=backbone.arguments, card={"mean": {1}}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [read_card, load_backbone])
def test_missing(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="is not a file; pass a backbone"):
        read(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_card, load_backbone])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated(tmp_path, read, share):
    file = tmp_path / "a.safetensors"
    save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"a\.safetensors is not a whole safetensors file .*anew"):
        read(file)


@pytest.mark.parametrize("read", [read_card, load_backbone])
def test_damaged_header(tmp_path, read):
    file = tmp_path / "a.safetensors"
    save(file)
    content = bytearray(file.read_bytes())
    content[8:40] = b"\xff" * 32
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        read(file)


@pytest.mark.parametrize("read", [read_card, load_backbone])
def test_foreign(tmp_path, read):
    file = tmp_path / "a.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": torch.ones(3)}, file, metadata=metadata)
        with pytest.raises(ValueError, match="says nothing of its network"):
            read(file)
    for header in ("{", "[]", '{"name": 3}', '{"name": "waffleiron"}'):
        save_file({"weight": torch.ones(3)}, file, metadata={"pc_backbones": header})
        with pytest.raises(ValueError, match="says nothing of its network"):
            read(file)


def test_tensors_of_another_network(tmp_path):
    backbone = build()
    file = tmp_path / "a.safetensors"
    save_backbone(file, backbone, name=NAME, arguments=backbone.arguments | {"depth": 4}, card={})
    with pytest.raises(ValueError, match=r"does not fit the network that it names: .*layers\.3"):
        load_backbone(file)


def test_network_of_a_name_that_there_is_not(tmp_path):
    backbone = build()
    file = tmp_path / "a.safetensors"
    save_backbone(file, backbone, name="wafleiron", arguments=backbone.arguments, card={})
    with pytest.raises(ValueError, match=r"a\.safetensors: its network .* called 'wafleiron'"):
        load_backbone(file)
