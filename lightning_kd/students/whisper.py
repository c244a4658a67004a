"""Whisper students made of a part of their teacher's layers, as Distil-Whisper does."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_kd._checks import check_positive
from lightning_kd.errors import SetupError
from lightning_kd.extras import import_extra

Layers = int | Sequence[int]


def maximally_spaced(layers: int, count: int) -> list[int]:
    """Layers that lie as far apart as possible, the last one among them.

    Args:
        layers: How many there are.
        count: How many are chosen.

    Returns:
        Their indices, increasing.

    Raises:
        SetupError: If ``count`` is not from 1 to ``layers``.

    Source:
        Gandhi, von Platen and Rush, "Distil-Whisper", arXiv:2311.00430, in the form of its code: evenly spaced numbers
        without their fractions.

    Example:
        >>> maximally_spaced(32, 2), maximally_spaced(12, 4), maximally_spaced(4, 1)
        ([0, 31], [0, 3, 7, 11], [3])
    """
    check_positive("layers", layers)
    if not 1 <= count <= layers:
        raise SetupError(f"`count` must be from 1 to {layers}, the teacher's layers, got {count}.")
    if count == 1:
        return [layers - 1]
    return [index * (layers - 1) // (count - 1) for index in range(count)]


def distil_whisper_student(
    teacher: nn.Module,
    *,
    decoder_layers: Layers = 2,
    encoder_layers: Layers | None = None,
    freeze_encoder: bool = True,
    freeze_positions: bool = False,
) -> nn.Module:
    """A Whisper model with fewer layers, all of whose weights are the teacher's.

    Embeddings, norms, convolutions and the output are copied; layers are those of the teacher at maximal spacing, or at
    the places given. The generation settings come along, without what names layers or tokens that the student decides
    on its own (``forced_decoder_ids``, ``alignment_heads``). One forward pass is run to see that it works.

    ``student.save_pretrained(folder)`` and ``processor.save_pretrained(folder)`` write a checkpoint like OpenAI's.

    Args:
        teacher: ``WhisperForConditionalGeneration`` with its weights, ``from_pretrained("openai/whisper-small")``.
        decoder_layers: How many, or which ones of the teacher's, in increasing order.
        encoder_layers: Likewise; ``None`` keeps all of them.
        freeze_encoder: Whether the encoder does not train; then `recipes.distil_whisper` computes it once for both.
        freeze_positions: Whether the decoder's table of positions does not train.

    Returns:
        The student, of the teacher's class and floating-point type, in training mode, on the CPU.

    Raises:
        SetupError: If ``teacher`` is no Whisper model, or has not the layers asked for.

    Source:
        Gandhi, von Platen and Rush, "Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling",
        arXiv:2311.00430: the whole encoder, frozen, and the first and the last layer of the decoder.
    """
    config: Any = getattr(teacher, "config", None)
    if getattr(config, "model_type", None) != "whisper" or not hasattr(teacher, "proj_out"):
        raise SetupError(
            f"`teacher` must be a WhisperForConditionalGeneration of transformers, got {type(teacher).__name__}."
        )
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    chosen = {
        "encoder": _chosen(
            "encoder_layers", depths["encoder"] if encoder_layers is None else encoder_layers, depths["encoder"]
        ),
        "decoder": _chosen("decoder_layers", decoder_layers, depths["decoder"]),
    }
    student: Any = _built(teacher, config, chosen)
    with torch.no_grad():
        _run_once(student)
    if freeze_encoder:
        student.get_encoder().requires_grad_(False)
    if freeze_positions:
        student.get_decoder().embed_positions.requires_grad_(False)
    module: nn.Module = student
    return module


def _chosen(name: str, layers: Layers, depth: int) -> list[int]:
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise SetupError(f"`{name}` must be from 1 to {depth}, the teacher's layers, got {layers}.")
        return maximally_spaced(depth, layers)
    indices = list(layers)
    if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < depth:
        raise SetupError(f"`{name}` must be increasing indices of the teacher's {depth} layers, got {indices}.")
    return indices


def _built(teacher: Any, config: Any, chosen: dict[str, list[int]]) -> Any:
    own = copy.deepcopy(config)
    own.encoder_layers, own.decoder_layers = len(chosen["encoder"]), len(chosen["decoder"])
    # Old checkpoints hold generation settings in the model's config too, where they win over newer ones.
    own.forced_decoder_ids = None
    student = type(teacher)(own).to(teacher.dtype)
    weights = teacher.state_dict()
    student.load_state_dict({name: weights[_source(name, chosen)] for name in student.state_dict()})
    student.generation_config = copy.deepcopy(teacher.generation_config)
    student.generation_config.forced_decoder_ids = None
    if len(chosen["decoder"]) < config.decoder_layers and hasattr(student.generation_config, "alignment_heads"):
        del student.generation_config.alignment_heads
    return student


def _source(name: str, chosen: dict[str, list[int]]) -> str:
    """Name of the teacher's weight: ``model.decoder.layers.1.fc1.weight`` comes from the second layer chosen."""
    parts = name.split(".")
    if parts[2:3] == ["layers"]:
        parts[3] = str(chosen[parts[1]][int(parts[3])])
    return ".".join(parts)


def _run_once(student: Any) -> None:
    config = student.config
    mel = torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions, dtype=student.dtype)
    start = torch.tensor([[config.decoder_start_token_id]])
    student.eval()
    logits: Tensor = student(input_features=mel, decoder_input_ids=start).logits
    student.train()
    if not bool(logits.isfinite().all()):
        raise SetupError("`teacher` makes a student whose scores are not finite: are its weights loaded, in this type?")


def draft_decoder(student: nn.Module) -> nn.Module:
    """The student's decoder alone, to draft for a teacher whose encoder it shares.

    ``teacher.generate(features, assistant_model=draft_decoder(student))`` runs the encoder once; with the whole student
    as the assistant it runs twice. Batches of one utterance only.

    Args:
        student: A ``WhisperForConditionalGeneration``.

    Returns:
        A ``WhisperForCausalLM`` with copies of the decoder's weights, in evaluation mode.

    Raises:
        MissingExtraError: If transformers is not installed.
    """
    whisper: Any = student
    transformers = import_extra("transformers", "speech")
    draft: Any = transformers.WhisperForCausalLM(copy.deepcopy(whisper.config)).to(whisper.dtype)
    weights = whisper.state_dict()
    draft.load_state_dict({name: weights[name] for name in draft.state_dict()})
    draft.generation_config = copy.deepcopy(whisper.generation_config)
    module: nn.Module = draft.eval()
    return module
