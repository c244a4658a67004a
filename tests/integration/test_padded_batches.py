"""A padded batch gives every frame loss and every gradient that its utterances give one by one.

To hold an objective to this, add a row to ``ROWS``: how its networks are made, and what its call and its batch hold
beside the audio. Networks have a layer norm in front: behind a group norm, features depend on the padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import HubertConfig

from lightning_kd import Distiller, FrozenTeacher
from lightning_kd.losses import AllFrames
from lightning_kd.objectives import (
    CTCKD,
    ACMGateKD,
    ACMModuleKD,
    ARMHuBERTKD,
    CTCSequenceKD,
    DistilHuBERTKD,
    DPHuBERTKD,
    FitHuBERTKD,
    FrameKD,
    GuidedCTCKD,
    IntermediateCTCKD,
    LightHuBERTKD,
    Objective,
    TransducerKD,
)
from lightning_kd.objectives.lighthubert import without_spans
from lightning_kd.students import (
    ThinHubert,
    distilhubert_student,
    set_lengths,
    with_adaptive_computation,
    with_length_adaptation,
)
from lightning_kd.taps import Tap
from lightning_kd.teachers import MaskedAndClean

SAMPLES = (6400, 2900, 4500)  # 19, 8 and 13 frames
Networks = tuple[nn.Module, nn.Module, Objective]


def nothing(frames: list[int]) -> dict[str, Any]:
    """No arguments beside the audio and its mask."""
    return {}


def same(frames: int) -> int:
    """The loss counts every frame of the front end once."""
    return frames


@dataclass(frozen=True)
class Row:
    """An objective and the networks that it is tried on.

    Attributes:
        make: Gives student, teacher and objective; gets the fixture ``speech_net`` and options of the objective.
        call: Further arguments of the student's call for utterances of so many frames of the front end, padded.
        batch: What the training step got, for objectives that read labels.
        counted: Of so many frames, how many the loss is a mean over; utterances weigh so much if frames do.
        options: Of the objective, one test for each; by default both reductions.
    """

    make: Callable[..., Networks]
    call: Callable[[list[int]], dict[str, Any]] = nothing
    batch: Callable[[list[int]], Any] = nothing
    counted: Callable[[int], int] = same
    options: tuple[dict[str, Any], ...] = ({"reduction": "frame"}, {"reduction": "utterance"})


def thin(**settings) -> nn.Module:
    """A small `ThinHubert` of three layers."""
    config = HubertConfig(layerdrop=0.0, conv_dim=(8,) * 7, feat_extract_norm="layer", num_hidden_layers=3)
    config.update({"apply_spec_augment": False})
    for name in ("hidden_dropout", "activation_dropout", "attention_dropout"):
        config.update({name: 0.0})
    config.update({"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2})
    config.update({"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, **settings})
    return ThinHubert(config)


def distilhubert(speech_net, **options) -> Networks:
    teacher = speech_net()
    return distilhubert_student(teacher), teacher, DistilHuBERTKD((1, 3), **options)


def fithubert(speech_net, **options) -> Networks:
    return thin(time_reduction=2), speech_net(), FitHuBERTKD(**options)


def armhubert(speech_net, **options) -> Networks:
    teacher = MaskedAndClean(speech_net(apply_spec_augment=True))
    return thin(attention_reuse=[False, True, False], apply_spec_augment=True), teacher, ARMHuBERTKD(**options)


def frames(speech_net, *, student=None, **options) -> Networks:
    own = speech_net() if student is None else student
    places = "encoder.layers.0", "encoder.layers.1"
    return own, speech_net(hidden_size=24), FrameKD(places, places, **options)


def slower_student(speech_net, **options) -> Networks:
    return frames(speech_net, student=thin(time_reduction=2), **options)


def slower_teacher(speech_net, **options) -> Networks:
    return speech_net(), thin(time_reduction=2), FrameKD("encoder.layers.1", "encoder.layers.1", **options)


def dphubert(speech_net, **options) -> Networks:
    return speech_net(), speech_net(), DPHuBERTKD(((0,), (1, 3)), **options)


def lighthubert(speech_net, **options) -> Networks:
    teacher = FrozenTeacher(speech_net(), input_transform=without_spans)
    return speech_net(apply_spec_augment=True), teacher, LightHuBERTKD(**options)


def adaptive(speech_net, *, objective, **options) -> Networks:
    teacher = speech_net()
    return with_adaptive_computation(teacher), teacher, objective(**options)


def shortened(speech_net, **options) -> Networks:
    student = with_length_adaptation(speech_net())
    set_lengths(student, (0.7, 0.7, 0.5))
    place = Tap("encoder", axes="NTD", select="last_hidden_state")
    return student, speech_net(), FrameKD(place, place, **options)


def recognisers(speech_net, *, objective, **options) -> Networks:
    networks = (speech_net(kind="ForCTC", vocab_size=7, final_dropout=0.0) for _ in range(2))
    return *networks, objective(**options)


class Lattices(nn.Module):
    """A transducer for transcripts of two labels, as far as the objective looks."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.joint = encoder, nn.Linear(16, 3 * 7)

    def _get_feat_extract_output_lengths(self, lengths: Tensor) -> Tensor:
        return self.encoder._get_feat_extract_output_lengths(lengths)

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_values, attention_mask=attention_mask).last_hidden_state
        return self.joint(hidden).unflatten(-1, (3, 7))


def transducers(speech_net, **options) -> Networks:
    return Lattices(speech_net()), Lattices(speech_net()), TransducerKD(**options)


