"""Teachers that write transcripts: Whisper and CTC models of transformers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_kd.decoding import collapse
from lightning_kd.errors import AudioError, SetupError
from lightning_kd.extras import import_extra
from lightning_kd.speech.clips import Samples
from lightning_kd.speech.scores import token_scores


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a teacher heard.

    Attributes:
        text: The transcript.
        tokens: Its tokens, without prompt and end.
        scores: How sure the teacher is, by name.
    """

    text: str
    tokens: tuple[int, ...]
    scores: dict[str, float] = field(default_factory=dict)


class Transcriber(Protocol):
    """Turns audio into text."""

    @property
    def sample_rate(self) -> int:
        """Rate of the audio it expects, Hz."""

    def __call__(self, audio: Sequence[Samples]) -> list[Transcript]:
        """Transcribe a batch of clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperOptions:
    """How Whisper decodes.

    Attributes:
        language: Name or code; ``None`` lets the model detect it, or is that of an English-only model.
        task: ``"transcribe"`` or ``"translate"``.
        timestamps: Whether timestamps are written among the tokens.
        beams: Hypotheses of the search; 1 is greedy.
        max_new_tokens: Most tokens of a transcript; ``None`` for as many as the model has positions for.
    """

    language: str | None = None
    task: str | None = None
    timestamps: bool = True
    beams: int = 1
    max_new_tokens: int | None = None


class WhisperTranscriber:
    """Whisper on clips that fit into its window.

    Args:
        model: ``WhisperForConditionalGeneration``.
        processor: ``WhisperProcessor`` of the same checkpoint.
        options: How it decodes.
    """

    def __init__(self, model: Any, processor: Any, options: WhisperOptions | None = None) -> None:
        self.model = model.eval()
        self.processor = processor
        self.options = options or WhisperOptions()
        end = model.generation_config.eos_token_id
        self._ends = set(end) if isinstance(end, list) else {end}

    @property
    def sample_rate(self) -> int:
        """Rate of the audio it expects, Hz."""
        return int(self.processor.feature_extractor.sampling_rate)

    @torch.inference_mode()
    def __call__(self, audio: Sequence[Samples]) -> list[Transcript]:
        """Transcribe a batch of clips.

        Args:
            audio: Samples of each, at `sample_rate`.

        Returns:
            A transcript of each.

        Raises:
            AudioError: If a clip is longer than the window.
        """
        extractor = self.processor.feature_extractor
        longest = max(len(samples) for samples in audio)
        if longest > extractor.n_samples:
            raise AudioError(
                f"clips must be at most {extractor.n_samples / extractor.sampling_rate:g} s long, got "
                f"{longest / extractor.sampling_rate:.1f} s: cut them at pauses first."
            )
        features = extractor(list(audio), sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
        features = features.to(self.model.device, self.model.dtype)
        encoded = self.model.get_encoder()(features)
        hidden = encoded.last_hidden_state
        written = self._generate(encoded)
        return [self._transcript(hidden[index : index + 1], ids) for index, ids in enumerate(written)]

    def _generate(self, encoded: Any) -> Tensor:
        options = self.options
        limits = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
        output = self.model.generate(
            encoder_outputs=encoded,
            language=options.language,
            task=options.task,
            return_timestamps=options.timestamps,
            num_beams=options.beams,
            return_dict_in_generate=True,
            force_unique_generate_call=True,
            **limits,
        )
        sequences: Tensor = output.sequences
        return sequences

    def _transcript(self, hidden: Tensor, ids: Tensor) -> Transcript:
        """Score a transcript by one more pass over it, whose logits are those before any are suppressed."""
        begin = self._prompt_length(ids)
        stop = [index for index in range(begin, len(ids)) if int(ids[index]) in self._ends]
        end = stop[0] if stop else len(ids)
        tokens = tuple(int(token) for token in ids[begin:end])
        text = str(self.processor.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
        # Where the teacher wrote its end, that it ended there is part of what it is sure of.
        last = end + 1 if stop else end
        logits = self.model(encoder_outputs=(hidden,), decoder_input_ids=ids[None, : last - 1]).logits[0, begin - 1 :]
        return Transcript(text, tokens, asdict(token_scores(logits, ids[begin:last])))

    def _prompt_length(self, ids: Tensor) -> int:
        """How many tokens stand before what the teacher wrote: start, language, task, and no timestamps."""
        config = self.model.generation_config
        known = {config.decoder_start_token_id, getattr(config, "no_timestamps_token_id", None)}
        for table in ("lang_to_id", "task_to_id"):
            known |= set(getattr(config, table, {}).values())
        length = 0
        while length < len(ids) - 1 and int(ids[length]) in known:
            length += 1
        return max(length, 1)


class CTCTranscriber:
    """A CTC model, greedily.

    Args:
        model: ``HubertForCTC``, ``Wav2Vec2ForCTC`` or alike.
        processor: Feature extractor and tokenizer of the same checkpoint.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model.eval()
        self.processor = processor

    @property
    def sample_rate(self) -> int:
        """Rate of the audio it expects, Hz."""
        return int(self.processor.feature_extractor.sampling_rate)

    @torch.inference_mode()
    def __call__(self, audio: Sequence[Samples]) -> list[Transcript]:
        """Transcribe clips, one by one: models without layer norm in the front end hear padding.

        Args:
            audio: Samples of each, at `sample_rate`.

        Returns:
            A transcript of each; scores are means over its frames.
        """
        return [self._transcript(samples) for samples in audio]

    def _transcript(self, samples: Samples) -> Transcript:
        inputs = self.processor.feature_extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        values = inputs.input_values.to(self.model.device, self.model.dtype)
        logits = self.model(values).logits[0]
        path = logits.argmax(dim=-1)
        tokens = collapse(path.tolist(), blank=self.model.config.pad_token_id)
        text = str(self.processor.tokenizer.decode(path.tolist())).strip()
        return Transcript(text, tokens, asdict(token_scores(logits, path)))


