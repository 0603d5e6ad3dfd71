"""Mask2Former and OneFormer for ADE20K, by transformers."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pc_2dteachers.catalog import MASK_TRANSFORMERS
from pc_2dteachers.segmenter import Segmenter
from pc_2dteachers.weights import UNREADABLE, find_hub_folder

_ONEFORMER = "oneformer"
_OF_THE_COPY = ("_name_or_path", "transformers_version")


class MaskTransformer(nn.Module):
    """A mask transformer between its own pre- and post-processing.

    The processor resizes and normalises the images as the model was trained, and turns masks and
    their classes into a class for each pixel of the original image.

    Source: Mask2Former (Cheng et al., CVPR 2022, arXiv:2112.01527), Sec. 3.3 as semantic inference;
        OneFormer (Jain et al., CVPR 2023, arXiv:2211.06220) with the task "semantic".
    """

    def __init__(self, model: nn.Module, processor: Any, *, tasks: bool) -> None:  # noqa: ANN401
        """Put a model between its processing.

        Args:
            model: Of transformers.
            processor: Of transformers, the model's.
            tasks: Whether the model is told what to do.
        """
        super().__init__()
        self.model = model
        self.processor = processor
        self.tasks = tasks

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Int64[Tensor, "b h w"]:
        """Return the class of each pixel."""
        task = {"task_inputs": ["semantic"] * len(images)} if self.tasks else {}
        inputs = self.processor(
            images=list(images), do_rescale=False, return_tensors="pt", **task
        ).to(images.device)
        outputs = self.model(**inputs)
        sizes = [tuple(images.shape[2:])] * len(images)
        processor = getattr(self.processor, "image_processor", self.processor)
        maps = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return torch.stack(maps)


def create_mask_transformer(
    name: str, *, checkpoint: str | os.PathLike[str] | None = None
) -> Segmenter:
    """Create a mask transformer with its published weights.

    Args:
        name: A key of `MASK_TRANSFORMERS`.
        checkpoint: A folder with a copy of the repository; by default it comes from the local
            cache or the model hub.

    Raises:
        ImportError: If transformers is not installed; the message says how.
        FileNotFoundError: If there is no such folder, or the weights cannot be downloaded.
        ValueError: If the folder holds something else.
    """
    transformers = _import_transformers()
    if checkpoint is None:
        folder = find_hub_folder(MASK_TRANSFORMERS[name])
    else:
        folder = Path(checkpoint)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder}: there is no config.json in it; pass the folder of a copy of "
                f"{MASK_TRANSFORMERS[name]}"
            )
    try:
        network = _load(transformers, folder, is_oneformer=name.startswith(_ONEFORMER))
    except (*UNREADABLE, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder}: does not load as {name} ({reason}); use a copy of {MASK_TRANSFORMERS[name]}"
        ) from error
    labels: Any = network.model.config.id2label  # pyrefly: ignore[missing-attribute]
    names = [labels[index] for index in range(len(labels))]
    return Segmenter(network, name=name, class_names=names, settings=_settings(network))


def _settings(network: MaskTransformer) -> dict[str, Any]:
    """What the configurations of model and processor say, but for what a mere copy changes."""
    model: Any = network.model
    processor = network.processor
    found = {"model": model.config.to_dict()}
    if network.tasks:
        task = processor.tokenizer("the task is semantic")["input_ids"]
        found["task"] = {"tokens": task, "length": processor.task_seq_length}
        processor = processor.image_processor
    found["images"] = processor.to_dict()
    plain = json.loads(json.dumps(found, default=str))
    return {
        part: {key: value for key, value in values.items() if key not in _OF_THE_COPY}
        for part, values in plain.items()
    }


def _load(transformers: Any, folder: Path, *, is_oneformer: bool) -> MaskTransformer:  # noqa: ANN401
    kind = _ONEFORMER if is_oneformer else "mask2former"
    found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if found != kind:
        raise ValueError(f"it holds a {found}")
    if not is_oneformer:
        model = transformers.Mask2FormerForUniversalSegmentation
        processor = transformers.Mask2FormerImageProcessor.from_pretrained(
            folder, local_files_only=True
        )
    else:
        model = transformers.OneFormerForUniversalSegmentation
        # The names of things, which lie in another repository, are for panoptic maps.
        images = transformers.OneFormerImageProcessor.from_pretrained(
            folder, local_files_only=True, class_info_file=None
        )
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        processor = transformers.OneFormerProcessor(images, tokenizer)
    model, report = model.from_pretrained(
        folder, local_files_only=True, weights_only=True, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"{len(missing)} of its tensors are not in the file, e.g. {missing[0]}")
    if is_oneformer:
        processor.task_seq_length = model.config.task_seq_len
    return MaskTransformer(model, processor, tasks=is_oneformer)


def _import_transformers() -> Any:  # noqa: ANN401
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "Mask2Former and OneFormer need transformers: pip install 'pc-2dteachers[segmenters]'"
        ) from error
    return transformers
