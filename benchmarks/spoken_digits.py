"""Accuracy of a two-layer HuBERT on spoken digits: trained alone, cut out of its teacher, and distilled from it first.

The teacher is a small HuBERT (six layers) that is trained on the digits of five speakers; a sixth, theo, is heard in
the test only. Students have its convolutions' form and two layers, without the LayerNorm in front of the projection:

* ``alone``: random weights, trained on the digits.
* ``inherited``: starts with the teacher's front and first two layers, and is trained on the digits.
* ``distilled``: starts likewise, learns to predict three layers of the teacher (the recipe `distilhubert`, without any
  label, on the same clips), and is then trained on the digits as the others are.

Labelled training is the same for all. ``frozen`` in a row is the accuracy of a linear layer on the mean of the frames
of a student that is not trained any more, for ``distilled`` after distillation alone. The sampling rate is 8 kHz, a
frame 20 ms. Nothing was tuned on the held-out speaker; figures of one speaker vary by more than their seeds do.
"""

import argparse
import time
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from _common import RESULTS, deliver, machine, options, print_table, silent_trainer, versions, without_lightning_advice
from _spoken_digits_data import SAMPLE_RATE_HZ, Clips, read_spoken_digits
from _training import mean, spread
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import HubertConfig, HubertForSequenceClassification, HubertModel

from lightning_kd import recipes
from lightning_kd.speech import LengthBucketSampler, PadAudio
from lightning_kd.students import distilhubert_student

METHODS = ("alone", "inherited", "distilled")
LAYERS = (2, 4, 6)
BATCH, LEARNING_RATE = 32, 1e-3
SHORTEST = 240  # samples that the first frame is made of
COLLATE = PadAudio(sample_rate=SAMPLE_RATE_HZ, shortest=SHORTEST, standardize=True)
Batch = dict[str, Tensor]


def config(layers: int) -> HubertConfig:
    """Settings of the teacher, or of a network of so many layers."""
    return HubertConfig(
        hidden_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=192,
        conv_dim=(32,) * 6,
        conv_kernel=(10, 3, 3, 3, 3, 2),
        conv_stride=(5, 2, 2, 2, 2, 2),
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=8,
        classifier_proj_size=96,
        num_labels=10,
        layerdrop=0.0,
        apply_spec_augment=False,
        feat_proj_layer_norm=layers == max(LAYERS),
    )


