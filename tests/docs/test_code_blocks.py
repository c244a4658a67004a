"""The Python blocks of the documents run as they stand, and the figures in them are those of the result files."""

import json
import re
from pathlib import Path
from statistics import mean, stdev

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLASSES = 5
ACCURACY, GAIN = r"(\d+\.\d ± \d+\.\d)", r"(?:([+-]\d+\.\d ± \d+\.\d) )?"
ACCURACIES = re.compile(
    rf"^\| `?([\w.]+)`? \| {ACCURACY} \| {GAIN}\| {ACCURACY} \| {GAIN}\|$",
    re.MULTILINE,
)

pytestmark = [
    # Lightning's advice about the tiny run that a document describes.
    pytest.mark.filterwarnings("ignore:Starting from v1.9.0, `tensorboardX` has been removed"),
]


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = timm.create_model("test_resnet", num_classes=CLASSES)

    def training_step(self, batch):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


class Data(L.LightningDataModule):
    def train_dataloader(self):
        images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(images, torch.arange(8) % CLASSES), batch_size=4)


def names_that_the_documents_use():
    images, labels = next(iter(Data().train_dataloader()))
    return {
        "datamodule": Data(),
        "images": images,
        "labels": labels,
        "module": Module(),
        "teacher": timm.create_model("test_vit", img_size=64, num_classes=CLASSES),
        "torch": torch,
    }


@pytest.fixture
def checkpoint(speech_net, tmp_path_factory):
    """Folder with a small speech encoder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    speech_net(layerdrop=0.1, apply_spec_augment=True).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/caching.md",
        "docs/compression.md",
        "docs/coreml.md",
        "docs/export.md",
        "docs/guide.md",
        "docs/keywords.md",
        "docs/qat.md",
        "docs/recognition.md",
        "docs/speech.md",
        "docs/selection.md",
        "docs/speech_compression.md",
        "docs/teachers.md",
    ],
)
def test_every_block_runs_after_those_before_it(document, checkpoint, audio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= 4
    padded, mask = audio(16000, 12000)
    namespace = names_that_the_documents_use() | {"audio": padded, "mask": mask, "checkpoint": checkpoint}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        # Blank lines in front, so that an error names the line of the document.
        exec(compile("\n" * line + block[1], document, "exec"), namespace)  # noqa: S102 - our own documents


def test_the_readme_shows_the_accuracies_as_they_were_measured():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    result = json.loads((ROOT / "benchmarks" / "results" / "fashion_mnist.json").read_text(encoding="utf-8"))
    shown = {name: (*figures,) for name, *figures in ACCURACIES.findall(readme)}
    assert len(shown) >= 5
    for name, figures in shown.items():
        measured = []
        for pair in result["pairs"].values():
            accuracies = {row["method"]: row.get("accuracy_last") for row in pair["rows"]}
            gains = [own - alone for own, alone in zip(accuracies[name], accuracies["alone"], strict=True)]
            gain = "" if name == "alone" else f"{mean(gains):+.1f} ± {stdev(gains):.1f}"
            measured += [f"{mean(accuracies[name]):.1f} ± {stdev(accuracies[name]):.1f}", gain]
        assert figures == (*measured,)
    for pair in result["pairs"].values():
        assert f"({pair['teacher']['accuracy']} %)" in readme
