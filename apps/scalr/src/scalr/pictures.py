"""The report of a pre-training run."""

from pc_data.batch import PointBatch
from pc_train.pictures import picture_of_correlation
from pc_train.pretraining import write_report

from scalr.config import Config
from scalr.method import ScaLR


def report_pretraining(config: Config, method: ScaLR, sample: PointBatch) -> None:
    """Write `report.html`: the loss, a correlation map and the configuration."""
    backbone = method.backbone.cpu().eval()
    correlation = picture_of_correlation({"pre-trained": backbone}, sample, ())
    write_report(
        config.out,
        title="ScaLR pre-training",
        lead=f"{config.backbone} from {', '.join(config.teachers)}",
        loss="Distance of point and pixel features.",
        sections=[
            (
                "What the features find alike",
                correlation,
                "Similarity to the point at the cross, one camera's view of scan "
                f"{sample.names[0]}.",
            )
        ],
    )