def load_transcriber(
    teacher: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, options: WhisperOptions | None = None
) -> WhisperTranscriber | CTCTranscriber:
    """Load a teacher from a folder that ``save_pretrained`` wrote, or by its name on the Hugging Face Hub.

    Args:
        teacher: Folder or name, such as ``"openai/whisper-large-v3"`` or ``"facebook/hubert-large-ls960-ft"``.
        device: Where it runs.
        dtype: Type of its weights.
        options: How Whisper decodes; CTC models have no options.

    Returns:
        The teacher.

    Raises:
        MissingExtraError: If transformers is not installed.
        SetupError: If there is no such checkpoint, or it does not recognise speech.
    """
    transformers = import_extra("transformers", "speech")
    try:
        config = transformers.AutoConfig.from_pretrained(teacher)
        processor = transformers.AutoProcessor.from_pretrained(teacher)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"`teacher` must be a checkpoint of transformers with its processor, got {teacher!r}: {error}"
        ) from error
    architecture = (config.architectures or [""])[0]
    if architecture == "WhisperForConditionalGeneration":
        model = transformers.WhisperForConditionalGeneration.from_pretrained(teacher, dtype=dtype)
        if options is not None and options.max_new_tokens is not None:
            model.generation_config.max_length = None  # else transformers warns of two limits for every batch
        return WhisperTranscriber(model.to(device), processor, options)
    if architecture.endswith("ForCTC"):
        if options is not None and options != WhisperOptions():
            raise SetupError(f"the options of decoding apply to Whisper only, got {options} for {architecture}.")
        return CTCTranscriber(transformers.AutoModelForCTC.from_pretrained(teacher, dtype=dtype).to(device), processor)
    raise SetupError(
        f"`teacher` must be a Whisper or a CTC model, got {architecture or config.model_type} in {teacher!r}."
    )
