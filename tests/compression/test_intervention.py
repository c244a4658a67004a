"""A student whose attention is its teacher's computes what the teacher computes, and learns nothing through it."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Progress, Tap
from lightning_kd.compression.intervention import Interventions, gradual_intervention
from lightning_kd.errors import SetupError
from lightning_kd.recorder import TapRecorder
from lightning_kd.teachers import FrozenTeacher

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
PADDED = {"input_ids": TOKENS, "attention_mask": TOKENS.ne(0).long()}


def timm_vit():
    return timm.create_model("test_vit", img_size=32, num_classes=5, depth=2)


def transformers_vit():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16))


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(BertConfig(vocab_size=20, initializer_range=0.3, **sizes, **without_dropout))


NETWORKS = [(timm_vit, {"x": IMAGES}), (transformers_vit, {"pixel_values": IMAGES}), (bert, PADDED)]
QUERIES_AND_KEYS = (".q_proj.", ".k_proj.", ".query.", ".key.")
VALUES = (".v_proj.", ".value.")


def student_of(teacher, *, values):
    """A copy with other queries and keys, and other values if wanted, in training mode."""
    student = copy.deepcopy(teacher).train()
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if ".qkv." in name:
                parts = parameter if values else parameter[: len(parameter) * 2 // 3]
                parts.add_(torch.randn_like(parts))
            elif any(part in name for part in QUERIES_AND_KEYS + (VALUES if values else ())):
                parameter.add_(torch.randn_like(parameter))
    return student


def run(network, inputs):
    output = network(**inputs)
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize(("make", "inputs"), NETWORKS)
@pytest.mark.parametrize(("signal", "values"), [("output", True), ("context", True), ("map", False)])
def test_a_student_that_differs_in_attention_only_becomes_its_teacher(make, inputs, signal, values):
    teacher = make().eval()
    student = student_of(teacher, values=values)
    interventions = Interventions(student, FrozenTeacher(teacher))
    interventions.attach()
    expected = run(teacher, inputs)
    assert not torch.allclose(run(student, inputs), expected, atol=1e-3)
    interventions.signal = signal
    assert_close(run(student, inputs), expected, rtol=1e-4, atol=1e-5)
    student.eval()
    assert not torch.allclose(run(student, inputs), expected, atol=1e-3)
    interventions.detach()
    for network in (student, teacher):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(("make", "inputs"), NETWORKS)
@pytest.mark.parametrize(
    ("signal", "without", "with_gradient"), [("map", "qk", "v"), ("context", "qkv", ""), ("output", "qkv", "")]
)
def test_the_output_teaches_only_what_is_still_the_students(make, inputs, signal, without, with_gradient):
    student = student_of(make().eval(), values=True)
    interventions = Interventions(student, FrozenTeacher(make().eval()))
    interventions.attach()
    interventions.signal = signal
    run(student, inputs).square().sum().backward()
    learnt = ""
    for block in interventions.pairs:
        module = block[0].reader.module.module
        if hasattr(module, "qkv"):
            gradient = module.qkv.weight.grad
            parts = [None] * 3 if gradient is None else gradient.chunk(3)
        else:
            names = ("q_proj", "k_proj", "v_proj") if hasattr(module, "q_proj") else ("query", "key", "value")
            parts = [getattr(module, name).weight.grad for name in names]
        learnt += "".join(n for n, g in zip("qkv", parts, strict=True) if g is not None and bool(g.ne(0).any()))
    assert learnt == with_gradient * 2


@pytest.mark.parametrize("signal", ["output", "context", "map"])
@pytest.mark.parametrize(("make", "inputs"), NETWORKS)
def test_losses_on_queries_train_them_and_nothing_before(make, inputs, signal):
    student = student_of(make().eval(), values=True)
    interventions = Interventions(student, FrozenTeacher(make().eval()))
    tap = interventions.pairs[1][0].reader.taps[0]
    recorder = TapRecorder(student, [tap])
    interventions.attach()
    interventions.signal = signal
    with recorder.recording() as calls:
        run(student, inputs)
    queries = calls[0].features[tap]
    queries[..., : queries.shape[-1] // (3 if tap.path.endswith("qkv") else 1)].square().sum().backward()
    reached = [name for name, p in student.named_parameters() if p.grad is not None and bool(p.grad.ne(0).any())]
    assert {name.rpartition(".")[0] for name in reached} == {tap.path}


def test_gradual_intervention_goes_from_the_output_to_the_map():
    signals = [gradual_intervention(Progress(step, total_steps=12)) for step in range(12)]
    assert signals == ["output"] * 2 + ["context"] * 2 + ["map"] * 8
    with pytest.raises(SetupError, match="needs the number of steps"):
        gradual_intervention(Progress(3))


def test_networks_that_do_not_correspond_are_refused():
    deeper = timm.create_model("test_vit", img_size=32, num_classes=5, depth=3)
    with pytest.raises(SetupError, match="got 2 and 3 attention modules"):
        Interventions(timm_vit(), FrozenTeacher(deeper))
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8), 1, enable_nested_tensor=False)
    with pytest.raises(SetupError, match="queries, keys and values inside of one call"):
        Interventions(encoder, FrozenTeacher(copy.deepcopy(encoder)))
    wider = timm.create_model("test_vit", img_size=32, num_classes=5, depth=2, embed_dim=128)
    interventions = Interventions(timm_vit().train(), FrozenTeacher(wider))
    interventions.attach()
    interventions.signal = "context"
    with pytest.raises(SetupError, match=r"has shape \(2, 5, 128\) and the student's \(2, 5, 64\)"):
        interventions.student(IMAGES)


def test_a_map_with_position_biases_is_refused():
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=28, embed_dim=16, depths=(1, 1), num_heads=(2, 2), num_classes=3
    )
    for name, parameter in swin.named_parameters():
        if name.endswith("relative_position_bias_table"):
            parameter.data.normal_()
    student = copy.deepcopy(swin).train()
    interventions = Interventions(student, FrozenTeacher(swin))
    interventions.attach()
    interventions.signal = "map"
    with pytest.raises(SetupError, match="cannot be computed from its queries"):
        student(torch.randn(1, 3, 28, 28))


def test_places_are_those_behind_the_attention():
    block = Interventions(bert(), FrozenTeacher(bert())).pairs[0][0]
    assert block.context == Tap("bert.encoder.layer.0.attention.output.dense", at="input")


def test_the_map_is_recognised_in_half_precision():
    teacher = timm_vit().eval()
    student = student_of(teacher, values=False)
    interventions = Interventions(student, FrozenTeacher(teacher))
    interventions.attach()
    interventions.signal = "map"
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(student(IMAGES), teacher(IMAGES), rtol=0.1, atol=0.1)
