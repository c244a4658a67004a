"""Claims about the distillation of a speech encoder into a copy of itself."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.objectives import DPHuBERTKD


def distilled(student, teacher, objective, samples, mask):
    """The term, and the distiller it came from."""
    inputs = {"input_values": samples, "attention_mask": mask}
    distiller = Distiller(student, teacher, [objective]).build([inputs])
    distiller.adapters.to(next(student.parameters()).dtype)
    with distiller.watch() as calls:
        student(**inputs)
    return distiller.losses(torch.zeros(()), calls).terms[objective.name], distiller


def test_starts_as_the_plain_distance_of_the_layers(speech_net, audio):
    student, teacher = speech_net().double(), speech_net().double().eval()
    samples, mask = audio(2000, 900, dtype=torch.float64)
    term, _ = distilled(student, teacher, DPHuBERTKD(groups=[(0,), (1, 3)], cosine_weight=0.5), samples, mask)
    valid = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    expected = []
    states = [m(samples, attention_mask=mask, output_hidden_states=True).hidden_states for m in (student, teacher)]
    for layer in (0, 1, 3):
        s, t = (hidden[layer][valid] for hidden in states)
        expected.append((s - t).abs().mean() - 0.5 * F.cosine_similarity(s, t, dim=-1).mean())
    assert_close(term, torch.stack(expected).mean(), rtol=1e-9, atol=1e-12)


def test_layers_of_a_group_share_a_linear_layer(speech_net, audio):
    objective = DPHuBERTKD(groups=[(0,), (1, 3)])
    term, distiller = distilled(speech_net(), speech_net(), objective, *audio(1600))
    assert [tuple(p.weight.shape) for p in objective.projections] == [(16, 16), (16, 16)]
    assert all(torch.equal(p.weight, torch.eye(16)) for p in objective.projections)
    term.backward()
    assert all(bool(p.grad.any()) for p in distiller.adapters.parameters())


def test_students_of_another_width_are_projected(speech_net, audio):
    objective = DPHuBERTKD(groups=[(2,)])
    distilled(speech_net(hidden_size=8), speech_net(), objective, *audio(1600))
    assert objective.projections[0].weight.shape == (16, 8)


def test_linear_layers_that_have_learnt_are_kept(speech_net, audio):
    objective = DPHuBERTKD(groups=[(0, 2)])
    distilled(speech_net(), speech_net(), objective, *audio(1600))
    torch.nn.init.normal_(objective.projections[0].weight)
    before = objective.projections[0].weight.clone()
    distilled(speech_net(), speech_net(), objective, *audio(1600))
    assert torch.equal(objective.projections[0].weight, before)


def test_refuses_what_does_not_fit(speech_net, audio):
    with pytest.raises(ValueError, match=r"at least one layer and none twice, got \[\(1,\), \(1,\)\]"):
        DPHuBERTKD(groups=[(1,), (1,)])
    with pytest.raises(ValueError, match=r"none twice, got \[\(\)\]"):
        DPHuBERTKD(groups=[()])
    with pytest.raises(SetupError, match=r"from 0 to 3, the depth of the student, got 4"):
        distilled(speech_net(), speech_net(), DPHuBERTKD(groups=[(4,)]), *audio(1600))
    with pytest.raises(SetupError, match=r"teacher has LayerDrop left on \(config.layerdrop=0\.2\)"):
        distilled(speech_net(), speech_net(layerdrop=0.2), DPHuBERTKD(groups=[(1,)]), *audio(1600))
