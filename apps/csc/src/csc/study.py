"""The parts of CSC compared in the form of the paper's table 5, on the demo's streets."""

from dataclasses import replace
from functools import partial

from pc_train.demos.study import Study

from csc.demo import DEMO, pretrain_on_streets
from csc.prepare_presets import slic
from csc.presets import nuscenes, point_prototypes, semantic, slidr

_pretrain = partial(pretrain_on_streets, image_size=(128, 256))

STUDY = Study(
    title="Parts of CSC on a synthetic world",
    lead=(
        "slidr: superpixels by SLIC; semantic: superpixels of classes; point prototypes: these and "
        "the points' prototypes as they are; csc: these and prototypes blended from both modalities"
    ),
    demo=replace(DEMO, pretraining_steps=200),
    rows={
        "slidr": partial(_pretrain, preset=slidr, superpixels=slic),
        "semantic": partial(_pretrain, preset=semantic),
        "point_prototypes": partial(_pretrain, preset=point_prototypes),
        "csc": partial(_pretrain, preset=nuscenes),
    },
    reference="csc",
)
