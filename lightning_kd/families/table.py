"""The table of families: what the parts of their networks are called."""

from dataclasses import dataclass
from typing import Literal

from lightning_kd.families.stages import (
    StageFinder,
    announced_stages,
    last_blocks,
    named_stages,
    stages_by_depth,
    stages_by_stride,
    these,
)

Kind = Literal["cnn", "hierarchical", "isotropic"]


@dataclass(frozen=True, slots=True)
class Family:
    """Networks of one construction: what their parts are called. All paths are those of modules.

    Attributes:
        name: Name of the family; the forms of one family in several packages share it.
        kind: ``"cnn"`` (maps of strides 4 to 32), ``"hierarchical"`` (transformers on such maps) or ``"isotropic"``
            (tokens of one stride and width throughout).
        classes: Full names of the classes that build it, subclasses included.
        stages: Finds the outputs of the four stages in a network, see `stages_of`.
        embedding: Where pixels have become the first features.
        last_map: Last map or tokens before pooling, behind the final norm if that comes first.
        classifier: Last linear layer, or 1x1 convolution of a segmentation network; ``None`` if there is none.
        norm: Final norm, before or after pooling; ``None`` if there is none.
        tail: Finds where the last stage begins and what runs one after the other from there to ``last_map``, see
            `lightning_kd.teachers.TeacherTail`; ``None`` if that is no chain of modules.
        prefix_tokens: Tokens before the patches where the network does not tell by itself.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    stages: StageFinder
    embedding: str
    last_map: str
    classifier: str | None
    norm: str | None = None
    tail: StageFinder | None = None
    prefix_tokens: int | None = None


def _segformer(network: str, prefix: str, classifier: str | None) -> Family:
    stages = prefix + "stages.{}"
    return Family(
        "mit",
        "hierarchical",
        (f"transformers.models.segformer.modeling_segformer.{network}",),
        stages=named_stages(stages, 0, 1, 2, 3),
        embedding=stages.format(0) + ".patch_embeddings",
        last_map=stages.format(3),
        tail=named_stages(stages, 2, 3),
        norm=stages.format(3) + ".layer_norm",
        classifier=classifier,
    )


FAMILIES: tuple[Family, ...] = (
    Family(
        "resnet",
        "cnn",
        ("timm.models.resnet.ResNet", "torchvision.models.resnet.ResNet"),
        stages=named_stages("layer{}", 1, 2, 3, 4),
        embedding="maxpool",
        last_map="layer4",
        tail=these("layer3", "layer4"),
        classifier="fc",
    ),
    Family(
        "convnext",
        "cnn",
        ("timm.models.convnext.ConvNeXt",),
        stages=named_stages("stages.{}", 0, 1, 2, 3),
        embedding="stem",
        last_map="stages.3",
        norm="head.norm",
        tail=these("stages.2", "stages.3"),
        classifier="head.fc",
    ),
    Family(
        "convnext",
        "cnn",
        ("torchvision.models.convnext.ConvNeXt",),
        stages=named_stages("features.{}", 1, 3, 5, 7),
        embedding="features.0",
        last_map="features.7",
        norm="classifier.0",
        tail=these("features.5", "features.6", "features.7"),
        classifier="classifier.2",
    ),
    # timm builds MobileNets of versions 1 and 2 from EfficientNet, so they count as that family everywhere.
    Family(
        "efficientnet",
        "cnn",
        ("timm.models.efficientnet.EfficientNet",),
        stages=announced_stages,
        embedding="bn1",
        last_map="bn2",
        classifier="classifier",
    ),
    Family(
        "efficientnet",
        "cnn",
        ("torchvision.models.efficientnet.EfficientNet", "torchvision.models.mobilenetv2.MobileNetV2"),
        stages=stages_by_stride("features"),
        embedding="features.0",
        last_map="features",
        classifier="classifier.1",
    ),
    Family(
        "mobilenetv3",
        "cnn",
        ("timm.models.mobilenetv3.MobileNetV3",),
        stages=announced_stages,
        embedding="bn1",
        last_map="blocks",
        classifier="classifier",
    ),
    Family(
        "mobilenetv3",
        "cnn",
        ("torchvision.models.mobilenetv3.MobileNetV3",),
        stages=stages_by_stride("features"),
        embedding="features.0",
        last_map="features",
        classifier="classifier.3",
    ),
    Family(
        "regnet",
        "cnn",
        ("timm.models.regnet.RegNet",),
        stages=announced_stages,
        embedding="stem",
        last_map="final_conv",
        tail=these("s3", "s4", "final_conv"),
        classifier="head.fc",
    ),
    Family(
        "regnet",
        "cnn",
        ("torchvision.models.regnet.RegNet",),
        stages=named_stages("trunk_output.block{}", 1, 2, 3, 4),
        embedding="stem",
        last_map="trunk_output",
        tail=these("trunk_output.block3", "trunk_output.block4"),
        classifier="fc",
    ),
    Family(
        "swin",
        "hierarchical",
        ("timm.models.swin_transformer.SwinTransformer", "timm.models.swin_transformer_v2.SwinTransformerV2"),
        stages=announced_stages,
        embedding="patch_embed",
        last_map="norm",
        norm="norm",
        tail=these("layers.2", "layers.3", "norm"),
        classifier="head.fc",
    ),
    Family(
        "swin",
        "hierarchical",
        ("torchvision.models.swin_transformer.SwinTransformer",),
        stages=named_stages("features.{}", 1, 3, 5, 7),
        embedding="features.0",
        last_map="norm",
        norm="norm",
        tail=these("features.5", "features.6", "features.7", "norm"),
        classifier="head",
    ),
    Family(
        "pvt_v2",
        "hierarchical",
        ("timm.models.pvt_v2.PyramidVisionTransformerV2",),
        stages=announced_stages,
        embedding="patch_embed",
        last_map="stages.3",
        norm="stages.3.norm",
        tail=these("stages.2", "stages.3"),
        classifier="head",
    ),
    _segformer("SegformerModel", "", None),
    _segformer("SegformerForImageClassification", "segformer.", "classifier"),
    _segformer("SegformerForSemanticSegmentation", "segformer.", "decode_head.classifier"),
    Family(
        "vit",
        "isotropic",
        ("timm.models.vision_transformer.VisionTransformer", "timm.models.beit.Beit"),
        stages=stages_by_depth("blocks"),
        embedding="patch_embed",
        last_map="norm",
        norm="norm",
        tail=last_blocks("blocks", "norm"),
        classifier="head",
    ),
    # EVA hands its rotary positions to every block, so that its blocks are no chain.
    Family(
        "vit",
        "isotropic",
        ("timm.models.eva.Eva",),
        stages=stages_by_depth("blocks"),
        embedding="patch_embed",
        last_map="norm",
        norm="norm",
        classifier="head",
    ),
    Family(
        "vit",
        "isotropic",
        ("torchvision.models.vision_transformer.VisionTransformer",),
        stages=stages_by_depth("encoder.layers"),
        embedding="conv_proj",
        last_map="encoder.ln",
        norm="encoder.ln",
        tail=last_blocks("encoder.layers", "encoder.ln"),
        classifier="heads.head",
        prefix_tokens=1,
    ),
    Family(
        "mixer",
        "isotropic",
        ("timm.models.mlp_mixer.MlpMixer",),
        stages=stages_by_depth("blocks"),
        embedding="stem",
        last_map="norm",
        norm="norm",
        tail=last_blocks("blocks", "norm"),
        classifier="head",
    ),
)
