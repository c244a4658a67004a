"""Distil a speech encoder into two of its layers without a label, then train a classifier of digits on the student.

Run it: ``python examples/distil_hubert.py``. It reads the five spoken digits that come with the project, and lets a
small HuBERT with random weights teach: enough to see every step, not to learn to hear. ``--data`` names a file of more
digits in the same form, ``--teacher`` a checkpoint such as ``facebook/hubert-base-ls960``.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from digits import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import HubertConfig, HubertModel

from lightning_kd import recipes
from lightning_kd.speech import LengthBucketSampler, PadAudio, load_speech_model
from lightning_kd.students import distilhubert_student

CLIPS = Path(__file__).parents[1] / "tests" / "data" / "spoken_digits.npz"
RECORDED_HZ, SAMPLE_RATE_HZ = 8_000, 16_000


class SpokenDigits(L.LightningDataModule):
    """Clips of unequal lengths at 16 kHz, in batches of similar length, with the digit that is spoken.

    Args:
        file: Where they are.
        batch_size: Clips in a batch.
    """

    def __init__(self, file: Path, batch_size: int = 16) -> None:
        super().__init__()
        with np.load(file) as arrays:
            samples = torch.from_numpy(arrays["samples"].astype(np.float32) / 32_768)
            spans, labels = pairwise(arrays["offsets"].tolist()), arrays["label"].tolist()
        waves = [doubled(samples[start:end]) for start, end in spans]
        self.items = list(zip(waves, labels, strict=True))
        self.sampler = LengthBucketSampler([len(wave) for wave in waves], batch_size=batch_size)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        collate = PadAudio(sample_rate=SAMPLE_RATE_HZ, standardize=True)
        return DataLoader(self.items, batch_sampler=self.sampler, collate_fn=collate)


def doubled(wave: Tensor) -> Tensor:
    """The waveform at twice its sampling rate."""
    factor = SAMPLE_RATE_HZ // RECORDED_HZ
    return F.interpolate(wave[None, None], scale_factor=factor, mode="linear", align_corners=False)[0, 0]


class Imitation(L.LightningModule):
    """Runs an encoder on unlabelled audio; what it learns is up to the callback.

    Args:
        net: The encoder.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        batch.pop("labels")
        return self.net(**batch).last_hidden_state.new_zeros(())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.parameters(), lr=2e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=1e-6)


class Recognition(L.LightningModule):
    """Classifies clips by the mean of their frames.

    Args:
        net: The encoder.
    """

    def __init__(self, net: HubertModel) -> None:
        super().__init__()
        self.net = net
        self.classifier = nn.Linear(net.config.hidden_size, 10)

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        labels = batch.pop("labels")
        hidden = self.net(**batch).last_hidden_state
        loss = F.cross_entropy(self.classifier(hidden.mean(dim=1)), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def small_teacher() -> HubertModel:
    """A HuBERT of four thin layers, with random weights."""
    return HubertModel(
        HubertConfig(
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            conv_dim=(32,) * 7,
            feat_extract_norm="layer",
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            layerdrop=0.0,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    parser.add_argument("--data", type=Path, default=CLIPS, help="file of clips (%(default)s)")
    parser.add_argument("--teacher", help="name or folder of a HuBERT, wav2vec 2.0 or WavLM")
    options = parser.parse_args()
    epochs = 2 if options.fast else 20

    L.seed_everything(0, verbose=False)
    data = SpokenDigits(options.data)
    teacher = small_teacher() if options.teacher is None else load_speech_model(options.teacher)
    student = distilhubert_student(teacher)
    depth = len(teacher.encoder.layers)
    kd = recipes.distilhubert(teacher, path="net", layers=(depth // 3, 2 * depth // 3, depth))
    trainer = quiet_trainer(epochs, [kd])
    trainer.fit(Imitation(student), data)
    print(f"distance to the teacher after {epochs} epochs: {trainer.callback_metrics['kd/distilhubert']:.3f}")

    with TemporaryDirectory() as folder:
        student.save_pretrained(folder)  # a plain HuBERT, without a trace of distillation
        encoder = HubertModel.from_pretrained(folder).train()
    trainer = quiet_trainer(epochs)
    trainer.fit(Recognition(encoder), data)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (teacher, encoder)]
    print(f"{sizes[0]} parameters teach, {sizes[1]} remain; loss on the digits: {trainer.callback_metrics['loss']:.3f}")


if __name__ == "__main__":
    main()
