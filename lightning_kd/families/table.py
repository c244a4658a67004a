"""The table of families, and what is read from it."""

from dataclasses import dataclass
from typing import Literal, cast

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.families.stages import (
    STAGES,
    StageFinder,
    announced_stages,
    named_stages,
    stages_by_depth,
    stages_by_stride,
)
from lightning_kd.taps import Tap, module_paths

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
        classifier="head.fc",
    ),
    Family(
        "regnet",
        "cnn",
        ("torchvision.models.regnet.RegNet",),
        stages=named_stages("trunk_output.block{}", 1, 2, 3, 4),
        embedding="stem",
        last_map="trunk_output",
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
        classifier="head",
    ),
    _segformer("SegformerModel", "", None),
    _segformer("SegformerForImageClassification", "segformer.", "classifier"),
    _segformer("SegformerForSemanticSegmentation", "segformer.", "decode_head.classifier"),
    Family(
        "vit",
        "isotropic",
        ("timm.models.vision_transformer.VisionTransformer", "timm.models.beit.Beit", "timm.models.eva.Eva"),
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
        classifier="head",
    ),
)


def family_of(model: nn.Module) -> Family | None:
    """Family of a timm, torchvision or transformers network.

    Args:
        model: The network, as its package made it; it may be compiled.

    Returns:
        The row of the table, or ``None`` for a network that is in none.

    Example:
        >>> import timm
        >>> family_of(timm.create_model("wide_resnet50_2")).name, family_of(nn.Linear(2, 2))
        ('resnet', None)
    """
    ancestors = [f"{ancestor.__module__}.{ancestor.__qualname__}" for ancestor in type(_bare(model)).__mro__]
    by_class = {name: family for family in FAMILIES for name in family.classes}
    return next((by_class[name] for name in ancestors if name in by_class), None)


def stages_of(model: nn.Module, name: str = "model") -> tuple[str, ...]:
    """Find the modules whose outputs are those of a network's four stages, from shallow to deep.

    Of networks with resolution stages, the outputs at the strides 4, 8, 16 and 32, before the next stage's
    downsampling; a network made for a smaller total stride repeats one. Of plain transformers and MLPs, the blocks 1,
    3, 9 and 11 (from 0) of twelve, as OFA-KD taps them, and those at the same relative depth of others (ours).

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        Four module paths.

    Raises:
        SetupError: If the network's family is not known, or the network has fewer than four stages.

    Example:
        >>> import timm
        >>> stages_of(timm.create_model("resnet18"))
        ('layer1', 'layer2', 'layer3', 'layer4')
        >>> stages_of(timm.create_model("test_vit", img_size=64))  # of six blocks
        ('blocks.0', 'blocks.1', 'blocks.4', 'blocks.5')
    """
    stages = _known_family(model, name).stages(_bare(model))
    missing = [path for path in stages if path not in module_paths(model)]
    if len(stages) != STAGES or missing:
        raise SetupError(
            f"four stages are looked for in the {name} ({type(model).__name__}), found {list(stages)}"
            f"{f' without modules at {missing}' if missing else ''}: {_advice(name)}"
        )
    return stages


def stage_taps(model: nn.Module, name: str = "model") -> tuple[Tap, ...]:
    """Taps on `stages_of`, with the prefix tokens of networks that do not tell theirs.

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        Four taps.

    Raises:
        SetupError: As `stages_of`.
    """
    prefix_tokens = _known_family(model, name).prefix_tokens
    return tuple(Tap(path, prefix_tokens=prefix_tokens) for path in stages_of(model, name))


def last_map_tap(model: nn.Module, name: str = "model") -> Tap:
    """Tap on the last map or tokens before pooling.

    Args:
        model: A network of a family in `FAMILIES`.
        name: What it is called in messages.

    Returns:
        The tap.

    Raises:
        SetupError: If the network's family is not known.
    """
    family = _known_family(model, name)
    return Tap(family.last_map, prefix_tokens=family.prefix_tokens)


def _bare(model: nn.Module) -> nn.Module:
    """What ``torch.compile`` wrapped, else ``model`` itself."""
    return cast(nn.Module, getattr(model, "_orig_mod", model))


def _known_family(model: nn.Module, name: str) -> Family:
    family = family_of(model)
    if family is None:
        known = ", ".join(sorted({family.name for family in FAMILIES}))
        raise SetupError(
            f"the {name} ({type(model).__name__}) is of no known family ({known}), so its stages are not known: "
            f"{_advice(name)}"
        )
    return family


def _advice(name: str) -> str:
    return f"name the {name}'s taps, or let CKAKD.matched() choose them by similarity."
