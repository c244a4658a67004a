"""A supernet in a real fit: what is computed at which step, and both stages of LightHuBERT."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import ElasticSampling
from lightning_kd.callbacks.elastic_sampling import step_generator
from lightning_kd.errors import SetupError
from lightning_kd.recipes import lighthubert
from lightning_kd.speech import SpanMask
from lightning_kd.students import (
    SearchSpace,
    SpeechSupernet,
    find_subnet,
    set_lengths,
    supernet_encoder,
    with_length_adaptation,
)

SPACE = SearchSpace(widths=(8, 16), heads=(1, 2), ratios=(1.0, 1.5), depths=(1, 2), head_width=8, convolutions=(8,) * 7)
FRAMES = 6


class Listener(L.LightningModule):
    """What a user has: a supernet, audio, and the spans that each step hides."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.spans = SpanMask(share=0.5, longest=3)
        self.trained = []

    def training_step(self, batch, batch_idx):
        spans = self.spans(torch.full((len(batch[0]),), FRAMES), FRAMES)
        self.net(batch[0], mask_time_indices=spans)
        self.trained.append(self.net.shape)
        return torch.zeros(())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Validated(Listener):
    """Remembers what validated."""

    def validation_step(self, batch, batch_idx):
        self.validated = self.net.shape


@pytest.fixture
def supernet(speech_net):
    plain = speech_net(apply_spec_augment=True)
    return SpeechSupernet(supernet_encoder(type(plain), plain.config, SPACE), SPACE)


@pytest.fixture
def teacher(speech_net):
    return speech_net(num_hidden_layers=2)


@pytest.fixture
def batches():
    audio = torch.randn(8, 2000, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(audio), batch_size=2)


def test_both_stages_train_and_a_sub_network_is_left(supernet, teacher, batches, trainer):
    module = Listener(supernet)
    trainer(callbacks=lighthubert(teacher, path="net", stage=1)).fit(module, batches)
    assert set(module.trained) == {SPACE.largest}
    first = {name: value.clone() for name, value in supernet.state_dict().items()}
    module = Validated(supernet)
    second = trainer(max_epochs=2, callbacks=lighthubert(teacher, path="net", stage=2, seed=5))
    second.fit(module, batches, batches)
    assert module.trained == [SPACE.sample(step_generator(5, step)) for step in range(8)]
    assert len(set(module.trained)) > 1
    assert module.validated == SPACE.largest
    assert supernet.shape == SPACE.largest
    assert any(not torch.equal(value, first[name]) for name, value in supernet.state_dict().items())
    assert second.callback_metrics["lighthubert_2/lighthubert"].isfinite()
    shape = find_subnet(supernet, parameters=supernet.parameters_of(SPACE.largest) - 1, samples=50)
    assert supernet.eval().extract(shape)(batches.dataset[:2][0]).last_hidden_state.shape[1] == FRAMES


def test_batches_of_one_step_see_one_sub_network(supernet, teacher, batches, trainer):
    module = Listener(supernet)
    fit = trainer(callbacks=lighthubert(teacher, path="net", seed=1), accumulate_grad_batches=2)
    fit.fit(module, batches)
    assert module.trained[0] == module.trained[1]
    assert module.trained[2] == module.trained[3]
    assert module.trained[::2] == [SPACE.sample(step_generator(1, step)) for step in range(2)]


def test_lengths_of_a_length_adaptive_encoder_are_drawn_too(speech_net, batches, trainer):
    net, keep = with_length_adaptation(speech_net()), []

    class Plain(Listener):
        def training_step(self, batch, batch_idx):
            keep.append(self.net.encoder.keep)
            return self.net(batch[0]).last_hidden_state.square().mean()

    trainer(callbacks=[ElasticSampling(student="net")]).fit(Plain(net), batches)
    assert len(set(keep)) == 4
    assert net.encoder.keep == (1.0, 1.0, 1.0)
    set_lengths(net, (0.5, 0.5, 0.5))


def test_refuses_a_student_that_is_not_elastic(teacher, batches, trainer):
    with pytest.raises(SetupError, match="exactly one elastic network, such as a SpeechSupernet, found 0"):
        trainer(callbacks=[ElasticSampling(student="net")]).fit(Listener(teacher), batches)
    with pytest.raises(ValueError, match="`seed` must be a whole number from 0 and below 2147483648, got -1"):
        ElasticSampling(seed=-1)
    with pytest.raises(ValueError, match="`stage` must be one of 1, 2, got 3"):
        lighthubert(teacher, stage=3)
