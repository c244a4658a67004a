"""Keyword spotters learn from a large encoder, and from decisions, on the waveform that both hear."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from lightning_kd import Distiller, recipes
from lightning_kd.errors import SetupError
from lightning_kd.frames import conv_lengths
from lightning_kd.losses import soft_target_kl
from lightning_kd.objectives import PooledCosineKD
from lightning_kd.speech import MFCC, LogMel
from lightning_kd.students import BCResNet, KeywordTransformer

CLASSES, SAMPLES = 4, 1600
WAVEFORMS = 0.1 * torch.randn(4, SAMPLES, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(WAVEFORMS, torch.arange(4))


@pytest.fixture(scope="module")
def hubert():
    """A classifier of waveforms whose padding changes nothing: layer norms in its front."""
    from transformers import HubertConfig, HubertForSequenceClassification

    torch.manual_seed(0)
    return HubertForSequenceClassification(
        HubertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            classifier_proj_size=8,
            conv_dim=(8,) * 7,
            feat_extract_norm="layer",
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            num_labels=CLASSES,
        )
    ).eval()


def bc_resnet():
    return nn.Sequential(LogMel(), BCResNet(classes=CLASSES))


def transformer():
    network = KeywordTransformer(64, classes=CLASSES, frames=8, depth=1, distilled=True)
    return nn.Sequential(MFCC(), network)


def test_scores_and_pooled_features_of_an_encoder_teach_a_bc_resnet(hubert, learn_alone):
    student = bc_resnet()
    kd = recipes.keyword_spotting(
        hubert, path="net", share=0.9, embedding="1.embedding", hidden="hubert.encoder.layers.1"
    )
    assert kd.task_weight == 0.1
    _, metrics = learn_alone(student, [kd], dataset=DATA)
    assert metrics["kd/logit"] > 0
    assert 0 < metrics["kd/pooled_cosine"] < 2
    assert list(student.state_dict()) == list(bc_resnet().state_dict())


def test_decisions_of_an_encoder_teach_the_distillation_token(hubert, learn_alone):
    student = transformer()
    kd = recipes.kwt(hubert, path="net")
    (term,) = kd.objectives
    assert (kd.task_weight, term.weight, term.kind, term.label_smoothing) == (0.5, 0.5, "hard", 0.1)
    module, metrics = learn_alone(student, [kd], dataset=DATA)
    assert metrics["kd/deit"] > 0
    assert {"net.1.head_dist.weight", "net.1.tokens"} <= module.gradients
    assert "net.1.head.weight" not in module.gradients


class Says(nn.Module):
    """A network whose logits are its parameters."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits], dtype=torch.float64))

    def forward(self, _):
        return self.logits


def test_the_scores_equal_the_published_value():
    # methods/speech.md, keyword spotting: label 0, temperature 4, half and half.
    student, teacher = Says(2.0, 1.0, 0.0), Says(0.0, 3.0, 0.0)
    kd = recipes.keyword_spotting(teacher)
    distiller = Distiller(student, teacher, kd.objectives, task_weight=kd.task_weight)
    with distiller.watch() as calls:
        logits = student(torch.zeros(1, 1, dtype=torch.float64))
    losses = distiller.losses(nn.functional.cross_entropy(logits, torch.tensor([0])), calls)
    divergence = soft_target_kl(student.logits, teacher.logits, temperature=4.0)
    assert divergence.item() == pytest.approx(1.437925934, abs=1e-9)
    assert losses.task.item() == pytest.approx(0.407605964, abs=1e-9)
    assert losses.total.item() == pytest.approx(0.922765949, abs=1e-9)


class Listener(nn.Module):
    """A student that is told, like its teacher, which samples are audio."""

    def __init__(self):
        super().__init__()
        self.frames = nn.Conv1d(1, 16, 400, stride=320)
        self.last = nn.Identity()

    def frame_lengths(self, lengths):
        return conv_lengths(lengths, [(400, 320)])

    def forward(self, input_values, attention_mask=None):
        return self.last(self.frames(input_values[:, None]).transpose(1, 2))


def test_padding_changes_neither_the_pooled_term_nor_its_gradient(hubert):
    lengths = [1600, 2900, 4800]
    student = Listener()
    audio = [0.1 * torch.randn(length) for length in lengths]
    padded = nn.utils.rnn.pad_sequence(audio, batch_first=True)
    mask = (torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]).long()

    def term(waveform, attention_mask):
        objective = PooledCosineKD("last", "hubert.encoder.layers.1")
        distiller = Distiller(student, hubert, [objective]).build([{"input_values": waveform}])
        with distiller.watch() as calls:
            student(input_values=waveform, attention_mask=attention_mask)
        loss = distiller.losses(torch.zeros(()), calls).terms["pooled_cosine"]
        return loss, torch.autograd.grad(loss, student.frames.weight)[0]

    alone = [term(each[None], torch.ones(1, len(each), dtype=torch.long)) for each in audio]
    together, gradient = term(padded, mask)
    assert_close(together, torch.stack([loss for loss, _ in alone]).mean(), rtol=1e-4, atol=1e-6)
    assert_close(gradient, torch.stack([each for _, each in alone]).mean(0), rtol=1e-3, atol=1e-6)


def test_places_must_be_given_for_both(hubert):
    with pytest.raises(SetupError, match=r"must be given together, got '1\.embedding' and None"):
        recipes.keyword_spotting(hubert, embedding="1.embedding")
    with pytest.raises(ValueError, match=r"`share` must be between 0 and 1, got 1\.5"):
        recipes.keyword_spotting(hubert, share=1.5)
