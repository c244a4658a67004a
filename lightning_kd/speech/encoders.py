"""Where the layers of a speech encoder of transformers are, found by its class."""

from dataclasses import dataclass

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.taps import Tap, module_paths

_MODELS = {
    "data2vec": "modeling_data2vec_audio.Data2VecAudioModel",
    "hubert": "modeling_hubert.HubertModel",
    "unispeech": "modeling_unispeech.UniSpeechModel",
    "unispeech_sat": "modeling_unispeech_sat.UniSpeechSatModel",
    "wav2vec2": "modeling_wav2vec2.Wav2Vec2Model",
    "wavlm": "modeling_wavlm.WavLMModel",
}
_CLASSES = frozenset(f"transformers.models.{package}.{name}" for package, name in _MODELS.items())


@dataclass(frozen=True, slots=True)
class SpeechEncoder:
    """An encoder of raw audio inside a model: HuBERT, wav2vec 2.0, WavLM and their kin.

    Attributes:
        path: Path of the encoder inside the model, ``""`` if it is the model.
        module: The encoder, with the submodules ``feature_extractor``, ``feature_projection`` and ``encoder``.
        name: What the model is called in messages.
    """

    path: str
    module: nn.Module
    name: str = "model"

    @property
    def depth(self) -> int:
        """Number of transformer layers."""
        return len(list(self.module.get_submodule("encoder.layers").children()))

    def layer(self, index: int, *, call: int | None = None) -> Tap:
        """Where the hidden state ``index`` is read: 0 is what enters the first layer, ``i`` what leaves the i-th.

        This is the ``hidden_states[index]`` of transformers 4 and 5, apart from the last of pre-norm models: here it is
        never normalised.

        Args:
            index: From 0 to the depth.
            call: Which call of a model that runs several times.

        Raises:
            SetupError: If there is no such layer.
        """
        if not 0 <= index <= self.depth:
            raise SetupError(
                f"`layers` must be from 0 to {self.depth}, the depth of the {self.name}, got {index}: name layers that "
                f"it has, such as its last, {self.depth}."
            )
        path = self._inside(f"encoder.layers.{max(index - 1, 0)}")
        return Tap(path, at="output" if index else "input", axes="NTD", call=call)

    def last(self) -> Tap:
        """Where the encoder's output is read, normalised as its users get it."""
        return Tap(self._inside("encoder"), axes="NTD", select="last_hidden_state")

    def _inside(self, path: str) -> str:
        return f"{self.path}.{path}".lstrip(".")

    def check_layerdrop(self) -> None:
        """Raise `SetupError` if LayerDrop is left on: it would skip layers that are read."""
        rate = float(self.module.config.layerdrop)  # type: ignore[union-attr, arg-type]
        if rate > 0:
            raise SetupError(
                f"the {self.name} has LayerDrop left on (config.layerdrop={rate}), which skips layers in training: "
                f"set {self.name}.config.layerdrop = 0.0, or load it with lightning_kd.speech.load_speech_model."
            )


def speech_encoder(model: nn.Module, name: str = "model") -> SpeechEncoder:
    """Find the speech encoder in a model: the model itself, a part of it, or inside a wrapper.

    Known are HuBERT, wav2vec 2.0, WavLM, UniSpeech, UniSpeechSat and data2vec of transformers, and classes derived from
    them.

    Args:
        model: Where to look.
        name: What it is called in messages.

    Returns:
        The encoder.

    Raises:
        SetupError: If there is none, or more than one.

    Example:
        >>> from transformers import HubertConfig, HubertForCTC
        >>> tiny = HubertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=32, num_hidden_layers=2)
        >>> encoder = speech_encoder(HubertForCTC(tiny))
        >>> encoder.layer(2).path, encoder.last().path
        ('hubert.encoder.layers.1', 'hubert.encoder')
    """
    found = [(path, module) for path, module in module_paths(model).items() if is_speech_encoder(module)]
    if len(found) != 1:
        raise SetupError(
            f"the {name} ({type(model).__name__}) must hold exactly one speech encoder (HuBERT, wav2vec 2.0, WavLM or "
            f"kin of transformers), found {len(found)}: name the places with taps."
        )
    return SpeechEncoder(*found[0], name)


def is_speech_encoder(module: nn.Module) -> bool:
    """Whether ``module`` is of one of the known classes, or of one that derives from them."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in _CLASSES for kind in type(module).__mro__)
