"""Distil-Whisper in one file: pseudo-labels, filters, a student of half the decoder, and how well it drafts.

Run it: ``python examples/distil_whisper.py --fast`` for a Whisper with random weights and noise, which shows that every
part works; ``--teacher openai/whisper-small --labels FOLDER`` for a real one, with what
``lightning-kd pseudo-label --teacher openai/whisper-small --data AUDIO --out FOLDER --language en --task transcribe``
wrote before.
"""

import argparse
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from lightning_kd import recipes
from lightning_kd.callbacks import SpeculativeAcceptance
from lightning_kd.speech.clips import read_clip
from lightning_kd.speech.filters import NotMadeUp, ScoreLimit, apply_filters, entropy, no_shouting, no_silence
from lightning_kd.speech.pseudo_labels import PseudoLabel, read_pseudo_labels
from lightning_kd.speech.scores import token_scores
from lightning_kd.speech.whisper_batches import WhisperCollator, WhisperTokens
from lightning_kd.students import distil_whisper_student

Utterance = dict[str, Any]


class Training(L.LightningModule):
    """Cross-entropy on pseudo-labels; distillation knows nothing of it."""

    def __init__(self, net: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        return self.net(**batch).loss

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        self.log("loss", self.net(**batch).loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learning = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(learning, lr=3e-3)


def random_whisper() -> tuple[WhisperForConditionalGeneration, WhisperTokens]:
    """A small Whisper of half a second and 60 tokens, the last ten of which are special."""
    tokens = WhisperTokens(prefix=(50, 51, 52), no_timestamps=57, previous=55, first_timestamp=58, end=59)
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), tokens.end)
    config = WhisperConfig(
        vocab_size=60,
        d_model=32,
        encoder_layers=2,
        decoder_layers=4,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=25,
        max_target_positions=24,
        decoder_start_token_id=50,
        **special,
    )
    teacher = WhisperForConditionalGeneration(config)
    for parameter in teacher.parameters():
        parameter.data.mul_(4.0)  # scores that differ from token to token
    teacher.generation_config = GenerationConfig(
        decoder_start_token_id=50, max_length=None, suppress_tokens=list(range(50, 59)), **special
    )
    return teacher.eval(), tokens


@torch.no_grad()
def random_utterances(teacher: WhisperForConditionalGeneration, count: int) -> tuple[list[PseudoLabel], list[Tensor]]:
    """Noise, and what the teacher hears in it."""
    features = torch.randn(count, teacher.config.num_mel_bins, 2 * teacher.config.max_source_positions)
    labels = []
    for index, ids in enumerate(teacher.generate(features, max_new_tokens=8)):
        words = ids[ids < 50]
        logits = teacher(input_features=features[index : index + 1], decoder_input_ids=ids[None]).logits[0]
        sure = token_scores(logits[: len(words)], words)
        text = " ".join(f"word{int(word)}" for word in words)
        scores = {"entropy": sure.entropy, "confidence": sure.confidence}
        name = str(index)
        labels.append(
            PseudoLabel(id=name, audio=name, seconds=0.5, text=text, tokens=tuple(words.tolist()), scores=scores)
        )
    return labels, list(features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="random weights and noise")
    parser.add_argument("--teacher", default="openai/whisper-small", help="folder or name (%(default)s)")
    parser.add_argument("--labels", help="folder that `lightning-kd pseudo-label` wrote")
    parser.add_argument("--language", default="en", help="of the pseudo-labels (%(default)s)")
    arguments = parser.parse_args()
    if not arguments.fast and arguments.labels is None:
        parser.error("--labels must name a folder that `lightning-kd pseudo-label` wrote, or pass --fast")
    L.seed_everything(0, verbose=False)

    if arguments.fast:
        teacher, tokens = random_whisper()
        labels, features = random_utterances(teacher, 32)
        heard = {label.id: {"input_features": mel} for label, mel in zip(labels, features, strict=True)}
        extractor, rules = None, [no_silence]
    else:
        teacher = WhisperForConditionalGeneration.from_pretrained(arguments.teacher)
        processor = WhisperProcessor.from_pretrained(arguments.teacher)
        tokens = WhisperTokens.of(processor.tokenizer, language=arguments.language, task="transcribe")
        labels, extractor = read_pseudo_labels(arguments.labels), processor.feature_extractor
        rate = extractor.sampling_rate
        heard = {label.id: {"audio": read_clip(label.audio, sample_rate=rate)} for label in labels}
        rules = [no_silence, no_shouting, NotMadeUp()]

    # Without transcripts to compare with: the four fifths that the teacher is surest of.
    rules.append(ScoreLimit.keeping(0.8, labels, entropy, reason="not sure"))
    filtered = apply_filters(labels, rules)
    print(f"kept {len(filtered.kept)} of {len(labels)} pseudo-labels; dropped: {filtered.dropped}")

    data = [{**heard[label.id], "tokens": label.tokens} for label in filtered.kept]
    positions = teacher.config.max_target_positions
    loader = DataLoader(
        data, batch_size=8, collate_fn=WhisperCollator(tokens=tokens, extractor=extractor, positions=positions)
    )

    student = distil_whisper_student(teacher, decoder_layers=2)
    drafts = SpeculativeAcceptance(teacher, student="net", drafted=5)
    trainer = L.Trainer(
        max_epochs=10 if arguments.fast else 3,
        accelerator="cpu" if arguments.fast else "auto",
        callbacks=[recipes.distil_whisper(teacher, student, path="net"), drafts],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Training(student)
    trainer.validate(module, loader, verbose=False)
    before = drafts.report
    trainer.fit(module, loader, loader)
    print(f"drafts accepted before: {before.acceptance:.3f}, after: {drafts.report.acceptance:.3f}")
    print(f"tokens per pass of the teacher: {drafts.report.tokens_per_pass(5):.2f}")


if __name__ == "__main__":
    main()
