"""The report of a pre-training run."""

from pc_data.batch import PointBatch
from pc_train.callbacks import read_curve
from pc_train.figures import plot_curves
from pc_train.pictures import picture_of_correlation
from pc_train.report import Report
from pc_train.runs import CONFIG

from scalr.config import Config
from scalr.method import ScaLR


def report_pretraining(config: Config, method: ScaLR, sample: PointBatch) -> None:
    """Write `report.html`: the loss, a correlation map and the configuration."""
    backbone = method.backbone.cpu().eval()
    curve = read_curve(config.out / "metrics.csv")
    report = Report(
        "ScaLR pre-training",
        f"{config.backbone} from {', '.join(config.teachers)}, {len(curve):,} steps",
    )
    report.heading("Loss")
    report.figure(plot_curves({"loss": curve}), "Distance of point and pixel features.")
    report.heading("What the features find alike")
    report.figure(
        picture_of_correlation({"pre-trained": backbone}, sample, ()),
        f"Similarity to the point at the cross, one camera's view of scan {sample.names[0]}.",
    )
    report.heading("Configuration")
    report.text((config.out / CONFIG).read_text(encoding="utf-8"))
    report.write(config.out / "report.html")
