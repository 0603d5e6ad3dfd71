"""Teachers and segmenters known by a name of their own; plain data, without torch."""

OFFLINE_TEACHER = "efficientnet_lite0_offline"

# Our name -> timm's. OpenAI trained CLIP with the quick GELU, hence the quickgelu variant.
TIMM_NAMES = {
    "dino_vit_s8": "vit_small_patch8_224.dino",
    "dinov2_vit_b14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vit_g14": "vit_giant_patch14_dinov2.lvd142m",
    "dinov2_vit_l14": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_vit_s14": "vit_small_patch14_dinov2.lvd142m",
    OFFLINE_TEACHER: "tf_efficientnet_lite0",
    "esvit_swin_t": "swin_tiny_patch4_window7_224",
    "mae_vit_b16": "vit_base_patch16_224.mae",
    "maskclip_vit_b16": "vit_base_patch16_clip_quickgelu_224.openai",
    "moco_v2_resnet50": "resnet50",
    "moco_v2_resnet50_dilated": "resnet50",
    "moco_v3_resnet50": "resnet50",
}

DINOV2_LINEAR = {
    "dinov2_linear_ade20k_vitb14": "dinov2_vit_b14",
    "dinov2_linear_ade20k_vitg14": "dinov2_vit_g14",
    "dinov2_linear_ade20k_vitl14": "dinov2_vit_l14",
    "dinov2_linear_ade20k_vits14": "dinov2_vit_s14",
}
"""Segmenters: DINOv2 under its authors' linear head -> the teacher below it."""

MASK_TRANSFORMERS = {
    "mask2former_ade20k_swin_base": "facebook/mask2former-swin-base-ade-semantic",
    "mask2former_ade20k_swin_large": "facebook/mask2former-swin-large-ade-semantic",
    "mask2former_ade20k_swin_small": "facebook/mask2former-swin-small-ade-semantic",
    "mask2former_ade20k_swin_tiny": "facebook/mask2former-swin-tiny-ade-semantic",
    "oneformer_ade20k_swin_large": "shi-labs/oneformer_ade20k_swin_large",
    "oneformer_ade20k_swin_tiny": "shi-labs/oneformer_ade20k_swin_tiny",
}
"""Segmenters: mask transformers -> their repository on the model hub."""

OFFLINE_CLUSTERS = "offline_clusters"


def list_teachers() -> list[str]:
    """Return the names with a recipe of their own; `create_teacher` takes timm's names as well."""
    return sorted(TIMM_NAMES)


def list_segmenters() -> list[str]:
    """Return the names that `create_segmenter` takes."""
    return sorted([*DINOV2_LINEAR, *MASK_TRANSFORMERS, OFFLINE_CLUSTERS])