def transcripts(frames: list[int]) -> dict[str, Tensor]:
    """Two labels, or one, that follow from the length of the utterance."""
    return {"labels": torch.tensor([[1 + size % 6, 1 + size % 5 if size % 2 else -100] for size in frames])}


def one(_: int) -> int:
    """The loss is a mean over utterances."""
    return 1


def spans(frames: list[int]) -> dict[str, Any]:
    hidden = torch.arange(max(frames)) % 3 == 0
    return {"mask_time_indices": hidden & (torch.arange(max(frames)) < torch.tensor(frames)[:, None])}


def half(frames: int) -> int:
    return frames // 2


def hidden_third(frames: int) -> int:
    return -(-frames // 3)


ROWS = {
    "DistilHuBERTKD": Row(distilhubert),
    "FitHuBERTKD": Row(fithubert, counted=half),
    "ARMHuBERTKD": Row(armhubert, call=spans),
    "DPHuBERTKD": Row(dphubert),
    "LightHuBERTKD": Row(lighthubert, call=spans, counted=hidden_third),
    "ACMModuleKD": Row(lambda net, **options: adaptive(net, objective=ACMModuleKD, **options)),
    "ACMGateKD": Row(lambda net, **options: adaptive(net, objective=ACMGateKD, **options)),
    "CTCKD": Row(
        lambda net, **options: recognisers(net, objective=CTCKD, **options), options=({"reduction": "utterance"},)
    ),
    "CTCKD, all frames": Row(lambda net, **o: recognisers(net, objective=CTCKD, selection=AllFrames(), **o)),
    "GuidedCTCKD": Row(lambda net, **options: recognisers(net, objective=GuidedCTCKD, **options)),
    "CTCSequenceKD": Row(
        lambda net, **options: recognisers(net, objective=CTCSequenceKD, **options),
        counted=one,
        options=({"hypotheses": 1}, {"hypotheses": 3}),
    ),
    "IntermediateCTCKD": Row(
        lambda net, **o: recognisers(net, objective=IntermediateCTCKD, layer="hubert.encoder.layers.0", **o),
        batch=transcripts,
        options=({"reduction": "utterance"},),
    ),
    "TransducerKD": Row(transducers, batch=transcripts, options=({"reduction": "utterance"},)),
    "FrameKD, student that drops frames": Row(shortened),
    "FrameKD, mse": Row(frames),
    "FrameKD, l1": Row(lambda net, **options: frames(net, distance="l1", **options)),
    "FrameKD, cosine": Row(lambda net, **options: frames(net, distance="cosine", **options)),
    "FrameKD, student of half the rate": Row(slower_student, counted=half),
    "FrameKD, teacher of half the rate": Row(slower_teacher),
    "FrameKD, pooled": Row(lambda net, **options: slower_student(net, resampling="pool", **options), counted=half),
}
CASES = [(name, options) for name, row in ROWS.items() for options in row.options]


def term_and_gradients(row: Row, distiller: Distiller, audio: Tensor, mask: Tensor, sizes: list[int]):
    """The term of one call, and the gradient of every parameter of student and adapters."""
    modules = nn.ModuleList([distiller.student, distiller.adapters])
    modules.zero_grad()
    with distiller.watch() as calls:
        distiller.student(audio, attention_mask=mask, **row.call(sizes))
    losses = distiller.losses(audio.new_zeros(()), calls, batch=row.batch(sizes))
    losses.total.backward()
    gradients = {name: p.grad.clone() for name, p in modules.named_parameters() if p.grad is not None}
    return losses.total.detach(), gradients


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{options}" for name, options in CASES])
def test_padding_changes_neither_loss_nor_gradients(name, options, speech_net, audio):
    row = ROWS[name]
    student, teacher, objective = row.make(speech_net, **options)
    distiller = Distiller(student.double(), teacher.double(), [objective])
    padded, mask = audio(*SAMPLES, dtype=torch.float64)
    sizes = student._get_feat_extract_output_lengths(torch.tensor(SAMPLES)).tolist()
    distiller.build([{"input_values": padded, "attention_mask": mask, **row.call(sizes)}])
    distiller.adapters.double()

    together = term_and_gradients(row, distiller, padded, mask, sizes)
    alone = [
        term_and_gradients(row, distiller, padded[i : i + 1, :length], mask[i : i + 1, :length], [sizes[i]])
        for i, length in enumerate(SAMPLES)
    ]
    distiller.detach()

    counts = [float(row.counted(size)) if options.get("reduction", "frame") == "frame" else 1.0 for size in sizes]
    shares = [count / sum(counts) for count in counts]
    exact = {"rtol": 1e-9, "atol": 1e-12}
    assert_close(together[0], sum(share * term for share, (term, _) in zip(shares, alone, strict=True)), **exact)
    assert together[1].keys() == alone[0][1].keys()
    for key, gradient in together[1].items():
        expected = sum(share * gradients[key] for share, (_, gradients) in zip(shares, alone, strict=True))
        assert_close(gradient, expected, **exact, msg=lambda text, key=key: f"{key}: {text}")


def test_without_masks_padding_does_change_the_loss(speech_net, audio):
    padded, mask = audio(*SAMPLES)
    terms = []
    for mask_padding in (True, False):
        torch.manual_seed(0)
        student, teacher, objective = distilhubert(speech_net, mask_padding=mask_padding)
        distiller = Distiller(student, teacher, [objective]).build([{"input_values": padded, "attention_mask": mask}])
        terms.append(term_and_gradients(Row(distilhubert), distiller, padded, mask, [])[0])
        distiller.detach()
    assert (terms[0] - terms[1]).abs() > 1e-3
