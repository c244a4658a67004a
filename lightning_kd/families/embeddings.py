"""Where networks embed their patches, by the conventions that families share."""

import re

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.taps import module_paths

_EMBEDDING = re.compile(r"(^|\.)(patch_embed\d*|patch_embeddings(\.\d+)?|stem)$")


def patch_embedding_paths(model: nn.Module, name: str = "model") -> tuple[str, ...]:
    """Find the modules whose outputs are a network's patch embeddings, from the finest grid to the coarsest.

    Transformers: the patch embedding, and of hierarchical ones the downsampling in front of each later stage (timm's
    ViT, Swin, PVT, ConvNeXt and MetaFormer families, transformers' SegFormer). Networks with ``layer1`` to ``layer4``
    (ResNets): the stem and the first block of each later stage.

    Args:
        model: The network.
        name: What it is called in the message.

    Returns:
        Module paths.

    Raises:
        SetupError: If the network follows none of these conventions.

    Example:
        >>> import timm
        >>> patch_embedding_paths(timm.create_model("swin_tiny_patch4_window7_224"))
        ('patch_embed', 'layers.1.downsample', 'layers.2.downsample', 'layers.3.downsample')
        >>> patch_embedding_paths(timm.create_model("resnet18"))
        ('maxpool', 'layer2.0', 'layer3.0', 'layer4.0')
    """
    modules = module_paths(model)
    embeddings = [path for path in modules if _EMBEDDING.search(path) and not isinstance(modules[path], nn.ModuleList)]
    embeddings = [path for path in embeddings if not any(path.startswith(outer + ".") for outer in embeddings)]
    found = embeddings + [path for path in modules if _is_stage_downsampling(path, modules)]
    if not found and {"maxpool", "layer2.0", "layer3.0", "layer4.0"} <= modules.keys():
        found = ["maxpool", "layer2.0", "layer3.0", "layer4.0"]
    if not found:
        children = ", ".join(repr(child) for child, _ in model.named_children())
        raise SetupError(
            f"no patch embedding is known in the {name} ({type(model).__name__}): name the modules whose outputs are "
            f"its embeddings, PatchEmbeddingKD({name}=[...]); its children are {children or 'none'}."
        )
    return tuple(found)


def _is_stage_downsampling(path: str, modules: dict[str, nn.Module]) -> bool:
    """Whether ``path`` is a stage's own downsampling, not the shortcut of a residual block."""
    stage, _, leaf = path.rpartition(".")
    return leaf == "downsample" and f"{stage}.blocks" in modules and not isinstance(modules[path], nn.Identity)
