"""Ask a teacher once for every image and epoch, and train a student without it: what it costs and what it loses.

Run it: ``python examples/cached_teacher.py``
"""

import argparse
import tempfile
import time

import lightning as L
from digits import Classifier, Digits, convolutional, quiet_trainer, trained_teacher
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_kd import KnowledgeDistillation, LogitKD, recipes
from lightning_kd.teachers import CacheSpec, CacheWriter, SeededReplay, TeacherCache


class ShiftedDigits(Dataset):
    """The digits, moved by up to two pixels and turned a little: another image in every epoch."""

    def __init__(self) -> None:
        self.digits = Digits().training
        self.transform = v2.Compose([v2.RandomCrop(8, padding=1), v2.RandomRotation(10)])

    def __len__(self) -> int:
        """Return the number of digits."""
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a digit, moved at random."""
        image, label = self.digits[index]
        return self.transform(image), label


def train(name: str, kd: KnowledgeDistillation, data: Dataset, epochs: int) -> nn.Module:
    """Train a student from the same seed, and print how well and how fast."""
    L.seed_everything(1)
    student, trainer = convolutional(width=4), quiet_trainer(epochs, [kd])
    start = time.perf_counter()
    trainer.fit(Classifier(student), DataLoader(data, batch_size=64, shuffle=True), Digits().val_dataloader())
    seconds = time.perf_counter() - start
    print(f"{name:18} accuracy {trainer.callback_metrics['accuracy'].item():.3f}, {seconds:.1f} s")
    return student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 3 if parser.parse_args().fast else 15
    teacher, data, replay = trained_teacher(epochs), ShiftedDigits(), SeededReplay(seed=0)

    with tempfile.TemporaryDirectory() as folder:
        # Three probabilities per image and epoch, beside the seed of its augmentation: 16 bytes.
        spec = CacheSpec(top_k=3, views=epochs, replay=replay)
        CacheWriter(folder, teacher, data, spec).write(batch_size=256)
        cache = TeacherCache(folder)
        record = cache.contract.record
        print(f"{cache.contract.samples} images, {epochs} epochs, {record.size_bytes} bytes each: {record.dtype.names}")

        train("teacher cached:", recipes.tinyvit(cache, path="net"), cache.dataset(data, replay=replay), epochs)
    online = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(temperature=1.0)], task_weight=0.0)
    train("teacher running:", online, data, epochs)


if __name__ == "__main__":
    main()