class Scheduled(L.LightningModule):
    """A module with AdamW and one cycle of the learning rate."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, warmed up over a tenth of the training."""
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class Digits(Scheduled):
    """Trains a classifier on the labels."""

    def training_step(self, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        labels = batch.pop("labels")
        return F.cross_entropy(self.net(**batch).logits, labels)


class Imitation(Scheduled):
    """Trains an encoder on what a callback adds; labels are not read."""

    def training_step(self, batch: Batch) -> Tensor:
        """Run the encoder and return 0."""
        batch.pop("labels")
        hidden = self.net(**batch).last_hidden_state
        return hidden.new_zeros(())


class Bench:
    """Trains and tests; remembers the data.

    Args:
        arguments: Parsed options.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        self.train, self.test = read_spoken_digits(most=120 if arguments.quick else None)
        self.epochs = (1, 1, 1) if arguments.quick else tuple(arguments.epochs)

    def fit(self, module: L.LightningModule, epochs: int, seed: int, callbacks: list[L.Callback]) -> None:
        """Train ``module`` on batches of similar length, in an order that follows from ``seed``."""
        sampler = LengthBucketSampler(self.train.lengths, batch_size=BATCH, noise=0.3, seed=seed)
        loader = DataLoader(self.train, batch_sampler=sampler, collate_fn=COLLATE)
        with without_lightning_advice():
            trainer = silent_trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks, gradient_clip_val=5.0)
            trainer.fit(module, loader)

    def teacher(self) -> nn.Module:
        """A trained teacher."""
        L.seed_everything(0, verbose=False)
        net = HubertForSequenceClassification(config(max(LAYERS)))
        self.fit(Digits(net), self.epochs[0], 0, [])
        return net.eval()

    def student(self, method: str, teacher: nn.Module, seed: int) -> dict[str, Any]:
        """Train one student and return its record."""
        L.seed_everything(seed, verbose=False)
        net = HubertForSequenceClassification(config(2))
        started = time.perf_counter()
        if method != "alone":
            net.hubert = distilhubert_student(teacher)
        if method == "distilled":
            kd = recipes.distilhubert(teacher.hubert, path="net", layers=LAYERS)
            self.fit(Imitation(net.hubert), self.epochs[1], seed, [kd])
        frozen = self.probe(net.hubert)
        self.fit(Digits(net), self.epochs[2], seed, [])
        seconds = round(time.perf_counter() - started, 1)
        return {"method": method, "seed": seed, "accuracy": self.accuracy(net), "frozen": frozen, "wall_s": seconds}

    @torch.no_grad()
    def accuracy(self, net: nn.Module) -> float:
        """Share of the held-out speaker's digits that are heard right, per cent."""
        right = [net.eval()(**_inputs(batch)).logits.argmax(1) == batch["labels"] for batch in _batches(self.test)]
        return _per_cent(torch.cat(right))

    def probe(self, encoder: HubertModel) -> float:
        """Accuracy of a linear layer on the pooled frames of an encoder as it is, per cent."""
        (x, y), (test_x, test_y) = (_pooled(encoder, part) for part in (self.train, self.test))
        center, scale = x.mean(0), x.std(0) + 1e-6
        layer = nn.Linear(x.shape[1], 10)
        optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            penalty = 1e-3 * layer.weight.square().sum()
            loss = F.cross_entropy(layer((x - center) / scale), y) + penalty
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            return _per_cent(layer((test_x - center) / scale).argmax(1) == test_y)


def _batches(clips: Clips) -> DataLoader[Any]:
    sampler = LengthBucketSampler(clips.lengths, batch_size=100, noise=0.0)
    return DataLoader(clips, batch_sampler=sampler, collate_fn=COLLATE)


def _inputs(batch: Batch) -> Batch:
    return {name: value for name, value in batch.items() if name != "labels"}


@torch.no_grad()
def _pooled(encoder: HubertModel, clips: Clips) -> tuple[Tensor, Tensor]:
    """Mean of the valid frames of every clip, and its label."""
    rows, labels = [], []
    encoder.eval()
    for batch in _batches(clips):
        hidden = encoder(**_inputs(batch)).last_hidden_state
        lengths = encoder._get_feat_extract_output_lengths(batch["attention_mask"].sum(1))  # noqa: SLF001 - its only way
        valid = torch.arange(hidden.shape[1]) < lengths[:, None]
        rows.append((hidden * valid[..., None]).sum(1) / lengths[:, None])
        labels.append(batch["labels"])
    encoder.train()
    return torch.cat(rows), torch.cat(labels)


def _per_cent(right: Tensor) -> float:
    return round(100.0 * right.double().mean().item(), 2)


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per method; the gain is the mean of differences to the student alone of the same seed, in points."""
    alone = {run["seed"]: run["accuracy"] for run in runs if run["method"] == "alone"}
    rows = []
    for method in METHODS:
        own = [run for run in runs if run["method"] == method]
        accuracies, gains = [run["accuracy"] for run in own], [run["accuracy"] - alone[run["seed"]] for run in own]
        row = {"method": method, "seeds": [run["seed"] for run in own], "accuracy_last": accuracies}
        row |= {"mean_last": mean(accuracies), "spread_last": spread(accuracies)}
        row |= {"gain": mean(gains), "gain_spread": spread(gains)}
        row |= {"frozen": [run["frozen"] for run in own], "mean_frozen": mean([run["frozen"] for run in own])}
        rows.append(row | {"wall_s": mean([run["wall_s"] for run in own])})
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--epochs", nargs=3, type=int, default=[6, 4, 3], help="of the teacher, of distillation, of the students"
    )
    arguments = parser.parse_args()
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    bench, started = Bench(arguments), time.perf_counter()
    teacher = bench.teacher()
    networks = {"teacher": teacher, "student": HubertForSequenceClassification(config(2))}
    result = {"machine": machine(), "versions": versions(), "epochs": bench.epochs, "batch": BATCH}
    result |= {"clips": {"train": len(bench.train), "test": len(bench.test)}, "held_out": "theo", "layers": LAYERS}
    result["parameters"] = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    result["teacher"] = {"accuracy": bench.accuracy(teacher), "frozen": bench.probe(teacher.hubert)}
    runs = [bench.student(method, teacher, seed) for seed in seeds for method in METHODS]
    result |= {"rows": summarise(runs), "wall_s": round(time.perf_counter() - started, 1)}
    figures = [
        [row["method"], *(f"{row[key]:.1f}" for key in ("mean_last", "gain", "mean_frozen")), str(row["accuracy_last"])]
        for row in result["rows"]
    ]
    title = f"Spoken digits of theo, %; teacher {result['teacher']['accuracy']}"
    print_table(title, ["student", "mean", "gain", "frozen", "by seed"], figures)
    deliver(result, arguments, default=None if arguments.quick else RESULTS / "spoken_digits.json")


if __name__ == "__main__":
    main()
