"""The shallow student of DistilHuBERT, cut out of its teacher."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_not_negative
from lightning_kd.errors import SetupError
from lightning_kd.extras import import_extra
from lightning_kd.gradients import scale_gradient
from lightning_kd.speech.encoders import speech_encoder
from lightning_kd.teachers.frozen import unwrapped

_OF_ITS_FILE = ("architectures", "dtype", "model_type", "transformers_version")


def distilhubert_student(teacher: nn.Module, *, layers: int = 2, feature_gradient: float = 0.1) -> Any:
    """Make the student of a HuBERT, wav2vec 2.0 or WavLM: its front end and its first layers, with its weights.

    It is a plain network of transformers: ``save_pretrained`` and ``from_pretrained`` work, and no head is part of it.
    Of HuBERT and wav2vec 2.0 it is a ``HubertModel`` without the LayerNorm in front of the projection, as published: of
    HuBERT Base 23,491,968 parameters. WavLM cannot leave that norm out; its student keeps it, with its weights (ours).
    The norm behind the positions is the teacher's, too (ours: the published one starts anew). LayerDrop and
    SpecAugment are off; the embedding of masked frames, which nothing uses then, is frozen.

    Args:
        teacher: A model that holds one speech encoder.
        layers: Transformer layers to keep, from the first on.
        feature_gradient: Factor of the gradient that goes into the convolutions; a hook on ``feature_extractor``
            applies it for as long as this object lives.

    Returns:
        The student, in training mode.

    Raises:
        SetupError: If there is not exactly one speech encoder, or it is not so deep.
        ValueError: If ``feature_gradient`` is negative.
        MissingExtraError: If transformers is not installed.

    Source:
        Chang et al., "DistilHuBERT", arXiv:2110.01900, and s3prl's code.

    Example:
        >>> from transformers import HubertConfig, HubertModel
        >>> tiny = HubertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=32, num_hidden_layers=4)
        >>> student = distilhubert_student(HubertModel(tiny))
        >>> len(student.encoder.layers), student.config.feat_proj_layer_norm
        (2, False)
    """
    check_not_negative("feature_gradient", feature_gradient)
    source = speech_encoder(unwrapped(teacher), "teacher")
    if not 0 < layers <= source.depth:
        raise SetupError(f"`layers` must be from 1 to the teacher's {source.depth}, got {layers}.")
    student = _shallow(source.module, layers)
    weights = source.module.state_dict()
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    embedding = getattr(student, "masked_spec_embed", None)
    if embedding is not None:
        embedding.requires_grad_(False)
    student.get_submodule("feature_extractor").register_forward_hook(partial(_slowed, factor=feature_gradient))
    return student.train()


def _shallow(encoder: nn.Module, layers: int) -> nn.Module:
    own = {"num_hidden_layers": layers, "layerdrop": 0.0, "apply_spec_augment": False}
    transformers = import_extra("transformers", "speech")
    given: Any = encoder.config
    if isinstance(encoder, transformers.HubertModel | transformers.Wav2Vec2Model):
        known = transformers.HubertConfig().to_dict()
        shared = {key: value for key, value in given.to_dict().items() if key in known and key not in _OF_ITS_FILE}
        student: nn.Module = transformers.HubertModel(
            transformers.HubertConfig(**(shared | own | {"feat_proj_layer_norm": False}))
        )
        return student
    config = copy.deepcopy(given)
    config.update(own | ({"add_adapter": False} if getattr(config, "add_adapter", False) else {}))
    return type(encoder)(config)


def _slowed(_: nn.Module, __: tuple[Any, ...], output: Tensor, *, factor: float) -> Tensor:
    if torch.compiler.is_exporting() or not output.requires_grad:
        return output
    return scale_gradient(output, factor)
