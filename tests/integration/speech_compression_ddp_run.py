"""Run by test_speech_compression_ddp.py in two real processes: each rank writes what it ends with."""

import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset
from transformers import HubertConfig, HubertModel

from lightning_kd.recipes import dphubert, lighthubert
from lightning_kd.students import SearchSpace, SpeechSupernet, supernet_encoder

SPACE = SearchSpace(widths=(8, 16), heads=(1, 2), ratios=(1.0, 1.5), depths=(1, 2), head_width=8, convolutions=(8,) * 7)
SETTINGS = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
}


class Student(L.LightningModule):
    """Different weights on every rank, which DDP must make equal."""

    def __init__(self, net, spans=None):
        super().__init__()
        self.net = net
        self.spans = spans
        self.shapes = []

    def training_step(self, batch, batch_idx):
        if self.spans is None:
            self.net(batch[0])
        else:
            self.net(batch[0], mask_time_indices=self.spans.expand(len(batch[0]), -1))
            self.shapes.append(self.net.shape.to_dict())
        return torch.zeros(())

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def case(name, teacher):
    """The module and the callbacks under test."""
    if name == "pruning":
        net = HubertModel(HubertConfig(**SETTINGS, apply_spec_augment=False))
        net.masked_spec_embed.requires_grad_(False)
        callbacks = dphubert(
            teacher, path="net", groups=[(0,), (1, 2)], sparsity=0.5, sparsity_steps=2, learning_rate=0.1
        )
        return Student(net), list(callbacks)
    net = SpeechSupernet(supernet_encoder(HubertModel, HubertConfig(**SETTINGS), SPACE), SPACE)
    spans = torch.tensor([[True, False, True, False]])
    return Student(net, spans), lighthubert(teacher, path="net", seed=3)


def main(folder, name):
    """Train on this rank."""
    data = TensorDataset(torch.randn(16, 1600, generator=torch.Generator().manual_seed(1)))
    torch.manual_seed(7)
    teacher = HubertModel(HubertConfig(**SETTINGS))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", find_unused_parameters=False),
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(100 + trainer.global_rank)
    module, callbacks = case(name, teacher)
    trainer.callbacks.extend(callbacks)
    trainer.fit(module, DataLoader(data, batch_size=2))
    state = {"weights": dict(module.net.state_dict()), "shapes": module.shapes}
    state["callback"] = callbacks[1].state_dict()
    torch.save(state, Path(folder) / f"{name}-rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    for case_name in ("pruning", "supernet"):
        main(sys.argv[1], case_name)
