"""Which folders of superpixels a pre-training takes."""

import json
import shutil

import pytest
from csc.config import Config
from csc.prepared import list_manifests, open_prepared
from pc_data.datasets import DataConfig, open_dataset
from pc_data.readers.nuscenes import NuScenes
from pc_data.superpixel_files import read_camera_tokens


def _config(world, superpixels, **more):
    return Config(data=DataConfig(root=world), superpixels=superpixels, **more)


def _datasets(config):
    return [open_dataset(data, labels=False) for data in (config.data, *config.more_data)]


def test_a_run_and_the_folder_in_it(street_world, semantic_run):
    datasets = _datasets(_config(street_world, semantic_run))
    (whole,) = open_prepared(_config(street_world, semantic_run), datasets)
    (inside,) = open_prepared(_config(street_world, semantic_run / "superpixels"), datasets)
    assert whole == inside
    assert whole.manifest.num_classes == 8
    assert list_manifests([whole]) == {"superpixels 0": whole.root / "manifest.json"}


def test_the_layout_of_the_authors(street_world, semantic_run, tmp_path):
    """One PNG for each image, called by the image's token in the tables."""
    (dataset,) = _datasets(_config(street_world, semantic_run))
    (ours,) = open_prepared(_config(street_world, semantic_run), [dataset])
    assert isinstance(dataset, NuScenes)
    tokens = read_camera_tokens(street_world / dataset.version)
    folder = tmp_path / "superpixels_dinov2_ade20k"
    folder.mkdir()
    for index in range(len(dataset)):
        scan = dataset[index]
        for camera in scan.cameras:
            shutil.copy(ours.file(scan, camera), folder / f"{tokens[camera.image_file.name]}.png")
    (theirs,) = open_prepared(_config(street_world, folder), [dataset])
    assert theirs.manifest.num_classes == 150
    assert not list_manifests([theirs])
    scan = dataset[0]
    for camera in scan.cameras:
        assert (theirs.read(scan, camera) == ours.read(scan, camera)).all()


def test_pairs_need_none(street_world, tmp_path):
    config = _config(street_world, tmp_path, contrast="pixel", prototypes="none")
    assert open_prepared(config, _datasets(config)) == []


def test_several_datasets_by_one_network(street_world, semantic_run, slic_run):
    more = {"more_data": [DataConfig(root=street_world)]}
    config = _config(street_world, semantic_run, more_superpixels=[semantic_run], **more)
    assert len(open_prepared(config, _datasets(config))) == 2
    config = _config(street_world, semantic_run, more_superpixels=[slic_run], **more)
    with pytest.raises(ValueError, match="by one network, but those of"):
        open_prepared(config, _datasets(config))
    with pytest.raises(ValueError, match=r"as many as more_data \(1\), got 0; run csc prepare"):
        _config(street_world, semantic_run, **more)


def test_other_weights_of_the_network(street_world, semantic_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(semantic_run / "superpixels", other)
    manifest = json.loads((other / "manifest.json").read_text())
    from pc_data.superpixel_manifest import SuperpixelManifest

    fields = {name: manifest[name] for name in ("network", "num_classes", "class_names")}
    changed = SuperpixelManifest(**fields, settings=manifest["settings"], digest="0" * 64)
    (other / "manifest.json").write_text(
        json.dumps(manifest | changed.fields() | {"hash": changed.hash()})
    )
    more = {"more_data": [DataConfig(root=street_world)], "more_superpixels": [other]}
    config = _config(street_world, semantic_run, **more)
    with pytest.raises(ValueError, match="or other weights of it; prepare them alike"):
        open_prepared(config, _datasets(config))


def test_no_superpixels(street_world, tmp_path):
    config = _config(street_world, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere holds no superpixels; run csc prepare"):
        open_prepared(config, _datasets(config))
    config = _config(street_world, tmp_path)
    with pytest.raises(ValueError, match="holds no superpixels; run csc prepare"):
        open_prepared(config, _datasets(config))


def test_a_part_of_the_superpixels(street_world, semantic_run, tmp_path):
    shutil.copytree(semantic_run, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    config = _config(street_world, tmp_path / "run")
    with pytest.raises(ValueError, match="of a part of the images only; the csc prepare that"):
        open_prepared(config, _datasets(config))


def test_no_classes_no_prototypes(street_world, slic_run):
    config = _config(street_world, slic_run)
    with pytest.raises(ValueError, match="prototypes blend are of classes, which superpixels of"):
        open_prepared(config, _datasets(config))
    config = _config(street_world, slic_run, prototypes="none")
    assert len(open_prepared(config, _datasets(config))) == 1
