"""Prune a small HuBERT while it is distilled from itself (DPHuBERT), remove what was closed, distil on, save and load.

Run it: ``python examples/prune_hubert.py``. It reads spoken digits from the folder named in ``LIGHTNING_KD_DATA``, or
with ``--fast`` the five clips of the tests.
"""

import argparse
import copy
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import HubertConfig, HubertForSequenceClassification

from lightning_kd.compression import EncoderShape, load_shaped, save_shaped
from lightning_kd.recipes import dphubert, dphubert_second_stage

ROOT = Path(__file__).parents[1]
SAMPLES = 4000  # half a second at 8 kHz, of which the encoder makes 12 frames


class Digits(L.LightningModule):
    """A LightningModule as anyone would write it: it knows nothing of distillation or pruning.

    Args:
        net: Returns scores of ten digits.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        audio, labels = batch
        return F.cross_entropy(self.net(audio).logits, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.parameters(), lr=1e-3)


def clips(fast: bool) -> tuple[TensorDataset, TensorDataset]:
    """Clips to train on and clips of a speaker who is not among those, cut or padded to half a second."""
    folder = Path(os.environ.get("LIGHTNING_KD_DATA", ROOT.parent / "shared" / "data"))
    file = ROOT / "tests" / "data" / "spoken_digits.npz" if fast else folder / "fsdd" / "fsdd.npz"
    with np.load(file) as arrays:
        samples, offsets = arrays["samples"].astype(np.float32) / 32768, arrays["offsets"]
        labels, speakers = torch.from_numpy(arrays["label"].astype(np.int64)), arrays["speaker"].astype(str)
    audio = torch.zeros(len(labels), SAMPLES)
    for index, (start, end) in enumerate(pairwise(offsets)):
        clip = torch.from_numpy(samples[start:end])[:SAMPLES]
        audio[index, : len(clip)] = (clip - clip.mean()) / clip.std()
    held_out = torch.from_numpy(speakers == ("theo" if "theo" in speakers else speakers[-1]))
    return (
        TensorDataset(audio[~held_out], labels[~held_out]),
        TensorDataset(audio[held_out], labels[held_out]),
    )


def fit(net: nn.Module, data: TensorDataset, epochs: int, callbacks: list[L.Callback]) -> None:
    """Train a network in place."""
    L.seed_everything(1, verbose=False)
    loader = DataLoader(data, batch_size=32, shuffle=True)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=epochs, callbacks=callbacks, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(Digits(net.train()), loader)


@torch.no_grad()
def describe(name: str, net: nn.Module, data: TensorDataset) -> None:
    """Print how large a network is and how often it is right."""
    audio, labels = data.tensors
    accuracy = (net.eval()(audio).logits.argmax(dim=1) == labels).float().mean()
    print(f"{name:24} {sum(p.numel() for p in net.parameters()):8} parameters, accuracy {accuracy:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="five clips, few epochs: shows that it runs")
    fast = parser.parse_args().fast
    epochs = 3 if fast else 20
    training, test = clips(fast)
    config = HubertConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        layerdrop=0.0,
        apply_spec_augment=False,
        num_labels=10,
    )
    torch.manual_seed(0)
    teacher = HubertForSequenceClassification(config)
    fit(teacher, training, epochs, [])
    describe("teacher", teacher, test)

    # Stage 1: a copy learns its gates. Half of the parameters are to go; asked for from a third of the steps on.
    steps = epochs * -(-len(training) // 32)
    student = copy.deepcopy(teacher)
    kd, pruning = dphubert(
        teacher, path="net", groups=[(0,), (2, 4)], sparsity=0.5, sparsity_steps=max(1, steps // 3), learning_rate=0.05
    )
    fit(student, training, epochs, [kd, pruning])
    smaller = pruning.prune(student.eval())
    describe("pruned", smaller, test)

    # Stage 2: what is left is distilled on, with the linear layers of the first stage.
    fit(smaller, training, epochs, [dphubert_second_stage(kd)])
    describe("pruned and distilled on", smaller, test)
    shape = EncoderShape.of(smaller.hubert)
    print(f"heads {shape.heads}, units {shape.intermediate}, channels {shape.convolutions}")

    with tempfile.TemporaryDirectory() as folder:
        save_shaped(smaller, Path(folder))
        loaded = load_shaped(HubertForSequenceClassification, Path(folder))
    with torch.no_grad():
        audio = test.tensors[0][:4]
        print("loaded as saved:", torch.equal(loaded(audio).logits, smaller.eval()(audio).logits))


if __name__ == "__main__":
    main()
