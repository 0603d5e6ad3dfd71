"""The teachers known by a name of their own; plain data, without torch."""

OFFLINE_TEACHER = "efficientnet_lite0_offline"

# Our name -> timm's. OpenAI trained CLIP with the quick GELU, hence the quickgelu variant.
TIMM_NAMES = {
    "dino_vit_s8": "vit_small_patch8_224.dino",
    "dinov2_vit_b14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vit_l14": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_vit_s14": "vit_small_patch14_dinov2.lvd142m",
    OFFLINE_TEACHER: "tf_efficientnet_lite0",
    "esvit_swin_t": "swin_tiny_patch4_window7_224",
    "mae_vit_b16": "vit_base_patch16_224.mae",
    "maskclip_vit_b16": "vit_base_patch16_clip_quickgelu_224.openai",
    "moco_v2_resnet50": "resnet50",
    "moco_v3_resnet50": "resnet50",
}


def list_teachers() -> list[str]:
    """Return the names with a recipe of their own; `create_teacher` takes timm's names as well."""
    return sorted(TIMM_NAMES)
