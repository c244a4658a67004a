"""Claims about `HiddenCosineKD`."""

import pytest
import timm
import torch
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import ShapeError
from lightning_kd.losses import soft_target_kl
from lightning_kd.objectives import HiddenCosineKD

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def term(student, teacher, objective):
    distiller = Distiller(student, teacher, [objective], allow=("zero",)).build([IMAGES])
    with distiller.watch() as calls:
        student(IMAGES)
    return distiller.losses(torch.zeros(()), calls).terms["hidden_cosine"]


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(("test_vit", "norm"), ("test_resnet", "layer4")), (("test_convnext", "stages.3"), ("test_vit3", "norm"))],
)
def test_trains_pairs_of_families(train_three_steps, net, student, teacher):
    objective = HiddenCosineKD(student[1], teacher[1], projection="auto")
    result = train_three_steps(net(student[0]), net(teacher[0]), [objective])
    assert 0 < result.metrics["kd/hidden_cosine"] < 2


def test_compares_every_token_of_networks_with_the_same_tokens(net):
    student, teacher = net("test_vit").eval(), net("test_vit2").eval()
    expected = (
        1 - torch.cosine_similarity(student.forward_features(IMAGES), teacher.forward_features(IMAGES), dim=-1).mean()
    )
    assert_close(term(student, teacher, HiddenCosineKD("norm", "norm")), expected, rtol=1e-5, atol=1e-6)


def test_several_pairs_give_their_mean(net):
    student, teacher = net("test_vit"), net("test_vit2")
    each = [term(student, teacher, HiddenCosineKD(place, place)) for place in ("blocks.1", "norm")]
    both = term(student, teacher, HiddenCosineKD(["blocks.1", "norm"], ["blocks.1", "norm"]))
    assert_close(both, torch.stack(each).mean())


def test_the_prediction_term_beside_it_is_the_masked_divergence_over_attended_tokens():
    student, teacher = torch.randn(2, 3, 5, 7, dtype=torch.float64).unbind()
    attended = torch.tensor([[True] * 5, [True, True, False, False, False], [True, False, True, False, True]])
    q, p = ((x[attended] / 2).softmax(-1) for x in (student, teacher))
    expected = 4 * (p * (p / q).log()).sum() / attended.sum()
    assert_close(soft_target_kl(student, teacher, temperature=2.0, mask=attended), expected)


def test_projects_only_if_asked():
    student = timm.create_model("test_vit", img_size=64)
    teacher = timm.create_model("test_vit3", img_size=64)
    with pytest.raises(ShapeError, match=r"equal widths, got student 64 and teacher 96: use projection='auto'"):
        term(student, teacher, HiddenCosineKD("norm", "norm"))
    distiller = Distiller(student, teacher, [HiddenCosineKD("norm", "norm", projection="auto")]).build([IMAGES])
    assert [tuple(p.shape) for p in distiller.adapters.parameters()] == [(96, 64), (96,)]


def test_refuses_an_unknown_projection():
    with pytest.raises(ValueError, match="`projection` must be one of 'auto', 'always', 'none', got 'mlp'"):
        HiddenCosineKD("norm", "norm", projection="mlp")
