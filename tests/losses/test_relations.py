"""Claims about the losses on relations between samples: SP, PKT, CC, and the two of RKD."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    CorrelationCongruence,
    ProbabilisticTransfer,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    _rows,
    correlation_congruence,
    probabilistic_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
)

FS = torch.tensor([[1, 0], [0, 2], [1, 1]], dtype=torch.float64)
FT = torch.tensor([[1, 2, 0], [0, 1, 1], [2, 0, 1]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def congruence_of_kernels(student, teacher):
    return correlation_congruence(student, teacher, variant="paper")


BETWEEN_ANY_WIDTHS = [
    similarity_preserving,
    probabilistic_transfer,
    relational_distance,
    relational_angle,
    congruence_of_kernels,
]
ALL = [*BETWEEN_ANY_WIDTHS, correlation_congruence]


def smooth_l1(difference):
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5)


def by_pairs(relation):
    """A matrix of ``relation`` for every pair of rows, one entry at a time."""

    def matrix(rows):
        return np.array([[relation(a, b) for b in rows] for a in rows])

    return matrix


def cosine(a, b):
    return a @ b / math.sqrt((a @ a) * (b @ b))


def reference_similarity(student, teacher):
    matrices = [by_pairs(np.dot)(rows) for rows in (student, teacher)]
    s, t = ([row / np.sqrt(np.sum(row**2)) for row in matrix] for matrix in matrices)
    return np.mean((np.array(s) - np.array(t)) ** 2)


def reference_transfer(student, teacher):
    q, p = (1 - cdist(rows, rows, "cosine") / 2 for rows in (student, teacher))
    return sum(entropy(p_row, q_row) for p_row, q_row in zip(p, q, strict=True)) / len(p) ** 2


def reference_distance(student, teacher):
    s, t = (cdist(rows, rows) for rows in (student, teacher))
    return smooth_l1(s / s[s > 0].mean() - t / t[t > 0].mean()).mean()


def reference_angle(student, teacher):
    n = len(student)
    total = 0.0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                if i not in (j, k):
                    s, t = (cosine(rows[j] - rows[i], rows[k] - rows[i]) for rows in (student, teacher))
                    total += smooth_l1(s - t)
    return total / n**3


def reference_congruence_of_kernels(student, teacher):
    def kernel(a, b):
        # exp(2 gamma cos) up to its second power, times exp(-2 gamma), with gamma = 0.4
        exponent = 0.8 * cosine(a, b)
        return math.exp(-0.8) * (1 + exponent + exponent**2 / 2)

    return np.mean((by_pairs(kernel)(student) - by_pairs(kernel)(teacher)) ** 2)


def reference_congruence(student, teacher):
    d = np.abs(student - teacher)
    return np.mean([d[i] @ d[i + 1] for i in range(len(d) - 1)])


REFERENCES = [
    (similarity_preserving, reference_similarity),
    (probabilistic_transfer, reference_transfer),
    (relational_distance, reference_distance),
    (relational_angle, reference_angle),
    (congruence_of_kernels, reference_congruence_of_kernels),
]


@st.composite
def feature_pairs(draw, least=1, same_width=False):
    samples, student_width = draw(st.integers(least, 5)), draw(st.integers(1, 4))
    teacher_width = student_width if same_width else draw(st.integers(1, 4))
    elements = st.integers(-8, 8).map(lambda halves: halves / 2)
    student, teacher = (
        draw(arrays(np.float64, (samples, w), elements=elements)) for w in (student_width, teacher_width)
    )
    return torch.from_numpy(student), torch.from_numpy(teacher)


def random_pair(samples=6, student_width=5, teacher_width=5, dtype=torch.float64):
    return torch.randn(samples, student_width, dtype=dtype), torch.randn(samples, teacher_width, dtype=dtype)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (similarity_preserving, 0.1202201563),
        (probabilistic_transfer, 0.0095556843),
        (relational_distance, 0.0742353575),
        (relational_angle, 0.0937231091),
        (lambda s, t: 25 * relational_distance(s, t) + 50 * relational_angle(s, t), 6.5420393951),
    ],
)
def test_equals_the_published_value(loss, expected):
    assert loss(FS, FT).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("loss", "reference"), REFERENCES)
@pytest.mark.parametrize("widths", [(1, 4), (7, 3), (64, 200)])
def test_equals_the_definition(loss, reference, widths):
    student, teacher = random_pair(7, *widths)
    # The published PKT adds 1e-7 to lengths and affinities, which the reference does not.
    tolerance = 1e-5 if loss is probabilistic_transfer else 1e-9
    if widths[0] == 1 and loss is probabilistic_transfer:
        student = student.abs()  # opposite samples have no affinity, whose logarithm only the 1e-7 keeps finite
    assert loss(student, teacher).item() == pytest.approx(reference(student.numpy(), teacher.numpy()), rel=tolerance)


def test_congruence_equals_the_definition():
    student, teacher = random_pair()
    expected = reference_congruence(student.numpy(), teacher.numpy())
    assert correlation_congruence(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", ALL)
@given(pair=feature_pairs())
def test_is_zero_at_equality_without_a_gradient(loss, pair):
    student = pair[1].clone().requires_grad_()
    value = loss(student, pair[1])
    value.backward()
    assert value.item() == 0.0
    # The 1e-7 in the logarithms of PKT leaves a gradient of its size.
    assert_close(student.grad, torch.zeros_like(student), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("loss", ALL)
@given(pair=feature_pairs(same_width=True))
def test_is_finite_and_not_negative_for_any_rows_equal_opposite_or_zero(loss, pair):
    student = pair[0].clone().requires_grad_()
    value = loss(student, pair[1])
    value.backward()
    assert value.item() >= -1e-7
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", BETWEEN_ANY_WIDTHS)
@given(pair=feature_pairs(least=3), random=st.randoms(use_true_random=False))
def test_ignores_the_order_of_the_batch(loss, pair, random):
    order = random.sample(range(len(pair[0])), len(pair[0]))
    assert_close(loss(pair[0][order], pair[1][order]), loss(*pair), rtol=1e-6, atol=1e-9)


def test_the_code_form_of_congruence_depends_on_the_order_of_the_batch():
    student = torch.tensor([[1.0], [2.0], [4.0]])
    assert correlation_congruence(student, torch.zeros(3, 1)).item() == 5.0  # (1*2 + 2*4) / 2
    assert correlation_congruence(student[[1, 0, 2]], torch.zeros(3, 1)).item() == 3.0  # (2*1 + 1*4) / 2


@pytest.mark.parametrize("loss", BETWEEN_ANY_WIDTHS)
def test_ignores_the_scale_of_either_side_and_a_rotation(loss):
    student, teacher = random_pair(6, 5, 3)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    # The constant added to lengths in PKT is the only scale there is.
    assert_close(loss(3.0 * student @ rotation, 0.5 * teacher), loss(student, teacher), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("loss", [relational_distance, relational_angle])
def test_relations_of_differences_ignore_a_translation(loss):
    student, teacher = random_pair(6, 5, 3)
    assert_close(loss(student + 7.0, teacher - 2.0), loss(student, teacher), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("loss", [similarity_preserving, probabilistic_transfer, relational_distance, relational_angle])
def test_axes_after_the_first_are_flattened(loss):
    student, teacher = torch.randn(4, 2, 3, 3), torch.randn(4, 5, 2)
    assert_close(loss(student, teacher), loss(student.flatten(1), teacher.flatten(1)), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("loss", ALL)
def test_has_an_exact_gradient(loss):
    student, teacher = random_pair(5, 3, 3)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("loss", ALL)
def test_gives_the_teacher_no_gradient(loss):
    student, teacher = (x.requires_grad_() for x in random_pair())
    loss(student, teacher).backward()
    assert student.grad.ne(0).any()
    assert teacher.grad is None


@pytest.mark.parametrize("loss", ALL)
def test_a_single_sample_gives_a_zero_that_keeps_the_graph(loss):
    student, teacher = random_pair(1)
    value = loss(student.requires_grad_(), teacher)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-15)
    assert_close(student.grad, torch.zeros_like(student), rtol=0.0, atol=1e-15)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(loss, given_dtype, returned):
    student, teacher = random_pair(dtype=given_dtype)
    assert loss(student, teacher).dtype == returned


@pytest.mark.parametrize("loss", ALL)
def test_equals_itself_under_bfloat16_autocast_at_a_thousand_features(loss):
    student, teacher = random_pair(8, 1000, 1000, dtype=torch.float32)
    student.requires_grad_()
    expected = loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    value.backward()
    assert_close(value, expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", BETWEEN_ANY_WIDTHS)
def test_is_finite_where_products_overflow_half_precision(loss):
    student = torch.tensor([[6e4, 0.0], [0.0, 6e4], [-6e4, 6e4], [6e4, 6e4]], dtype=torch.float16, requires_grad=True)
    value = loss(student, torch.ones(4, 3, dtype=torch.float16))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", BETWEEN_ANY_WIDTHS)
def test_equal_samples_and_dead_ones_get_a_bounded_gradient(loss):
    student = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [3.0, -1.0]], dtype=torch.float64, requires_grad=True)
    loss(student, torch.randn(4, 3, dtype=torch.float64)).backward()
    assert student.grad.abs().max() < 10.0


def test_equal_samples_do_not_count_in_the_mean_distance():
    # Distances of the student 1, 1, 0 over their mean of 1; of the teacher 1, 1, 2 over 4/3.
    student, teacher = torch.tensor([[0.0], [1.0], [1.0]]), torch.tensor([[0.0], [1.0], [-1.0]])
    expected = 2 * ((1 / 4) ** 2 / 2 + (1 / 4) ** 2 / 2 + 1.0) / 9
    assert relational_distance(student, teacher).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("elements", [1, 150, 10**6])
def test_angles_do_not_depend_on_the_chunks(monkeypatch, elements):
    student, teacher = random_pair(7, 3, 4)
    student.requires_grad_()
    expected = relational_angle(student, teacher)
    (gradient,) = torch.autograd.grad(expected, student)
    monkeypatch.setattr(_rows, "CHUNK_ELEMENTS", elements)
    value = relational_angle(student, teacher)
    assert_close(value, expected, **EXACT)
    assert_close(torch.autograd.grad(value, student)[0], gradient, **EXACT)


def test_chunks_of_angles_are_not_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(_rows, "CHUNK_ELEMENTS", 1)
    kept = []
    student, teacher = random_pair(16, 3, 3)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        relational_angle(student.requires_grad_(), teacher)
    assert sum(kept) < 16**3


def test_modules_compute_the_functions():
    student, teacher = random_pair()
    for module, loss in (
        (SimilarityPreserving(), similarity_preserving),
        (ProbabilisticTransfer(), probabilistic_transfer),
        (RelationalDistance(), relational_distance),
        (RelationalAngle(), relational_angle),
        (CorrelationCongruence(), correlation_congruence),
        (CorrelationCongruence(variant="paper"), congruence_of_kernels),
    ):
        assert module(student, teacher) == loss(student, teacher)
    assert repr(CorrelationCongruence(variant="paper")) == "CorrelationCongruence(variant='paper')"


@pytest.mark.parametrize("loss", ALL)
def test_refuses_what_does_not_fit(loss):
    with pytest.raises(ShapeError, match=r"the same samples, got \(3, 2\) and \(2, 3\)"):
        loss(FS, FT[:2])
    with pytest.raises(ShapeError, match=r"got \(3,\) and \(3, 3\)"):
        loss(FS[:, 0], FT)
    with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(0, 2\)"):
        loss(FS[:0], FT[:0])
    with pytest.raises(TypeError, match=r"`teacher` must be a floating-point tensor, got torch\.int64"):
        loss(FS, FT.long())


def test_congruence_refuses_other_widths_and_variants():
    with pytest.raises(ShapeError, match=r"must have the same shape, got \(3, 2\) and \(3, 3\)"):
        correlation_congruence(FS, FT)
    with pytest.raises(ValueError, match="`variant` must be one of 'code', 'paper', got 'taylor'"):
        correlation_congruence(FS, FT, variant="taylor")
    with pytest.raises(ValueError, match="got 'taylor'"):
        CorrelationCongruence(variant="taylor")
