"""The distillation token: a second learned token through which a vision transformer listens to its teacher."""

import copy
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_kd.errors import SetupError

STANDARD_DEVIATION = 0.02


def with_distillation_token(vit: nn.Module) -> nn.Module:
    """Give a timm vision transformer a distillation token and a head that reads it.

    The tokens become class, distillation, patches. The distillation token, its position and the weights of its head
    are drawn from a normal distribution of standard deviation 0.02, truncated at two units; everything else, the
    positions of the class token and of the patches among them, is what ``vit`` had. Networks whose positions do not
    count the class token (DeiT III) keep their positions as they are.

    In training mode the result returns ``(z_class, z_distillation)``, each of shape ``(N, K)``; in evaluation mode
    their mean, which is also what is exported. Token and head are part of the exported network. Its
    ``no_weight_decay()`` names ``dist_token``, and timm's distilled checkpoints load into it.

    Args:
        vit: A timm ``VisionTransformer`` with a class token that its head reads, or a ``VisionTransformerDistilled``,
            whose token and head are kept. It is not changed.

    Returns:
        A new timm ``VisionTransformerDistilled``.

    Raises:
        SetupError: If ``vit`` is of another class, has register tokens, pools other than by its class token, normalises
            after pooling, or has no position embedding.

    Source:
        Touvron et al., "Training data-efficient image transformers & distillation through attention", arXiv:2012.12877.

    Example:
        >>> import timm
        >>> student = with_distillation_token(timm.create_model("test_vit", img_size=64, num_classes=10))
        >>> student.pos_embed.shape  # two tokens and 4 x 4 patches
        torch.Size([1, 18, 64])
        >>> [z.shape for z in student(torch.zeros(2, 3, 64, 64))], student.eval()(torch.zeros(2, 3, 64, 64)).shape
        ([torch.Size([2, 10]), torch.Size([2, 10])], torch.Size([2, 10]))
    """
    if isinstance(vit, VisionTransformerDistilled):
        student = copy.deepcopy(vit)
    else:
        _check(vit)
        student = _converted(vit)
    student.set_distilled_training(True)
    return student  # type: ignore[no-any-return]


def _check(vit: Any) -> None:
    if type(vit) is not VisionTransformer:
        raise SetupError(f"`vit` must be a timm VisionTransformer, got {type(vit).__name__}.")
    if vit.global_pool != "token" or not isinstance(vit.fc_norm, nn.Identity):
        raise SetupError(
            f"`vit` must classify by its class token, without a normalisation after it, got "
            f"global_pool={vit.global_pool!r} and fc_norm={type(vit.fc_norm).__name__}: create it with "
            "class_token=True, global_pool='token', fc_norm=False."
        )
    if vit.reg_token is not None or vit.pos_embed is None:
        raise SetupError(
            f"`vit` must have no register tokens and a learned position embedding, got {vit.num_reg_tokens} and "
            f"{None if vit.pos_embed is None else tuple(vit.pos_embed.shape)}: create it with reg_tokens=0, "
            "pos_embed='learn'."
        )


def _converted(vit: Any) -> nn.Module:
    """A copy of ``vit`` as timm's distilled class, whose constructor would make new weights of settings it forgot."""
    student = VisionTransformerDistilled.__new__(VisionTransformerDistilled)
    vars(student).update(vars(copy.deepcopy(vit)))
    student.num_prefix_tokens = 2
    if hasattr(student.patch_drop, "num_prefix_tokens"):
        student.patch_drop.num_prefix_tokens = 2
    student.dist_token = nn.Parameter(_drawn_like(student.cls_token))
    if not student.no_embed_class:
        of_class, of_patches = student.pos_embed.detach().split([1, student.pos_embed.shape[1] - 1], dim=1)
        student.pos_embed = nn.Parameter(torch.cat([of_class, _drawn_like(of_class), of_patches], dim=1))
    student.head_dist = copy.deepcopy(student.head)
    if isinstance(student.head_dist, nn.Linear):
        nn.init.trunc_normal_(student.head_dist.weight, std=STANDARD_DEVIATION)
        if student.head_dist.bias is not None:
            nn.init.zeros_(student.head_dist.bias)
    return student  # type: ignore[no-any-return]


def _drawn_like(token: Tensor) -> Tensor:
    return nn.init.trunc_normal_(torch.empty_like(token), std=STANDARD_DEVIATION)
