"""Speech checkpoints of transformers, ready to teach or to be distilled."""

from os import PathLike
from typing import Any, Literal

from lightning_kd._checks import check_choice
from lightning_kd.extras import import_extra

Head = Literal["none", "ctc", "classification", "transcription"]
_CLASSES: dict[Head, str] = {
    "none": "AutoModel",
    "ctc": "AutoModelForCTC",
    "classification": "AutoModelForAudioClassification",
    "transcription": "AutoModelForSpeechSeq2Seq",
}
_LAYERDROPS = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")


def load_speech_model(
    name: str | PathLike[str], *, head: Head = "none", attentions: bool = False, spec_augment: bool = False
) -> Any:
    """Load a speech model of transformers by its public name or from a folder, with LayerDrop off.

    LayerDrop skips layers in training, and with it hidden states; distillation wants all of them. SpecAugment, which
    hides parts of the input in training, is off unless asked for.

    Args:
        name: Such as ``"facebook/hubert-base-ls960"`` or ``"openai/whisper-tiny"``, or a folder that
            ``save_pretrained`` wrote.
        head: ``"none"`` for the encoder (of Whisper, encoder and decoder), ``"ctc"``, ``"classification"`` or
            ``"transcription"``.
        attentions: Whether attention maps can be read; the fast implementations of transformers return none, silently.
        spec_augment: Whether SpecAugment stays as the checkpoint has it; masking distillation needs it.

    Returns:
        The model, in evaluation mode, float32.

    Raises:
        ValueError: If ``head`` is unknown.
        OSError: Of transformers, if there is no such checkpoint.
        MissingExtraError: If transformers is not installed.

    Example:
        >>> teacher = load_speech_model("facebook/hubert-base-ls960")  # doctest: +SKIP
    """
    check_choice("head", head, tuple(_CLASSES))
    transformers = import_extra("transformers", "speech")
    config = transformers.AutoConfig.from_pretrained(name)
    off = {key: 0.0 for key in _LAYERDROPS if hasattr(config, key)}
    if hasattr(config, "apply_spec_augment") and not spec_augment:
        off["apply_spec_augment"] = False
    config.update(off)
    options = {"attn_implementation": "eager"} if attentions else {}
    kind = getattr(transformers, _CLASSES[head])
    return kind.from_pretrained(name, config=config, dtype="float32", **options)
