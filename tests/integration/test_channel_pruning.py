"""Channels that go to zero in a real fit beside distillation, and are removed after it."""

import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.testing import assert_close

from lightning_kd import FeatureKD, GradualChannelPruning, KnowledgeDistillation, LogitKD
from lightning_kd.callbacks.channel_pruning import ratio_at
from lightning_kd.compression import remove_zero_channels
from lightning_kd.errors import SetupError


@pytest.fixture
def student(classifier, cnn):
    """Three convolutions, so that channels of two are read by others."""

    class Student(classifier):
        def __init__(self):
            net = cnn(width=6)
            net.body = nn.Sequential(*(cnn(width=8).body[:3]), nn.Conv2d(8, 6, 3, padding=1), *net.body[1:])
            super().__init__(net)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.net.parameters(), lr=0.01, weight_decay=0.1)

    return Student


def distilled(teacher, epochs=2):
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), FeatureKD("body", "block")])
    return [kd, GradualChannelPruning(ratio=0.5, epochs=epochs, student="net")]


def zero_channels(module):
    """Of the first convolution, by the weights that read them."""
    return int(module.net.body[3].weight.eq(0).all(dim=3).all(dim=2).all(dim=0).sum())


def test_the_part_that_is_zero_grows_by_a_cubic_law():
    # 1 - (1 - 1/2)^3 = 7/8 of it after the first of two epochs.
    assert [ratio_at(epoch, ratio=0.8, epochs=2) for epoch in range(3)] == pytest.approx([0.7, 0.8, 0.8])


def test_channels_go_to_zero_and_are_removed_without_a_change(student, teacher, loader, trainer):
    module, seen = student(), []
    callbacks = distilled(teacher)
    callbacks[1].on_train_epoch_end = lambda *_: seen.append(zero_channels(module))
    trainer(max_epochs=2, callbacks=callbacks).fit(module, loader())
    # int(8 * 0.4375) of 8 channels, then 4; of the 6 behind them int(6 * 0.5).
    assert seen == [3, 4]
    module.eval()
    x = torch.randn(4, 3, 8, 8)
    smaller, report = remove_zero_channels(module.net, x)
    assert {name: len(channels) for name, channels in report.removed.items()} == {"body.0": 4, "body.3": 3}
    assert_close(smaller(x), module.net(x), rtol=1e-4, atol=1e-6)


def test_resumed_run_equals_an_unbroken_one(student, teacher, loader, trainer, tmp_path):
    def start(seed):
        torch.manual_seed(seed)
        return student(), distilled(teacher, epochs=3)

    whole, callbacks = start(5)
    trainer(max_epochs=2, callbacks=callbacks).fit(whole, loader())
    broken, callbacks = start(5)
    first = trainer(max_epochs=1, callbacks=callbacks)
    first.fit(broken, loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    state = torch.load(tmp_path / "epoch.ckpt", weights_only=True)["state_dict"]
    assert list(state) == list(student().state_dict())
    resumed, callbacks = start(99)
    trainer(max_epochs=2, callbacks=callbacks).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`ratio` must be above 0 and below 1, got 0"):
        GradualChannelPruning(ratio=0, epochs=2)
    with pytest.raises(ValueError, match=r"`importance` must be one of .* got 'taylor'"):
        GradualChannelPruning(ratio=0.5, epochs=2, importance="taylor")


def test_averages_over_the_pruning_are_refused(student, teacher, loader, trainer):
    with pytest.raises(SetupError, match="WeightAveraging, which averages weights from before"):
        trainer(callbacks=[*distilled(teacher), WeightAveraging()]).fit(student(), loader())
