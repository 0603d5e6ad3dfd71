"""SSPL: contrast the volumes of a scan, and with clusters of all scans (Zhang et al., 2022)."""

from collections.abc import Mapping
from typing import Any, Literal

import lightning
import torch
from jaxtyping import Bool, Float, Int64
from pc_backbones import Backbone, mlp_head
from pc_backbones.pointnet2 import PointNet2
from pc_data.batch import PointBatch
from pc_losses import alignment_score, contrastive_accuracy, feature_spread
from pc_losses.clusters import (
    ClusteredQueue,
    cluster_classification,
    cluster_info_nce,
    nearest_rows,
)
from pc_losses.queue import FeatureQueue, queue_info_nce
from pc_losses.volumes import byol_loss, volume_info_nce
from pc_train.collapse import FEATURE_SPREAD, lowest_spread
from pc_train.momentum import MomentumEncoder, momentum_schedule
from pc_train.schedules import sgd_cosine
from torch import Tensor, nn

from sspl.samples import VolumePair


class SSPL(lightning.LightningModule):
    """Local and global volume reasoning, and the baselines that share its parts.

    Args:
        backbone: What is pre-trained.
        local: What a feature learns from its own scan.
        across: What it learns from earlier scans.
        negatives: Where ClusterInfoNCE draws them.
        temperature: Of all contrasts.
        ema: Share of the momentum network that a step keeps.
        ema_steps: Steps in which that share rises to 1, as BYOL's; 0 to leave it.
        hidden_dim: Width of the heads' hidden layer.
        projection_dim: Width of what is contrasted.
        queue_size: Features of earlier scans that are kept.
        num_clusters: Clusters of the queue.
        num_negatives: Of ClusterInfoNCE.
        refresh_every: Steps between two clusterings of the queue.
        sharpness: Of the Sinkhorn assignment.
        train_clusters: Let the clusters' head learn the assignment.
        schedule: Arguments of `sgd_cosine`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        local: Literal["info_nce", "byol", "none"] = "info_nce",
        across: Literal["clusters", "classification", "queue", "none"] = "clusters",
        negatives: Literal["other", "hard", "random"] = "other",
        temperature: float = 0.1,
        ema: float = 0.999,
        ema_steps: int = 0,
        hidden_dim: int = 512,
        projection_dim: int = 128,
        queue_size: int = 300_000,
        num_clusters: int = 64,
        num_negatives: int = 20_000,
        refresh_every: int = 5,
        sharpness: float = 25.0,
        train_clusters: bool = True,
        schedule: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.local, self.across, self.negatives = local, across, negatives
        self.online = VolumeEncoder(
            backbone, mlp_head(backbone.out_dim, hidden_dim, projection_dim)
        )
        self.momentum = MomentumEncoder(self.online, momentum=ema)
        if local == "byol":
            self.predictor = mlp_head(projection_dim, hidden_dim, projection_dim)
        queue: FeatureQueue | None = None
        if across == "queue":
            queue = FeatureQueue(projection_dim, queue_size)
        elif across != "none":
            queue = ClusteredQueue(
                projection_dim, queue_size, num_clusters=num_clusters, sharpness=sharpness
            )
            queue.head.requires_grad_(train_clusters)
        self.queue = queue
        if across == "classification":
            self.classifier = nn.Linear(projection_dim, num_clusters)
        self.temperature, self.num_negatives = temperature, num_negatives
        self.ema_steps, self.refresh_every = ema_steps, refresh_every
        self.schedule = dict(schedule)
        self.collapse_limits = {FEATURE_SPREAD: lowest_spread(projection_dim)}
        # The queue is the same in all processes; 154 MB would be sent at every step.
        self._ddp_params_and_buffers_to_ignore = ["queue.feature", "queue.labels"]

    @property
    def backbone(self) -> Backbone:
        """What is pre-trained."""
        return self.online.backbone

    def training_step(self, batch: VolumePair) -> dict[str, Any]:
        """Local and global reasoning about the volumes of one batch; section 3 of the paper."""
        self.momentum.update(self.online, self._momentum_of_step())
        query, key, scan = self.volume_features(batch)  # [v d] [v d] [v]
        local = self._local(query, key, scan)
        across = self._across(query, key)
        self._enqueue(key)
        alone = len(query) <= len(batch)  # one a scan: tell scans apart
        watch = {
            "local": local.detach(),
            "across": across.detach(),
            "accuracy": contrastive_accuracy(query.detach(), key, None if alone else scan),
            "alignment": alignment_score(query.detach(), key),
            FEATURE_SPREAD: feature_spread(query.detach()),
        }
        if not isinstance(self.queue, ClusteredQueue):
            return {"loss": local + across, "watch": watch}
        assignment = self._teach(self.queue)
        watch["assignment"] = assignment.detach()
        watch["clusters that occur"] = share_of_clusters(self.queue, key)
        return {"loss": local + across + assignment, "watch": watch}

    def volume_features(
        self, batch: VolumePair
    ) -> tuple[Float[Tensor, "v d"], Float[Tensor, "v d"], Int64[Tensor, " v"]]:
        """Projected features of the volumes that both networks have one for, and their scans."""
        num_volumes = len(batch.volume_scan)
        query, in_query = self.online(batch.local_view, batch.local_volume, num_volumes)
        with torch.no_grad():
            key, in_key = self.momentum.network(batch.global_view, batch.global_volume, num_volumes)
        both = in_query & in_key
        return query[both], key[both], batch.volume_scan[both]

    def _local(self, query: Tensor, key: Tensor, scan: Tensor) -> Float[Tensor, ""]:
        """Equation 1, or 3."""
        if self.local == "info_nce":
            return volume_info_nce(query, key, scan, temperature=self.temperature)
        if self.local == "byol":
            return byol_loss(self.predictor(query), key, scan)
        return query.new_zeros(())

    def _across(self, query: Tensor, key: Tensor) -> Float[Tensor, ""]:
        """Equation 2, or 4, once the queue is full; MoCo's begins with random negatives."""
        queue = self.queue
        if queue is None:
            return query.new_zeros(())
        if not isinstance(queue, ClusteredQueue):
            return queue_info_nce(query, key, queue.feature, temperature=self.temperature)
        if not queue.full:
            return self._nothing()
        if self.across == "classification":
            labels = queue.labels[nearest_rows(key, queue.feature, queue.labels)]
            return cluster_classification(self._classify(query), self._classify(key), labels)
        return cluster_info_nce(
            query,
            key,
            queue.feature,
            queue.labels,
            num_clusters=queue.num_clusters,
            generator=torch.default_generator,  # seeded at each step
            negatives=self.negatives,
            num_negatives=self.num_negatives,
            temperature=self.temperature,
        )

    def _classify(self, feature: Tensor) -> Float[Tensor, "v k"]:
        """The linear re-projection of volume features, which have length 1."""
        return self.classifier(nn.functional.normalize(feature, dim=1))

    def _teach(self, queue: ClusteredQueue) -> Float[Tensor, ""]:
        """The clusters' head learns the balanced assignment, once there is one."""
        if not queue.full or not queue.head.weight.requires_grad:
            return self._nothing()
        return queue.head_loss(generator=torch.default_generator)

    def _nothing(self) -> Float[Tensor, ""]:
        """A zero that gives all that learns a gradient: other processes wait for it."""
        trained = [value.sum() for value in self.parameters() if value.requires_grad]
        return 0.0 * torch.stack(trained).sum()

    def _enqueue(self, key: Tensor) -> None:
        """Push the keys of all processes; cluster the queue once it is full, and now and then."""
        queue = self.queue
        if queue is None:
            return
        was_full = queue.full
        queue.push(key)
        due = not was_full or self.global_step % self.refresh_every == 0
        if isinstance(queue, ClusteredQueue) and queue.full and due:
            queue.refresh()

    def _momentum_of_step(self) -> float | None:
        if not self.ema_steps:
            return None
        return momentum_schedule(self.global_step, self.ema_steps, self.momentum.momentum)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """SGD with momentum and a cosine, on what learns."""
        parameters = [value for value in self.parameters() if value.requires_grad]
        return sgd_cosine([{"params": parameters}], **self.schedule)


