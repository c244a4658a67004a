"""Images reach a teacher as it knows them, by what both networks declare."""

import pytest
import timm
import torch
from torch import nn

from exporters.preprocessing import ImagePreprocessing
from lightning_kd import Distiller, FrozenTeacher, KnowledgeDistillation, LogitKD
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.teachers import InputSpec, NormalizedView

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def test_timms_networks_declare_theirs():
    spec = InputSpec.of(timm.create_model("resnet18"))
    assert (spec.mean, spec.std, spec.size) == (IMAGENET_MEAN, IMAGENET_STD, (224, 224))
    assert spec.interpolation == timm.create_model("resnet18").pretrained_cfg["interpolation"]


def test_a_network_made_for_another_size_takes_that_size():
    assert InputSpec.of(timm.create_model("test_vit", img_size=64)).size == (64, 64)


def test_timms_data_configurations_and_our_preprocessing_are_read():
    config = {"mean": HALF, "std": HALF, "input_size": (3, 96, 128), "interpolation": "bicubic", "crop_pct": 1.0}
    assert InputSpec.of(config) == InputSpec(HALF, HALF, (96, 128), "bicubic")
    assert InputSpec.of(ImagePreprocessing(mean=HALF, std=HALF, resize=32)).size == (32, 32)


def test_image_processors_of_transformers_are_read():
    from transformers import ViTImageProcessor

    processor = ViTImageProcessor(image_mean=list(HALF), image_std=list(IMAGENET_STD), size={"height": 48, "width": 64})
    assert InputSpec.of(processor) == InputSpec(HALF, IMAGENET_STD, (48, 64))


def test_the_image_is_the_same_behind_both_normalisations():
    image = torch.rand(2, 3, 8, 8)
    student, teacher = InputSpec(IMAGENET_MEAN, IMAGENET_STD), InputSpec(HALF, HALF)

    def normalised(spec):
        return (image - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]

    seen = NormalizedView(student, teacher)(normalised(student))
    torch.testing.assert_close(seen, normalised(teacher), rtol=1e-5, atol=1e-6)


def test_equal_declarations_pass_the_very_tensor_on():
    image = torch.rand(1, 3, 8, 8)
    spec = InputSpec(HALF, HALF, size=(8, 8))
    assert NormalizedView(spec, spec)(image) is image


def test_declared_transforms_are_made_when_the_teacher_meets_the_student():
    student = timm.create_model("test_vit", img_size=64, num_classes=5)
    teacher = timm.create_model("resnet18", num_classes=5)
    frozen = FrozenTeacher(teacher, input_transform="declared")
    distiller = Distiller(student, frozen)
    assert frozen.input_transform == NormalizedView(InputSpec.of(student), InputSpec.of(teacher))
    with distiller.watch() as calls:
        task = student(torch.randn(2, 3, 64, 64)).sum()
    distiller.losses(task, calls)
    assert frozen.observe(calls[0].inputs).inputs.args[0].shape == (2, 3, 224, 224)


def test_the_callback_takes_declared_as_a_word():
    kd = KnowledgeDistillation(nn.Linear(2, 2), input_transform="declared", objectives=[LogitKD()])
    assert kd.input_transform == "declared"


def test_what_declares_nothing_is_refused_by_name():
    with pytest.raises(SetupError, match="`Linear` does not declare size, mean and standard deviation"):
        Distiller(timm.create_model("test_resnet"), FrozenTeacher(nn.Linear(2, 2), input_transform="declared"))
    with pytest.raises(SetupError, match="`Linear` does not declare"):
        Distiller(nn.Linear(2, 2), FrozenTeacher(timm.create_model("test_resnet"), input_transform="declared"))


def test_feature_extractors_of_speech_are_sent_to_their_own_view():
    from transformers import ASTFeatureExtractor

    with pytest.raises(SetupError, match=r"`ASTFeatureExtractor` takes audio: pass input_transform=WaveformView"):
        InputSpec.of(ASTFeatureExtractor(num_mel_bins=32))


def test_wrong_values_and_shapes_are_refused():
    with pytest.raises(SetupError, match=r"one value per channel, std above 0, got \(0\.5,\) and \(0\.0,\)"):
        InputSpec((0.5,), (0.0,))
    with pytest.raises(SetupError, match="equally many channels, got 3 and 1"):
        NormalizedView(InputSpec(HALF, HALF), InputSpec((0.5,), (0.5,)))
    with pytest.raises(ShapeError, match=r"must have shape \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        NormalizedView(InputSpec(HALF, HALF), InputSpec(HALF, HALF))(torch.zeros(2, 1, 8, 8))
