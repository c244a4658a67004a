"""A cached teacher keeps the callback's laws: exact equality, checkpoints, resuming, two processes, nothing left."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from lightning_kd import CKAKD, FeatureKD, KnowledgeDistillation, LogitKD, recipes
from lightning_kd.errors import SetupError
from lightning_kd.teachers.cache import CacheSpec, CacheWriter, SeededReplay, TeacherCache

SAMPLES, BATCH = 24, 4
SCRIPT = Path(__file__).with_name("cache_ddp_run.py")


class Images:
    """Images under random transforms."""

    def __init__(self):
        self.images = torch.rand(SAMPLES, 3, 12, 12, generator=torch.Generator().manual_seed(4))
        self.transform = v2.Compose([v2.RandomCrop(8), v2.RandomHorizontalFlip()])

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return self.transform(self.images[index]), index % 5


@pytest.fixture
def data(loader):
    return loader(samples=SAMPLES, batch_size=BATCH).dataset


@pytest.fixture
def in_three(classifier):
    """The user's module, taking images and labels from a batch that has more."""

    class Module(classifier):
        def training_step(self, batch, batch_idx):
            x, y, *_ = batch
            return F.cross_entropy(self.net(x), y)

    return Module


def write(folder, teacher, dataset, **spec):
    CacheWriter(folder, teacher, dataset, CacheSpec(precision="float32", **spec)).write(batch_size=BATCH)
    return TeacherCache(folder)


@pytest.mark.parametrize("features", [(), ("block",)])
def test_a_cache_of_all_classes_trains_exactly_as_the_teacher_itself(
    features, classifier, in_three, cnn, teacher, data, trainer, weights, tmp_path
):
    cache = write(tmp_path / "cache", teacher, data, top_k=5, features=features)

    def objectives():
        extra = [FeatureKD("body", "block"), CKAKD("body", "block")] if features else []
        return [LogitKD(), *extra]

    torch.manual_seed(3)
    start = cnn()
    results = []
    for taught, module, source in ((teacher, classifier, data), (cache, in_three, cache.dataset(data))):
        fitted = module(copy.deepcopy(start))
        torch.manual_seed(4)  # adapters are drawn in fit
        kd = KnowledgeDistillation(taught, student="net", objectives=objectives())
        trainer(max_epochs=2, callbacks=[kd]).fit(fitted, DataLoader(source, batch_size=BATCH))
        results.append(weights(fitted.net) | kd.state_dict()["adapters"])
    assert not torch.equal(results[0]["head.weight"], start.head.weight)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


