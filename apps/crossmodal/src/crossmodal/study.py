"""The modalities compared in the form of the paper's table V, on the demo's streets."""

from functools import partial

from pc_train.demos.study import Study

from crossmodal.demo import DEMO, pretrain_on_streets
from crossmodal.presets import multi, nuscenes, single, single_units

STUDY = Study(
    title="Modalities of contrastive units on a synthetic world",
    lead=(
        "Single: two augmented clouds, units as sampled, in place of ProposalContrast; single "
        "units: the same, one unit for each object, in place of its stronger version; cross: "
        "points with images; multi: the sum of the last two"
    ),
    demo=DEMO,
    rows={
        "single": partial(pretrain_on_streets, preset=single),
        "single_units": partial(pretrain_on_streets, preset=single_units),
        "cross": partial(pretrain_on_streets, preset=nuscenes),
        "multi": partial(pretrain_on_streets, preset=multi),
    },
    reference="cross",
)
