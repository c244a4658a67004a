"""Distil a keyword spotter of 9,000 parameters and export it from waveform to class, front end included.

Run it: ``python examples/keyword_spotting.py``. It reads the twenty clips of Speech Commands that come with the
project: enough to see every step, not to learn to hear. ``--data`` names more of them, in the same form.
"""

import argparse
import io
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from digits import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import exporters
from exporters.profiling import ProfileOptions, profile
from lightning_kd import recipes
from lightning_kd.speech import AddNoise, LogMel, RandomShift, keyword_rates
from lightning_kd.students import BCResNet

CLIPS = Path(__file__).parents[1] / "tests" / "data" / "speech_commands.npz"
SECOND = 16_000


class Clips(L.LightningDataModule):
    """Clips of one second with their classes; no speaker is in both parts.

    Args:
        files: Where they are.
    """

    def __init__(self, files: list[Path]) -> None:
        super().__init__()
        waveforms, labels, is_test = [], [], []
        for file in files:
            with np.load(file) as arrays:
                content = arrays["flac"].tobytes()
                waveforms += [decoded(content[start:end]) for start, end in pairwise(arrays["offsets"])]
                labels += arrays["label"].tolist()
                is_test += arrays["is_test"].astype(bool).tolist()
                self.classes = [str(name) for name in arrays["classes"]]
        chosen = torch.tensor(is_test)
        clips, classes = torch.stack(waveforms), torch.tensor(labels)
        self.train, self.test = (TensorDataset(clips[part], classes[part]) for part in (~chosen, chosen))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        order = torch.Generator().manual_seed(0)
        return DataLoader(self.train, batch_size=min(64, len(self.train)), shuffle=True, generator=order)


def decoded(content: bytes) -> Tensor:
    """One clip, padded with silence or cut to a second."""
    samples = torch.from_numpy(soundfile.read(io.BytesIO(content), dtype="float32")[0])[:SECOND]
    return F.pad(samples, (0, SECOND - len(samples)))


class Spotter(L.LightningModule):
    """An ordinary classifier of waveforms. Augmentation comes before the network, so that a teacher hears it, too.

    Args:
        width: Width of the BC-ResNet.
        classes: Number of classes.
    """

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        self.augmentation = nn.Sequential(RandomShift(), AddNoise())
        self.net = nn.Sequential(OrderedDict(front_end=LogMel(), network=BCResNet(width, classes=classes)))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        waveforms, labels = batch
        return F.cross_entropy(self.net(self.augmentation(waveforms)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def train(width: float, clips: Clips, epochs: int, callbacks: list[L.Callback] | None = None) -> nn.Module:
    """Train a network, and print what it does on voices that it has not heard.

    Args:
        width: Width of the BC-ResNet.
        clips: The data.
        epochs: How long.
        callbacks: What takes part.

    Returns:
        The network, from waveform to class.
    """
    L.seed_everything(0, verbose=False)
    module = Spotter(width, len(clips.classes))
    quiet_trainer(epochs, callbacks).fit(module, clips)
    waveforms, labels = clips.test.tensors
    with torch.no_grad():
        logits = module.net.eval()(waveforms)
    background = [index for index, name in enumerate(clips.classes) if name.startswith("_")]
    rates = keyword_rates(logits, labels, background=background)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    print(f"BC-ResNet-{width:g}{' distilled' if callbacks else ''}: accuracy {accuracy:.3f}", end=", ")
    print(f"{rates.false_accepts_per_hour:.0f} false accepts per hour, {rates.false_reject_rate:.0%} missed")
    return module.net


def listen(artifact: exporters.Artifact, recording: np.ndarray, classes: list[str]) -> list[str]:
    """Classes in a recording of any length, from windows of a second that overlap by half.

    Args:
        artifact: The exported network.
        recording: Samples from -1 to 1.
        classes: Names of the classes.

    Returns:
        One class per window.
    """
    session, stream = exporters.load(artifact, threads=1), exporters.SlidingWindow(size=SECOND, hop=SECOND // 2)
    return [classes[int(session.run({"input": window})["output"].argmax())] for window in stream.push(recording)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="train and measure briefly")
    parser.add_argument("--data", nargs="+", type=Path, default=[CLIPS], help="files of clips (%(default)s)")
    arguments = parser.parse_args()
    clips, epochs = Clips(arguments.data), 2 if arguments.fast else 20

    teacher = train(2.0, clips, epochs)
    student = train(1.0, clips, epochs, [recipes.keyword_spotting(teacher, path="net")])

    options = ProfileOptions(min_runs=100, min_seconds=0.5, min_warm_up_seconds=0.1) if arguments.fast else None
    recording = torch.cat([waveform for waveform, _ in clips.test][:3]).numpy()
    with TemporaryDirectory() as folder:
        example = clips.test.tensors[0][:1]
        artifact = exporters.export(student, example, to="onnx", path=Path(folder) / "spotter.onnx")
        p50_ms = profile(artifact, threads=1, options=options).p50_ms.value
        print(
            f"{artifact.size_bytes} bytes, a second of sound in {p50_ms:.2f} ms: real-time factor {p50_ms / 1000:.5f}"
        )
        print(f"heard: {', '.join(listen(artifact, recording, clips.classes))}")


if __name__ == "__main__":
    main()
