"""Distil a CTC recogniser without a single transcript: the student learns from frames around the teacher's letters.

Run it: ``python examples/distil_ctc.py``. It reads five utterances that come with the project, or a file in their form,
``--file an4_mfcc.npz``: cepstra of CMU AN4, with transcripts that only the teacher and the error rates see.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

from lightning_kd import recipes
from lightning_kd.decoding import greedy_search
from lightning_kd.frames import lengths_to_mask
from lightning_kd.speech.text import character_errors

FIXTURE = Path(__file__).parents[1] / "tests" / "data" / "an4.npz"
ALPHABET, BLANK = " ABCDEFGHIJKLMNOPQRSTUVWXYZ", 27
Utterance = tuple[Tensor, str]


class Recogniser(nn.Module):
    """A recurrent network over every second frame, and a letter or a blank at each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.GRU(13, width, bidirectional=True, batch_first=True)
        self.letters = nn.Linear(2 * width, BLANK + 1)

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        return (lengths + 1) // 2

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        every_second = pack_padded_sequence(
            frames[:, ::2], self.frame_lengths(lengths), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(self.layer(every_second)[0], batch_first=True)
        return self.letters(hidden)


class Training(L.LightningModule):
    """A CTC loss on transcripts; distillation knows nothing of it."""

    def __init__(self, net: Recogniser) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor, list[str]]) -> Tensor:
        frames, lengths, texts = batch
        scores = self.net(frames, lengths).log_softmax(-1).transpose(0, 1)
        labels = torch.tensor([ALPHABET.index(letter) for text in texts for letter in text])
        counts = torch.tensor([len(text) for text in texts])
        return F.ctc_loss(scores, labels, self.net.frame_lengths(lengths), counts, blank=BLANK, zero_infinity=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)


def read(file: Path, part: str) -> list[Utterance]:
    with np.load(file) as arrays:
        frames, offsets, texts = (arrays[f"{part}_{name}"] for name in ("feat", "offsets", "text"))
        cepstra = [torch.from_numpy(frames[start:end]).float() for start, end in pairwise(offsets)]
    normal = [(values - values.mean(0)) / values.std(0) for values in cepstra]
    return list(zip(normal, (" ".join(str(text).split()) for text in texts), strict=True))


def collate(items: list[Utterance]) -> tuple[Tensor, Tensor, list[str]]:
    frames, texts = zip(*items, strict=True)
    lengths = torch.tensor([len(part) for part in frames])
    return pad_sequence(frames, batch_first=True), lengths, list(texts)


def train(net: Recogniser, data: list[Utterance], epochs: int, callbacks: list[L.Callback]) -> None:
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Training(net), DataLoader(data, batch_size=16, shuffle=True, collate_fn=collate))


@torch.no_grad()
def error_rate(net: Recogniser, data: list[Utterance]) -> float:
    """Character error rate in per cent."""
    frames, lengths, texts = collate(data)
    logits = net.eval()(frames, lengths)
    mask = lengths_to_mask(net.frame_lengths(lengths), logits.shape[1])
    heard = greedy_search(logits, mask, blank=BLANK)
    return character_errors(texts, ["".join(ALPHABET[label] for label in found.labels) for found in heard]).percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="a few epochs: shows that it runs, not what it gains")
    parser.add_argument("--file", type=Path, default=FIXTURE, help="utterances in the form of an4_mfcc.npz")
    arguments = parser.parse_args()
    epochs = 60 if arguments.fast else 200
    data = read(arguments.file, "train")

    L.seed_everything(1, verbose=False)
    teacher = Recogniser(width=64)
    train(teacher, data, epochs, [])

    # Frames within one of the teacher's letters; share=1 leaves out the student's own loss, and so the transcripts.
    distillation = recipes.ctc_kd(teacher, path="net", share=1.0, blank=BLANK, lengths="lengths")
    L.seed_everything(2, verbose=False)
    student = Recogniser(width=24)
    before = error_rate(student, data)
    train(student, data, epochs, [distillation])
    print(f"characters wrong, on what the teacher heard: teacher {error_rate(teacher, data):.1f} %")
    print(f"student before: {before:.1f} %, student distilled: {error_rate(student, data):.1f} %")


if __name__ == "__main__":
    main()
