"""Superpixels of the synthetic streets, made once; read only."""

import pytest


def _prepare(world, out, **settings):
    from csc.prepare import prepare
    from csc.prepare_config import PrepareConfig
    from pc_data.datasets import DataConfig

    config = PrepareConfig(
        data=DataConfig(root=world), out=out, jobs=1, accelerator="cpu", **settings
    )
    return prepare(config, progress=lambda what: lambda *done: None)  # noqa: ARG005


@pytest.fixture(scope="session")
def semantic_run(street_world, tmp_path_factory):
    """What `csc prepare` leaves: eight classes that mean the same in every image."""
    out = tmp_path_factory.mktemp("semantic") / "run"
    settings = {"network": "offline_clusters", "num_clusters": 8, "image_size": (112, 224)}
    return _prepare(street_world, out, **settings)


@pytest.fixture(scope="session")
def slic_run(street_world, tmp_path_factory):
    """The same without classes: twenty superpixels an image."""
    out = tmp_path_factory.mktemp("slic") / "run"
    return _prepare(street_world, out, network="slic", num_segments=20, sigma=1.0)
