"""A sequence-to-sequence teacher that reads the student's encoder instead of running its own."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import SetupError
from lightning_kd.taps import Inputs, Observation
from lightning_kd.teachers.frozen import FrozenTeacher

ENCODER = "encoder_last_hidden_state"
_AUDIO = ("input_features", "inputs_embeds", "encoder_outputs")
_RANDOM = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop")


class SharedEncoderTeacher(FrozenTeacher):
    """A teacher whose encoder is the student's, frozen: it is computed once per step, in the student's call.

    Distil-Whisper's students keep the teacher's encoder, which is most of the work of a step.

    Args:
        module: The teacher, a sequence-to-sequence model of transformers such as ``WhisperForConditionalGeneration``.
        student: The student, whose encoder must be equal and frozen; only looked at here.

    Raises:
        SetupError: If the encoders differ in a weight or its type, or the student's learns or is random in training.
    """

    def __init__(self, module: nn.Module, student: nn.Module) -> None:
        check_shared_encoder(student, module)
        super().__init__(module)

    @override
    def inputs_of(self, call: Observation) -> Inputs:
        hidden = call.output.get(ENCODER) if isinstance(call.output, dict) else None
        if not isinstance(hidden, Tensor):
            raise SetupError(
                f"the student's output must hold {ENCODER!r} to share its encoder, got {type(call.output).__name__}: "
                "call a sequence-to-sequence model of transformers with return_dict=True, or pass share_encoder=False."
            )
        dtype = next(self.module.parameters()).dtype
        kwargs = {name: value for name, value in call.inputs.kwargs.items() if name not in _AUDIO}
        if call.inputs.args:
            raise SetupError(
                f"the student must be called with keyword arguments only to share its encoder, got "
                f"{len(call.inputs.args)} by position: model(input_features=..., decoder_input_ids=..., labels=...)."
            )
        return Inputs(kwargs={**kwargs, "encoder_outputs": (hidden.detach().to(dtype),)})


def check_shared_encoder(student: nn.Module, teacher: nn.Module) -> None:
    """Raise `SetupError` unless the student's encoder is frozen, deterministic and equal to the teacher's.

    Args:
        student: A sequence-to-sequence model of transformers.
        teacher: Likewise.
    """
    models: tuple[Any, Any] = (student, teacher)
    encoders = [model.get_encoder() for model in models]
    own, other = (encoder.state_dict() for encoder in encoders)
    differing = [
        name
        for name in own.keys() | other.keys()
        if name not in own
        or name not in other
        or own[name].dtype != other[name].dtype
        or not torch.equal(own[name].cpu(), other[name].cpu())
    ]
    cure = "make the student with lightning_kd.students.distil_whisper_student, or pass share_encoder=False"
    if differing:
        raise SetupError(
            f"the encoders of student and teacher differ in {len(differing)} tensors, such as {min(differing)!r}: "
            f"one cannot stand in for the other. {cure.capitalize()}."
        )
    learning = [name for name, parameter in encoders[0].named_parameters() if parameter.requires_grad]
    if learning:
        raise SetupError(
            f"the student's encoder must be frozen to be shared, got {len(learning)} parameters that learn, such as "
            f"{learning[0]!r}: call student.model.encoder.requires_grad_(False), or pass share_encoder=False."
        )
    config = models[0].config
    moving = {name: getattr(config, name, 0.0) for name in _RANDOM if getattr(config, name, 0.0)}
    if getattr(config, "apply_spec_augment", False):
        moving["apply_spec_augment"] = True
    if moving:
        raise SetupError(
            f"the student's encoder is random in training, config {moving}, and the teacher would suffer from it: "
            "set these to 0 in the student's config, or pass share_encoder=False."
        )
