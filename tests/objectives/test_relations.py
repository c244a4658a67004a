"""Claims about SPKD, RKD, PKTKD, CCKD, CKAKD, ICKD and PatchSimilarityKD."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.distiller import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.layout import common_grid
from lightning_kd.losses import (
    cka_loss,
    correlation_congruence,
    inter_channel_correlation,
    patch_similarity,
    probabilistic_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
)
from lightning_kd.objectives import CCKD, CKAKD, ICKD, PKTKD, RKD, SPKD, PatchSimilarityKD

WITHOUT_ADAPTERS = [
    SPKD,
    RKD,
    PKTKD,
    lambda s, t, **options: CCKD(s, t, variant="paper", **options),
    CKAKD,
    PatchSimilarityKD,
]
ALL = [*WITHOUT_ADAPTERS, CCKD, ICKD]
CNN_AND_VIT = [("test_resnet", "layer4", "test_vit", "blocks.5"), ("test_vit", "blocks.5", "test_convnext", "stages.3")]


def maps(samples=4, student=3, teacher=5, sizes=(8, 4)):
    return torch.randn(samples, student, sizes[0], sizes[0]), torch.randn(samples, teacher, sizes[1], sizes[1])


def test_the_published_weights_are_the_defaults():
    assert [kind("a", "b").weight for kind in (SPKD, RKD, PKTKD, CCKD, ICKD)] == [3000.0, 1.0, 30000.0, 0.02, 2.5]
    assert (RKD("a", "b").distance_weight, RKD("a", "b").angle_weight) == (25.0, 50.0)
    assert [kind("a", "b").name for kind in (SPKD, RKD, PKTKD, CCKD, ICKD)] == ["sp", "rkd", "pkt", "cc", "ickd"]


@pytest.mark.parametrize(("student", "s_tap", "teacher", "t_tap"), CNN_AND_VIT)
@pytest.mark.parametrize("make", ALL)
def test_trains_a_network_of_another_family(make, student, s_tap, teacher, t_tap, net, train_three_steps):
    objective = make(s_tap, t_tap)
    result = train_three_steps(net(student), net(teacher), [objective])
    assert result.metrics[f"kd/{objective.name}"] > 0


@pytest.mark.parametrize("make", ALL)
def test_the_term_alone_reaches_the_student(make, net, student_gradient):
    distiller = Distiller(net("test_vit"), net("test_resnet"), [make("blocks.5", "layer4")])
    images = torch.randn(4, 3, 64, 64)
    distiller.build([images])
    gradients = student_gradient(distiller, images)
    assert {"patch_embed.proj.weight", "blocks.5.mlp.fc2.weight"} <= gradients
    assert "head.weight" not in gradients


def test_each_term_is_its_loss_on_pooled_features_and_sp_on_whole_ones(over_features):
    student, teacher = maps()
    s, t = student.mean((2, 3)), teacher.mean((2, 3))
    for objective, expected in (
        (SPKD("a", "b"), similarity_preserving(student, teacher)),
        (RKD("a", "b"), 25 * relational_distance(s, t) + 50 * relational_angle(s, t)),
        (RKD("a", "b", distance_weight=0.0, angle_weight=2.0), 2 * relational_angle(s, t)),
        (PKTKD("a", "b"), probabilistic_transfer(s, t)),
        (CCKD("a", "b", variant="paper"), correlation_congruence(s, t, variant="paper")),
        (CKAKD("a", "b"), cka_loss(s, t)),
        (PatchSimilarityKD("a", "b"), patch_similarity(*common_grid(student, teacher))),
    ):
        assert not list(objective.parameters())
        term = over_features(objective, [student], [teacher])
        assert_close(term([student], [teacher]), expected)


@pytest.mark.parametrize("make", WITHOUT_ADAPTERS)
def test_is_the_mean_over_pairs(make, over_features):
    students, teachers = zip(maps(), maps(student=4, teacher=2), strict=True)
    single = [over_features(make("a", "b"), [s], [t])([s], [t]) for s, t in zip(students, teachers, strict=True)]
    term = over_features(make(["a", "c"], ["b", "d"]), students, teachers)
    assert_close(term(students, teachers), (single[0] + single[1]) / 2)


@pytest.mark.parametrize("make", [*WITHOUT_ADAPTERS, CCKD])
def test_is_zero_for_the_teachers_own_features_and_gives_it_no_gradient(make, over_features):
    # Standard deviation 1, so that the residue of CKA's cancellation stays small.
    feature = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    teacher = feature.clone().requires_grad_()
    term = over_features(make("a", "b"), [feature], [feature])
    assert term([feature], [feature]).item() == pytest.approx(0.0, abs=1e-12)
    student = torch.randn(6, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    term([student], [teacher]).backward()
    assert student.grad.ne(0).any()
    assert teacher.grad is None


def test_congruence_projects_before_it_averages_where_widths_differ(over_features):
    student, teacher = maps()
    objective = CCKD("a", "b")
    term = over_features(objective, [student], [teacher])
    projected = objective.adapters[0].projection(student.unflatten(2, (4, 2)).mean(3).unflatten(3, (4, 2)).mean(4))
    expected = correlation_congruence(projected.mean((2, 3)), teacher.mean((2, 3)))
    assert_close(term([student], [teacher]), expected)


@pytest.mark.parametrize("width", [3, 5])
def test_channels_are_correlated_on_their_own_grids_after_a_normalised_projection(width, over_features):
    student, teacher = maps(student=width)
    objective = ICKD("a", "b")
    term = over_features(objective, [student], [teacher])
    (kernel,) = (parameter for parameter in objective.parameters() if parameter.ndim == 4)
    projected = torch.einsum("oc,nchw->nohw", kernel[:, :, 0, 0], student)
    variance, mean = torch.var_mean(projected, dim=(0, 2, 3), correction=0, keepdim=True)
    expected = inter_channel_correlation((projected - mean) / (variance + 1e-5).sqrt(), teacher)
    assert_close(term([student], [teacher]), expected)


def test_correlated_channels_are_zero_where_the_embedding_gives_the_teachers_and_give_it_no_gradient(over_features):
    feature = torch.randn(6, 3, 4, 4)
    objective = ICKD("a", "b")
    term = over_features(objective, [feature], [feature])
    nn.init.dirac_(objective.adapters[0][0].weight)
    teacher = (
        (feature - feature.mean((0, 2, 3), keepdim=True)) / feature.std((0, 2, 3), keepdim=True)
    ).requires_grad_()
    student = feature.requires_grad_()
    assert term([student], [teacher]).item() == pytest.approx(0.0, abs=1e-6)
    term([student.flip(0)], [teacher]).backward()
    assert student.grad.ne(0).any()
    assert teacher.grad is None


@pytest.mark.parametrize("make", [SPKD, RKD, PKTKD, CCKD, CKAKD])
def test_a_last_batch_of_one_gives_a_zero_that_keeps_the_graph(make, over_features):
    student, teacher = maps(1)
    term = over_features(make("a", "b"), [student], [teacher])([student.requires_grad_()], [teacher])
    term.backward()
    assert term.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("samples", [1, 4])
def test_is_finite_under_bfloat16_autocast(make, samples, over_features):
    student, teacher = maps(samples)
    objective = make("a", "b")
    term = over_features(objective, [student], [teacher])
    student = student.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term([student], [teacher.bfloat16()])
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in objective.parameters())


@pytest.mark.parametrize("make", [SPKD, RKD, PKTKD, CCKD, CKAKD])
def test_gathering_changes_nothing_for_one_process(make, over_features):
    student, teacher = maps(student=5)
    terms = [
        over_features(make("a", "b", gather=gather), [student], [teacher])([student], [teacher])
        for gather in (False, True)
    ]
    assert torch.equal(*terms)


def test_patches_need_two_positions_in_common(over_features):
    for student, teacher in (maps(sizes=(4, 1)), (torch.randn(2, 3), torch.randn(2, 5, 4, 4))):
        with pytest.raises(SetupError, match=r"`patch_similarity` compares positions, and 'a' \(grid .* tap maps"):
            over_features(PatchSimilarityKD("a", "b"), [student], [teacher])


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="`variant` must be one of 'code', 'paper', got 'taylor'"):
        CCKD("a", "b", variant="taylor")
    with pytest.raises(ValueError, match="`max_positions` must be at least 2, got 1"):
        PatchSimilarityKD("a", "b", max_positions=1)
    for options in ({"distance_weight": -1.0}, {"angle_weight": -1.0}):
        with pytest.raises(ValueError, match=rf"`{next(iter(options))}` must be a finite number of at least 0"):
            RKD("a", "b", **options)