class FullPrecision(nn.Module):
    """A teacher that runs in float32 also where the student does not, as it does when its outputs are written."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.net(x)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_under_mixed_precision_a_cache_trains_as_the_teacher_in_full_precision(
    precision, precision_options, classifier, in_three, cnn, teacher, data, trainer, weights, tmp_path
):
    cache = write(tmp_path / "cache", teacher, data, top_k=5)
    torch.manual_seed(3)
    start = cnn()
    results = []
    for taught, module, source in ((FullPrecision(teacher), classifier, data), (cache, in_three, cache.dataset(data))):
        fitted = module(copy.deepcopy(start))
        kd = KnowledgeDistillation(taught, student="net", objectives=[LogitKD()])
        made = trainer(max_epochs=2, callbacks=[kd], **precision_options(precision))
        made.fit(fitted, DataLoader(source, batch_size=BATCH))
        results.append(weights(fitted.net))
    assert not torch.equal(results[0]["head.weight"], start.head.weight)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_seeded_augmentation_trains_exactly_as_the_teacher_on_the_same_pixels(
    classifier, in_three, cnn, teacher, trainer, weights, tmp_path
):
    replay, epochs = SeededReplay(9), 3
    cache = write(tmp_path / "cache", teacher, Images(), top_k=None, views=epochs, replay=replay)
    torch.manual_seed(3)
    start = cnn()
    cached = in_three(copy.deepcopy(start))
    kd = KnowledgeDistillation(cache, student="net", objectives=[LogitKD()])
    source = DataLoader(cache.dataset(Images(), replay=replay), batch_size=BATCH)
    trainer(max_epochs=epochs, callbacks=[kd]).fit(cached, source)

    # The same pixels of all epochs, one after the other, for a teacher that runs.
    drawn = [replay.draw(Images(), index, view)[0] for view in range(epochs) for index in range(SAMPLES)]
    pixels = TensorDataset(torch.stack([x for x, _ in drawn]), torch.tensor([y for _, y in drawn]))

    class OneEpoch(classifier):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.net.parameters(), lr=self.lr, momentum=0.9)
            steps = SAMPLES // BATCH
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9 ** (step // steps))
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    online = OneEpoch(copy.deepcopy(start))
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD()])
    trainer(max_epochs=1, callbacks=[kd]).fit(online, DataLoader(pixels, batch_size=BATCH))
    for name, value in weights(online.net).items():
        assert torch.equal(value, cached.net.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("saved", ["epoch_end", "validation_end"])
def test_a_resumed_run_takes_the_views_of_an_unbroken_one(
    workers, saved, in_three, cnn, teacher, trainer, weights, loader, tmp_path
):
    replay, folder = SeededReplay(), tmp_path / "cache"
    write(folder, teacher, Images(), top_k=3, views=3, replay=replay)

    class Validated(in_three):
        def validation_step(self, batch, batch_idx):
            self.net(batch[0])

    def start(**options):
        torch.manual_seed(5)
        cache = TeacherCache(folder)
        kd = KnowledgeDistillation(cache, student="net", objectives=[LogitKD()])
        source = DataLoader(cache.dataset(Images(), replay=replay), batch_size=BATCH, num_workers=workers)
        saver = ModelCheckpoint(
            options.pop("folder"),
            filename="{epoch}",
            save_top_k=-1,
            save_on_train_epoch_end=saved == "epoch_end",
        )
        module = Validated(cnn())
        made = trainer(callbacks=[kd, saver], enable_checkpointing=True, num_sanity_val_steps=0, **options)
        return module, made, (source, loader())

    module, made, data = start(folder=tmp_path / "whole", max_epochs=3)
    made.fit(module, *data)
    broken, made, data = start(folder=tmp_path / "broken", max_epochs=1)
    made.fit(broken, *data)
    resumed, made, data = start(folder=tmp_path / "broken", max_epochs=3)
    made.fit(resumed, *data, ckpt_path=tmp_path / "broken" / "epoch=0.ckpt")
    assert made.global_step == 3 * SAMPLES // BATCH
    for name, value in weights(module.net).items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_checkpoints_load_strictly_into_the_bare_module_and_nothing_is_left(
    in_three, classifier, cnn, teacher, data, trainer, tmp_path
):
    cache = write(tmp_path / "cache", teacher, data, top_k=3, features=["block"])
    kd = KnowledgeDistillation(cache, student="net", objectives=[LogitKD(), FeatureKD("body", "block")])
    module = in_three(cnn())
    for _ in range(2):
        fitted = trainer(callbacks=[kd])
        fitted.fit(module, DataLoader(cache.dataset(data), batch_size=BATCH))
        assert "training_step" not in vars(module)
        assert list(dict(module.named_children())) == ["net"]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    fitted.save_checkpoint(tmp_path / "student.ckpt")
    state = torch.load(tmp_path / "student.ckpt", weights_only=True)["state_dict"]
    classifier(cnn()).load_state_dict(state, strict=True)


def test_data_without_records_are_refused_in_the_first_step(classifier, teacher, data, loader, trainer, tmp_path):
    cache = write(tmp_path / "cache", teacher, data, top_k=3)
    kd = KnowledgeDistillation(cache, student="net", objectives=[LogitKD()])
    with pytest.raises(SetupError, match="holds no records of this cache"):
        trainer(callbacks=[kd]).fit(classifier(), loader())


@pytest.mark.parametrize("recipe", ["tinyvit", "fkd"])
def test_recipes_learn_from_soft_labels_alone(recipe, in_three, cnn, teacher, trainer, tmp_path):
    replay = SeededReplay()
    cache = write(tmp_path / "cache", teacher, Images(), top_k=3, replay=replay)
    kd = getattr(recipes, recipe)(cache, path="net")
    (term,) = kd.objectives
    assert (kd.task_weight, term.temperature, term.weight) == (0.0, 1.0, 1.0)
    module, made = in_three(cnn()), trainer(callbacks=[kd])
    before = copy.deepcopy(module.net.state_dict())
    made.fit(module, DataLoader(cache.dataset(Images(), replay=replay), batch_size=BATCH))
    assert not torch.equal(before["head.weight"], module.net.head.weight)
    assert made.callback_metrics["kd/total"] == made.callback_metrics["kd/soft_labels"]


@pytest.mark.slow
def test_two_processes_share_a_cache_and_end_with_identical_weights(tmp_path):
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in first["weights"].items():
        assert "running" in name or torch.equal(value, second["weights"][name]), name
    for epoch in (slice(0, SAMPLES // 2), slice(SAMPLES // 2, SAMPLES)):
        # What comes before was seen to build the adapters.
        seen = [index for rank in (first, second) for index in rank["seen"][-SAMPLES:][epoch]]
        assert sorted(seen) == list(range(SAMPLES))
    assert first["epoch"] == second["epoch"] == 2
