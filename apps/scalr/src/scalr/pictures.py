"""The report of a pre-training run."""

from matplotlib.figure import Figure
from pc_data.batch import PointBatch
from pc_train.pretraining import write_report
from pc_train.reports.first_batch import CloudPanel, ImagePanel, draw_batch, place_colors
from pc_train.reports.pictures import cloud_of_features, picture_of_correlation

from scalr.config import Config
from scalr.method import ScaLR


def picture_of_batch(sample: PointBatch) -> Figure:
    """Draw an image and the points that it sees, as the networks get them; pairs share a colour."""
    image, pixel = sample.need("images")[0].numpy(), sample.need("pixel").numpy()
    color = place_colors(pixel, image.shape[1:])
    return draw_batch(
        f"scan {sample.names[0]}: {len(pixel):,} points and their pixels",
        [CloudPanel("the points, augmented", sample.xyz.numpy(), color)],
        [ImagePanel("the image of one camera", image, pixel, color)],
    )


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
        cloud=cloud_of_features(backbone, sample),
    )
