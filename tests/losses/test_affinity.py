"""Claims about `affinity_mimicking` and `image_text_contrastive`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import AffinityMimicking, ImageTextContrastive, affinity_mimicking, image_text_contrastive

EXACT = {"rtol": 1e-9, "atol": 1e-12}
EYE = torch.eye(2, dtype=torch.float64)
IMAGES = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
TEXTS = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)


@st.composite
def towers(draw):
    """Images and texts of a student and of a wider teacher."""
    samples, widths = draw(st.integers(1, 6)), draw(st.sampled_from([(3, 5), (4, 4), (8, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return [torch.from_numpy(rng.normal(size=(samples, width))) for width in widths for _ in range(2)]


scales = st.sampled_from([0.5, 2.0, 50.0])


def affinities(image, text, scale):
    image, text = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (image, text))
    return scale * image @ text.T


def reference(student_image, student_text, teacher_image, teacher_text, student_scale, teacher_scale):
    """Image to text, and text to image."""
    student = affinities(student_image, student_text, student_scale)
    teacher = affinities(teacher_image, teacher_text, teacher_scale)
    return [-(softmax(teacher, axis=axis) * log_softmax(student, axis=axis)).sum(axis=axis) for axis in (1, 0)]


def test_equals_the_published_values():
    directions = [x.mean() for x in reference(IMAGES, TEXTS, EYE, IMAGES, 2.0, 2.0)]
    assert directions == pytest.approx([0.7460401958, 0.8268742434], rel=1e-9)
    loss = affinity_mimicking(IMAGES, TEXTS, EYE, IMAGES, student_scale=2.0, teacher_scale=2.0)
    assert loss.item() == pytest.approx(0.7864572196, rel=1e-9)


def test_contrastive_equals_the_hand_derived_value():
    # Logits log 3 on the diagonal and 0 beside it: each finds its own with probability 3/4, both ways.
    assert image_text_contrastive(EYE, EYE, scale=np.log(3.0)).item() == pytest.approx(np.log(4 / 3), rel=1e-12)


@given(towers(), scales, scales)
def test_equals_the_reference(embeddings, student_scale, teacher_scale):
    loss = affinity_mimicking(*embeddings, student_scale=student_scale, teacher_scale=teacher_scale, reduction="none")
    expected = sum(reference(*embeddings, student_scale, teacher_scale)) / 2
    assert_close(loss, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


@given(towers(), scales)
def test_contrastive_equals_the_reference(embeddings, scale):
    logits = affinities(*embeddings[:2], scale)
    expected = -sum(np.diag(log_softmax(logits, axis=axis)) for axis in (0, 1)).mean() / 2
    assert image_text_contrastive(*embeddings[:2], scale=scale).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(towers(), scales)
def test_has_no_gradient_at_equality(embeddings, scale):
    image, text = (x.clone().requires_grad_() for x in embeddings[2:])
    affinity_mimicking(image, text, *embeddings[2:], student_scale=scale, teacher_scale=scale).backward()
    assert_close(image.grad, torch.zeros_like(image), rtol=0.0, atol=1e-12)
    assert_close(text.grad, torch.zeros_like(text), rtol=0.0, atol=1e-12)


@given(towers(), st.floats(0.1, 10.0))
def test_ignores_the_lengths_of_the_embeddings(embeddings, factor):
    stretched = [factor * (index + 1) * x for index, x in enumerate(embeddings)]
    assert_close(affinity_mimicking(*stretched), affinity_mimicking(*embeddings), **EXACT)


@given(towers())
def test_swapping_images_and_texts_changes_nothing(embeddings):
    s_image, s_text, t_image, t_text = embeddings
    assert_close(affinity_mimicking(s_text, s_image, t_text, t_image), affinity_mimicking(*embeddings), **EXACT)


@given(towers(), st.randoms(use_true_random=False))
def test_ignores_the_order_of_the_samples(embeddings, random):
    order = random.sample(range(len(embeddings[0])), len(embeddings[0]))
    assert_close(affinity_mimicking(*[x[order] for x in embeddings]), affinity_mimicking(*embeddings), **EXACT)


@given(towers())
def test_reductions_agree(embeddings):
    each = affinity_mimicking(*embeddings, reduction="none")
    assert each.shape == (len(embeddings[0]),)
    assert_close(affinity_mimicking(*embeddings), each.mean(), **EXACT)
    assert_close(affinity_mimicking(*embeddings, reduction="sum"), each.sum(), **EXACT)
    each = image_text_contrastive(*embeddings[:2], reduction="none")
    assert_close(image_text_contrastive(*embeddings[:2]), each.mean(), **EXACT)


def test_a_batch_of_one_has_nothing_to_tell_apart():
    image, text = torch.randn(2, 1, 8, requires_grad=True).unbind()
    assert affinity_mimicking(image, text, text.detach(), image.detach()).item() == 0.0
    assert image_text_contrastive(image, text).item() == 0.0


def test_the_students_scale_learns_and_the_teachers_does_not():
    student_scale, teacher_scale = (torch.tensor(2.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    teacher = IMAGES.clone().requires_grad_()
    affinity_mimicking(IMAGES, TEXTS, EYE, teacher, student_scale=student_scale, teacher_scale=teacher_scale).backward()
    assert student_scale.grad.abs() > 0
    assert teacher_scale.grad is None
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_is_finite_and_float32_under_bfloat16_autocast(dtype):
    embeddings = [torch.randn(8, 16).to(dtype) for _ in range(4)]
    expected = affinity_mimicking(*embeddings), image_text_contrastive(*embeddings[:2])
    image = embeddings[0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = affinity_mimicking(*embeddings), image_text_contrastive(*embeddings[:2])
    sum(losses).backward()
    assert_close(losses, expected, rtol=1e-6, atol=0.0)
    assert losses[0].dtype == torch.float32
    assert image.grad.isfinite().all()


def test_an_embedding_of_zero_gives_finite_gradients():
    image = torch.zeros(2, 4, requires_grad=True)
    affinity_mimicking(image, *[torch.randn(2, 4) for _ in range(3)]).backward()
    assert image.grad.isfinite().all()


def test_modules_compute_the_functions():
    mimicking, contrastive = AffinityMimicking(student_scale=2.0, teacher_scale=3.0), ImageTextContrastive(scale=2.0)
    embeddings = IMAGES, TEXTS, EYE, IMAGES
    assert mimicking(*embeddings) == affinity_mimicking(*embeddings, student_scale=2.0, teacher_scale=3.0)
    assert contrastive(IMAGES, TEXTS) == image_text_contrastive(IMAGES, TEXTS, scale=2.0)
    assert repr(mimicking) == "AffinityMimicking(student_scale=2.0, teacher_scale=3.0, reduction='mean')"
    assert repr(contrastive) == "ImageTextContrastive(scale=2.0, reduction='mean')"


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"`student_image` and `student_text` .* got \(2, 2\) and \(1, 2\)"):
        affinity_mimicking(IMAGES, TEXTS[:1], EYE, EYE)
    with pytest.raises(ShapeError, match="same samples, got 2 and 1 embeddings"):
        affinity_mimicking(IMAGES, TEXTS, EYE[:1], EYE[:1])
    with pytest.raises(ShapeError, match=r"`image` and `text` .* not empty, got \(0, 2\) and \(0, 2\)"):
        image_text_contrastive(IMAGES[:0], TEXTS[:0])
    with pytest.raises(TypeError, match=r"`text` must be a floating-point tensor, got torch\.int64"):
        image_text_contrastive(IMAGES, TEXTS.long())
    with pytest.raises(ValueError, match=r"`teacher_scale` must be a finite number above 0, got 0\.0"):
        affinity_mimicking(IMAGES, TEXTS, EYE, EYE, teacher_scale=0.0)
    with pytest.raises(ShapeError, match=r"`scale` must be a number or a tensor of shape \(\), got shape \(1,\)"):
        image_text_contrastive(IMAGES, TEXTS, scale=torch.ones(1))
    with pytest.raises(ValueError, match=r"`scale` must be a finite number above 0, got -1\.0"):
        ImageTextContrastive(scale=-1.0)
