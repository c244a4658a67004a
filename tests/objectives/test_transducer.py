"""Claims about the objective between transducers."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import ShapeError
from lightning_kd.losses import transducer_kl
from lightning_kd.objectives import TransducerKD
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation

CLASSES, BLANK = 5, 0
LABELS = torch.tensor([[1, 2, 3], [4, -100, -100]])
TARGETS, COUNTS = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])
LENGTHS = torch.tensor([6, 4])


class Joint(nn.Module):
    """A transducer that only has what the objective looks at."""

    def __init__(self, width=8):
        super().__init__()
        self.encoder, self.predictor = nn.Linear(3, width), nn.Embedding(CLASSES, width)
        self.joint = nn.Linear(width, CLASSES)

    def forward(self, frames, lengths, targets):
        before = nn.functional.pad(targets.clamp(min=0), (1, 0))
        return self.joint(torch.tanh(self.encoder(frames)[:, :, None] + self.predictor(before)[:, None]))


@pytest.mark.parametrize("reduction", ["node", "utterance", "sum"])
def test_the_term_is_the_loss_on_lengths_and_transcripts(reduction):
    student, teacher = Joint(), Joint(16)
    term = TransducerKD(blank=BLANK, lengths="lengths", reduction=reduction)
    distiller = Distiller(student, teacher, [term])
    inputs = (torch.randn(2, 6, 3), LENGTHS, TARGETS)
    with distiller.watch() as calls:
        own = student(*inputs)
    losses = distiller.losses(own.sum() * 0, calls, batch=(None, LABELS))
    options = {"blank": BLANK, "frames": LENGTHS, "labels": COUNTS, "reduction": reduction}
    assert_close(losses.terms["transducer"], transducer_kl(own, teacher(*inputs), TARGETS, **options))
    losses.total.backward()
    assert student.encoder.weight.grad.ne(0).any()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_lengths_every_frame_counts():
    own, other = torch.randn(2, 2, 6, 4, CLASSES).unbind()
    calls = [Observation(Inputs((torch.zeros(2, 6, 3),)), logits) for logits in (own, other)]
    expected = transducer_kl(own, other, TARGETS, blank=BLANK, labels=COUNTS)
    assert_close(TransducerKD(blank=BLANK)(*calls, Step(batch=(None, LABELS))), expected)


def test_refuses_lattices_and_labels_that_do_not_fit():
    own = torch.randn(2, 6, 4, CLASSES)

    def call(logits):
        return Observation(Inputs((torch.zeros(2, 6, 3),)), logits)

    with pytest.raises(ShapeError, match=r"got \(2, 6, 4, 5\) and \(2, 6, 4, 4\)"):
        TransducerKD()(call(own), call(own[..., :4]), Step(batch=(None, LABELS)))
    with pytest.raises(ShapeError, match=r"hold up to 3 classes and the lattice has room for 2"):
        TransducerKD()(call(own[:, :, :3]), call(own[:, :, :3]), Step(batch=(None, LABELS)))
    with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'mean'"):
        TransducerKD(reduction="mean")