class VolumeEncoder(nn.Module):
    """From points to one projected feature a volume: features, their maximum, a small network.

    PointNet++ has features at its seeds alone, and they are grouped there.

    Args:
        backbone: Of the points.
        head: Of the volumes.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(
        self, points: PointBatch, volume: Int64[Tensor, " n"], num_volumes: int
    ) -> tuple[Float[Tensor, "v d"], Bool[Tensor, " v"]]:
        """Compute a feature for each volume, and whether there was one to compute it from."""
        if isinstance(self.backbone, PointNet2):
            seeds, feature = self.backbone.forward_seeds(points.xyz, points.feat, points.batch)
            volume = volume[seeds]
        else:
            feature = self.backbone(
                points.xyz, points.feat, points.batch, neighbors=points.neighbors
            )
        pooled, occurs = pool_volumes(feature, volume, num_volumes)
        return self.head(pooled), occurs


def pool_volumes(
    feature: Float[Tensor, "n c"], volume: Int64[Tensor, " n"], num_volumes: int
) -> tuple[Float[Tensor, "v c"], Bool[Tensor, " v"]]:
    """Maximum of the features of each volume, zero where it has none, and whether it has one."""
    index = volume[:, None].expand_as(feature)
    pooled = feature.new_zeros(num_volumes, feature.shape[1])
    pooled = pooled.scatter_reduce(0, index, feature, "amax", include_self=False)
    occurs = volume.new_zeros(num_volumes, dtype=torch.bool).index_fill_(0, volume, True)
    return pooled, occurs


def share_of_clusters(queue: ClusteredQueue, key: Float[Tensor, "v d"]) -> Float[Tensor, ""]:
    """Share of the clusters that any of these volumes is of; low if volumes become alike."""
    occurs = key.new_zeros(queue.num_clusters)
    return occurs.index_fill_(0, queue.assign(key), 1).mean()
