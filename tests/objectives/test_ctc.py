"""Claims about objectives between CTC networks: blanks, padding, frame rates, transcripts, real training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller, KnowledgeDistillation
from lightning_kd.decoding import beam_search, greedy_search
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import (
    AllFrames,
    EliminateBlanks,
    KeepAround,
    WidenAround,
    ctc_hypotheses,
    ctc_negative_log_likelihood,
    frame_kl,
    guided_ctc,
    select_frames,
)
from lightning_kd.objectives import CTCKD, CTCSequenceKD, GuidedCTCKD, IntermediateCTCKD
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation

CLASSES, BLANK = 5, 0
LENGTHS = torch.tensor([8, 5])
MASK = torch.arange(8) < LENGTHS[:, None]


def call(logits, lengths=LENGTHS):
    mask = (torch.arange(logits.shape[1]) < lengths[:, None]).long() if lengths is not None else None
    kwargs = {} if mask is None else {"attention_mask": mask}
    return Observation(Inputs((torch.zeros(2, logits.shape[1], 3),), kwargs), logits)


@pytest.fixture
def logits():
    return torch.randn(2, 2, 8, CLASSES).unbind()


@pytest.mark.parametrize("selection", [None, AllFrames(), EliminateBlanks(), KeepAround(2, 0)], ids=str)
@pytest.mark.parametrize("reduction", ["frame", "utterance"])
def test_the_term_is_the_divergence_on_the_selected_frames(logits, selection, reduction):
    student, teacher = logits
    chosen = select_frames(teacher, MASK, blank=BLANK, selection=selection)
    term = CTCKD(selection=selection, blank=BLANK, temperature=3.0, reduction=reduction)
    expected = frame_kl(student, teacher, chosen, temperature=3.0, reduction=reduction)
    assert_close(term(call(student), call(teacher), Step()), expected)


def test_padding_counts_if_it_is_asked_for(logits):
    student, teacher = logits
    term = CTCKD(selection=AllFrames(), blank=BLANK, mask_padding=False)
    assert_close(term(call(student), call(teacher), Step()), frame_kl(student, teacher))
    without = CTCKD(selection=AllFrames(), blank=BLANK)
    assert_close(without(call(student, None), call(teacher, None), Step()), frame_kl(student, teacher))


def test_lengths_can_be_an_argument(logits):
    student, teacher = logits
    inputs = Inputs((torch.zeros(2, 8, 3), LENGTHS))
    calls = [Observation(inputs, value) for value in (student, teacher)]
    expected = frame_kl(student, teacher, MASK)
    assert_close(CTCKD(selection=AllFrames(), blank=BLANK, lengths=1)(*calls, Step()), expected)


def test_a_log_prior_moves_the_selection(logits):
    student, teacher = logits
    prior = [5.0, 0.0, 0.0, 0.0, 0.0]
    term = CTCKD(selection=EliminateBlanks(), blank=BLANK, log_prior=prior)
    assert_close(term(call(student), call(teacher), Step()), frame_kl(student, teacher, MASK))


def test_the_selection_follows_the_epoch(logits):
    student, teacher = logits
    term = CTCKD(selection=WidenAround(1), blank=BLANK)
    found = term(call(student), call(teacher), Step(Progress(epoch=2)))
    chosen = select_frames(teacher, MASK, blank=BLANK, selection=KeepAround(2, 2))
    assert_close(found, frame_kl(student, teacher, chosen))


def test_a_teacher_of_twice_the_rate_is_averaged_as_probabilities():
    student, teacher = torch.randn(2, 4, CLASSES), torch.randn(2, 8, CLASSES)
    lengths = torch.tensor([4, 2])
    mean = teacher.softmax(-1).unflatten(1, (4, 2)).mean(2)
    mask = torch.arange(4) < lengths[:, None]
    term = CTCKD(selection=AllFrames(), blank=BLANK, temperature=1.0)
    found = term(call(student, lengths), call(teacher, 2 * lengths), Step())
    per_frame = (mean * (mean.log() - student.log_softmax(-1))).sum(-1)
    assert_close(found, per_frame[mask].mean())


def test_a_frame_more_or_less_is_cropped():
    student, teacher = torch.randn(2, 8, CLASSES), torch.randn(2, 7, CLASSES)
    term = CTCKD(selection=AllFrames(), blank=BLANK)
    found = term(call(student, None), call(teacher, None), Step())
    assert_close(found, frame_kl(student[:, :7], teacher), rtol=1e-5, atol=1e-6)


def test_guided_ctc_reads_the_mask(logits):
    student, teacher = logits
    found = GuidedCTCKD(blank=BLANK)(call(student), call(teacher), Step())
    assert_close(found, guided_ctc(student, teacher, MASK, blank=BLANK))


def test_the_best_path_of_the_teacher_is_the_transcript(logits):
    student, teacher = logits
    found = CTCSequenceKD(blank=BLANK)(call(student), call(teacher), Step())
    best = [[h] for h in greedy_search(teacher, MASK, blank=BLANK)]
    assert_close(found, ctc_hypotheses(student, best, MASK, blank=BLANK))


def test_the_best_transcripts_of_the_teacher_are_searched_inside_the_utterance(logits):
    student, teacher = logits
    term = CTCSequenceKD(hypotheses=3, beams=8, relative=True, per_label=False, blank=BLANK)
    best = [beam_search(teacher[n, : LENGTHS[n]], blank=BLANK, beams=8, hypotheses=3) for n in range(2)]
    expected = ctc_hypotheses(student, best, MASK, blank=BLANK, per_label=False, relative=True)
    assert_close(term(call(student), call(teacher), Step()), expected)


def test_transcripts_do_not_care_for_frame_rates():
    student, teacher = torch.randn(2, 5, CLASSES), torch.randn(2, 12, CLASSES)
    found = CTCSequenceKD(blank=BLANK)(call(student, None), call(teacher, None), Step())
    assert found.isfinite()


class Recogniser(nn.Module):
    """Layers that keep the frames, and a CTC head."""

    def __init__(self, width=8):
        super().__init__()
        self.lower, self.upper, self.head = nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, CLASSES)

    def forward(self, frames, lengths):
        return self.head(torch.tanh(self.upper(torch.tanh(self.lower(frames)))))


def test_an_intermediate_head_learns_from_the_output_and_the_transcripts():
    net = Recogniser()
    objective = IntermediateCTCKD("lower", blank=BLANK, lengths="lengths", ctc_weight=0.5)
    distiller = Distiller(net, None, [objective])
    frames, labels = torch.randn(2, 8, 3), torch.tensor([[1, 2, -100], [3, 0, 0]])
    distiller.build([(frames, LENGTHS)])
    with distiller.watch() as calls:
        logits = net(frames, LENGTHS)
    losses = distiller.losses(logits.sum() * 0, calls, batch=(frames, labels))
    guess = objective.head(net.lower(frames))
    nll = ctc_negative_log_likelihood(guess, [[1, 2], [3]], MASK, blank=BLANK)
    expected = frame_kl(guess, logits, MASK, temperature=1.0) + 0.5 * (nll / torch.tensor([2, 1])).mean()
    assert_close(losses.terms["intermediate_ctc"], expected)
    losses.total.backward()
    assert net.lower.weight.grad.ne(0).any()
    assert net.head.weight.grad.eq(0).all()  # the output is the teacher: no gradient
    assert objective.head.weight.grad.ne(0).any()
    without = IntermediateCTCKD("lower", blank=BLANK, lengths="lengths", ctc_weight=0.0)
    without.head = objective.head
    observed = Observation(Inputs((frames, LENGTHS)), logits, {without.student_taps[0]: net.lower(frames)}, net)
    assert_close(without(observed, observed, Step()), frame_kl(guess, logits, MASK, temperature=1.0))


def test_an_intermediate_layer_of_another_rate_is_an_error():
    net = nn.Sequential(nn.Linear(3, 4), nn.Flatten(1), nn.Unflatten(1, (4, 8)), nn.Linear(8, CLASSES))
    distiller = Distiller(net, None, [IntermediateCTCKD("0", blank=BLANK)])
    with pytest.raises(ShapeError, match=r"shape \(2, 4, 'D'\), got \(2, 8, 4\)"):
        distiller.build([torch.randn(2, 8, 3)])


def test_distils_hubert_with_the_blank_of_its_configuration(tiny_ctc):
    student, teacher = tiny_ctc(layers=1), tiny_ctc(layers=2, seed=1)
    distiller = Distiller(student, teacher, [CTCKD(selection=AllFrames()), CTCSequenceKD(), GuidedCTCKD()])
    audio = torch.randn(2, 4000)
    mask = (torch.arange(4000) < torch.tensor([[4000], [2500]])).long()
    with distiller.watch() as calls:
        logits = student(audio, attention_mask=mask).logits
    losses = distiller.losses(logits.sum() * 0, calls)
    lengths = student._get_feat_extract_output_lengths(mask.sum(-1))
    with torch.no_grad():
        other = teacher(audio, attention_mask=mask).logits
    frames = torch.arange(logits.shape[1]) < lengths[:, None]
    assert_close(losses.terms["ctc"], frame_kl(logits, other, frames), rtol=1e-4, atol=1e-6)
    losses.total.backward()
    assert student.lm_head.weight.grad.ne(0).any()


@pytest.fixture
def tiny_ctc():
    from transformers import HubertConfig, HubertForCTC

    def make(layers=1, seed=0, **settings):
        torch.manual_seed(seed)
        config = HubertConfig(
            vocab_size=settings.pop("vocab_size", CLASSES),
            hidden_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=(8,) * 7,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            layerdrop=0.0,
            apply_spec_augment=False,
            **settings,
        )
        return HubertForCTC(config).eval()

    return make


def test_networks_with_another_blank_or_label_set_are_refused(tiny_ctc):
    with pytest.raises(SetupError, match=r"class 0 of the student and 1 of the teacher"):
        Distiller(tiny_ctc(), tiny_ctc(pad_token_id=1), [CTCKD()]).attach()
    distiller = Distiller(tiny_ctc(), tiny_ctc(vocab_size=7), [CTCKD()])
    with distiller.watch() as calls:
        loss = distiller.student(torch.randn(1, 2000)).logits.sum()
    with pytest.raises(ShapeError, match=r"`teacher` tells 7 classes apart and the student 5"):
        distiller.losses(loss, calls)


def test_options_out_of_range_are_refused(logits):
    with pytest.raises(ValueError, match=r"`beams` must be at least hypotheses=20, got 16"):
        CTCSequenceKD(hypotheses=20)
    with pytest.raises(ValueError, match=r"`relative` must be False with one hypothesis"):
        CTCSequenceKD(relative=True)
    with pytest.raises(ValueError, match=r"`ctc_weight` must be .* got -1"):
        IntermediateCTCKD("x", ctc_weight=-1)
    with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'sum'"):
        CTCKD(reduction="sum")
    with pytest.raises(SetupError, match=r"`blank` must be given outside a Distiller, got None"):
        CTCKD()(call(logits[0]), call(logits[1]), Step())
    net = Recogniser()
    objective = IntermediateCTCKD("lower", blank=BLANK, lengths="lengths")
    distiller = Distiller(net, None, [objective]).build([(torch.randn(2, 8, 3), LENGTHS)])
    with distiller.watch() as calls:
        loss = net(torch.randn(2, 8, 3), LENGTHS).sum()
    with pytest.raises(ShapeError, match=r"`labels` must be class indices of shape \(N, U\), got .* \(2,\)"):
        distiller.losses(loss, calls, batch=(None, torch.tensor([1, 2])))


def test_three_steps_teach_a_recogniser(distil_three_steps):
    from torch.utils.data import TensorDataset

    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    teacher = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, CLASSES))
    data = TensorDataset(torch.randn(12, 8, 3), torch.randint(1, CLASSES, (12, 8)))
    kd = KnowledgeDistillation(teacher, student="net", objectives=[CTCKD(blank=BLANK), CTCSequenceKD(blank=BLANK)])
    _, metrics = distil_three_steps(student, [kd], dataset=data, module=Frames)
    assert {"kd/ctc", "kd/ctc_sequence"} <= metrics.keys()


def Frames(net):  # noqa: N802 - stands for a class
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.gradients = net, set()

        def training_step(self, batch):
            return F.cross_entropy(self.net(batch[0]).flatten(0, 1), batch[1].flatten())

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.01)

        def on_after_backward(self):
            for name, parameter in self.named_parameters():
                if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                    self.gradients.add(name)

    return Module()
