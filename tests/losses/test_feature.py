"""Claims about `feature_mse` and `cosine_distance`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import CosineDistance, FeatureMSE, cosine_distance, feature_mse

MS = torch.tensor([[[[1, 2], [0, 1]], [[0, 1], [1, 0]]]], dtype=torch.float64)
MT = torch.tensor([[[[2, 0], [1, 1]], [[1, 1], [0, 2]]]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}
NORMALIZATIONS = ["none", "layer", "l2"]
LOSSES = [
    *[pytest.param(FeatureMSE(normalization=n), id=f"mse-{n}") for n in NORMALIZATIONS],
    pytest.param(CosineDistance(), id="cosine"),
]


@st.composite
def feature_pairs(draw):
    shape = draw(st.sampled_from([(2, 3), (1, 4, 5), (3, 2, 2, 3)]))
    values = arrays(np.float64, shape, elements=st.floats(-10, 10, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def test_mse_equals_the_hand_derived_value():
    # Squared differences of MS and MT: 1 + 4 + 1 + 0 and 1 + 0 + 1 + 4, over 8 elements.
    assert feature_mse(MS, MT).item() == pytest.approx(12 / 8, rel=1e-12)


def test_l2_mse_and_cosine_distance_equal_the_published_value():
    # ScaleKD's spatial term on this fixture: 0.08 * sum over positions of the squared difference of unit vectors.
    squared_difference = 0.3537832989 / 0.08
    assert feature_mse(MS, MT, normalization="l2").item() == pytest.approx(squared_difference / 8, rel=1e-9)
    assert cosine_distance(MS, MT).item() == pytest.approx(squared_difference / 2 / 4, rel=1e-9)


@given(feature_pairs())
def test_layer_normalisation_equals_torch_layer_norm(pair):
    s, t = (F.layer_norm(x.movedim(1, -1), (x.shape[1],), eps=1e-6) for x in pair)
    assert_close(feature_mse(*pair, normalization="layer"), F.mse_loss(s, t), **EXACT)


@given(feature_pairs())
def test_cosine_distance_is_one_minus_the_cosine(pair):
    s, t = (x.movedim(1, -1).numpy() for x in pair)
    lengths = np.linalg.norm(s, axis=-1) * np.linalg.norm(t, axis=-1)
    usual = (np.linalg.norm(s, axis=-1) > 1e-6) & (np.linalg.norm(t, axis=-1) > 1e-6)
    expected = 1 - (s * t).sum(-1)[usual] / lengths[usual]
    each = cosine_distance(*pair, reduction="none").numpy()
    np.testing.assert_allclose(each[usual], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@given(pair=feature_pairs())
def test_is_zero_when_student_equals_teacher_and_never_negative(loss, pair):
    assert loss(pair[1], pair[1]).item() == 0.0
    assert loss(*pair).item() >= 0.0


@pytest.mark.parametrize("loss", LOSSES)
@given(pair=feature_pairs(), random=st.randoms(use_true_random=False))
def test_ignores_the_order_of_the_channels(loss, pair, random):
    student, teacher = pair
    order = random.sample(range(student.shape[1]), student.shape[1])
    assert_close(loss(student[:, order], teacher[:, order]), loss(student, teacher), **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
@given(pair=feature_pairs())
def test_batch_is_the_mean_of_its_items(loss, pair):
    items = [loss(s[None], t[None]) for s, t in zip(*pair, strict=True)]
    assert_close(loss(*pair), torch.stack(items).mean(), **EXACT)


@pytest.mark.parametrize("function", [feature_mse, cosine_distance])
@given(pair=feature_pairs())
def test_reductions_agree(function, pair):
    each = function(*pair, reduction="none")
    assert_close(function(*pair, reduction="mean"), each.mean(), **EXACT)
    assert_close(function(*pair, reduction="sum"), each.sum(), **EXACT)


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_tokens_with_their_channels_last_give_the_loss_of_the_map(loss):
    student, teacher = torch.randn(2, 3, 8, 5, 5, dtype=torch.float64).unbind()
    tokens = [x.flatten(2).transpose(1, 2) for x in (student, teacher)]
    loss_on_tokens = type(loss)(**{**vars_of(loss), "channel_axis": -1})
    assert_close(loss_on_tokens(*tokens), loss(student, teacher), **EXACT)


def vars_of(loss):
    return {"normalization": loss.normalization} if isinstance(loss, FeatureMSE) else {}


@given(feature_pairs(), st.floats(0.1, 10.0))
def test_cosine_distance_ignores_lengths(pair, scale):
    student, teacher = (x + 20.0 for x in pair)  # far from length zero
    assert_close(cosine_distance(scale * student, teacher), cosine_distance(student, teacher), **EXACT)


def test_layer_normalisation_ignores_scale_and_shift():
    student, teacher = torch.randn(2, 4, 64, dtype=torch.float64).unbind()
    moved = feature_mse(3.0 * student - 5.0, teacher, normalization="layer")
    # Epsilon is 1e-6 on variances near 1.
    assert_close(moved, feature_mse(student, teacher, normalization="layer"), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_features_of_length_zero_give_finite_values_and_gradients(loss):
    student = torch.zeros(2, 4, 3, 3, requires_grad=True)
    value = loss(student, torch.randn(2, 4, 3, 3))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(loss, given_dtype, returned):
    assert loss(MS.to(given_dtype), MT.to(given_dtype)).dtype == returned


def test_a_double_teacher_lifts_a_half_student():
    assert feature_mse(MS.half(), MT).dtype == torch.float64


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_itself_under_bfloat16_autocast(loss):
    student, teacher = torch.randn(2, 4, 8, 3, 3).unbind()
    expected = loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(loss(student, teacher), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_is_finite_where_squares_overflow_half_precision(loss):
    student = torch.full((1, 4, 2, 2), 6e4, dtype=torch.float16, requires_grad=True)
    value = loss(student, -student.detach())
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_gives_the_teacher_no_gradient(loss):
    student, teacher = MS.clone().requires_grad_(), MT.clone().requires_grad_()
    loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_mse_has_the_closed_form_gradient():
    student = MS.clone().requires_grad_()
    feature_mse(student, MT).backward()
    assert_close(student.grad, 2 * (MS - MT) / 8, **EXACT)


def test_repr_shows_the_options():
    assert repr(FeatureMSE()) == "FeatureMSE(normalization='none', channel_axis=1, reduction='mean')"
    assert repr(CosineDistance(channel_axis=-1)) == "CosineDistance(channel_axis=-1, reduction='mean')"


@pytest.mark.parametrize("loss", LOSSES)
def test_refuses_features_that_do_not_fit(loss):
    with pytest.raises(ShapeError, match=r"got \(1, 2, 2, 2\) and \(1, 2, 2, 1\)"):
        loss(MS, MT[..., :1])
    with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(0, 2, 2, 2\)"):
        loss(MS[:0], MT[:0])
    with pytest.raises(TypeError, match=r"`student` must be a floating-point tensor, got torch\.int32"):
        loss(MS.int(), MT)


def test_refuses_unknown_options():
    with pytest.raises(ValueError, match="`normalization` must be one of 'none', 'layer', 'l2', got 'batch'"):
        feature_mse(MS, MT, normalization="batch")
    with pytest.raises(ValueError, match="got 'batch'"):
        FeatureMSE(normalization="batch")
    for function in (feature_mse, cosine_distance):
        with pytest.raises(ValueError, match=r"`reduction` must be one of .*, got 'avg'"):
            function(MS, MT, reduction="avg")
    for module in (FeatureMSE, CosineDistance):
        with pytest.raises(ValueError, match="got 'avg'"):
            module(reduction="avg")
