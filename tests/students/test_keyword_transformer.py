"""Claims about KWT; its export is in tests/exporters/test_speech.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd import Distiller
from lightning_kd.errors import ShapeError
from lightning_kd.objectives import DeiTKD
from lightning_kd.students import KeywordTransformer

SECOND = torch.randn(2, 40, 98, generator=torch.Generator().manual_seed(0))


# The paper has 607, 2,394 and 5,361 thousand. By hand for width d: 12 blocks of 12 d^2 + 10 d (3 d^2 of queries, keys
# and values without bias, d^2 + d, two norms of 2 d, and 8 d^2 + 5 d), 41 d for the frames, 100 d for token and
# positions, and 12 d + 12 for the head.
@pytest.mark.parametrize(("width", "count"), [(64, 607_308), (128, 2_394_252), (192, 5_360_844)])
def test_has_the_published_number_of_parameters(width, count):
    assert count == 12 * (12 * width**2 + 10 * width) + (41 + 100 + 12) * width + 12
    assert sum(parameter.numel() for parameter in KeywordTransformer(width).parameters()) == count


def test_a_distillation_token_adds_itself_its_position_and_a_head():
    plain, distilled = KeywordTransformer(64), KeywordTransformer(64, distilled=True)
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (plain, distilled)]
    assert sizes[1] - sizes[0] == 64 + 64 + 64 * 12 + 12


def test_blocks_normalise_after_each_addition():
    block = KeywordTransformer(64, depth=1).blocks[0].eval()
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
    frames = torch.randn(2, 5, 64)
    query, key, value = (F.linear(frames, weight) for weight in block.attn.qkv.weight.chunk(3))
    mixed = block.attn.proj((query @ key.transpose(1, 2) / 8).softmax(-1) @ value)
    middle = block.norm1(frames + mixed)
    torch.testing.assert_close(block(frames), block.norm2(middle + block.mlp(middle)), rtol=1e-4, atol=1e-5)


def test_heads_look_apart():
    block = KeywordTransformer(128, depth=1).blocks[0]
    assert block.attn.num_heads == 2
    frames = torch.randn(1, 4, 128)
    wanted = []
    for head in range(2):
        rows = slice(64 * head, 64 * head + 64)
        query, key, value = (F.linear(frames, weight[rows]) for weight in block.attn.qkv.weight.chunk(3))
        wanted.append((query @ key.transpose(1, 2) / 8).softmax(-1) @ value)
    torch.testing.assert_close(block.attn(frames), block.attn.proj(torch.cat(wanted, -1)), rtol=1e-4, atol=1e-5)


def test_inference_averages_both_heads():
    student = KeywordTransformer(64, depth=1, distilled=True)
    of_class, of_distillation = student(SECOND)
    assert not torch.equal(of_class, of_distillation)
    torch.testing.assert_close(student.eval()(SECOND), (of_class + of_distillation) / 2)


class Says(nn.Module):
    """A network whose logits are its parameters."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.ParameterList(torch.tensor([row], dtype=torch.float64) for row in logits)

    def forward(self, _):
        return tuple(self.logits) if len(self.logits) > 1 else self.logits[0]


def test_hard_distillation_equals_the_published_value():
    student, teacher = Says([2.0, 1.0, 0.0], [0.0, 1.0, 1.0]), Says([0.0, 3.0, 0.0])
    distiller = Distiller(student, teacher, [DeiTKD(label_smoothing=0.1)], task_weight=0.5)
    with distiller.watch() as calls:
        of_class, of_distillation = student(torch.zeros(1, 1, dtype=torch.float64))
    task = F.cross_entropy(of_class, torch.tensor([0]), label_smoothing=0.1)
    losses = distiller.losses(task, calls)
    assert task.item() == pytest.approx(0.507605964, abs=1e-9)
    assert losses.terms["deit"].item() == pytest.approx(0.895328137, abs=1e-9)
    assert losses.total.item() == pytest.approx(0.701467051, abs=1e-9)
    assert ((of_class + of_distillation) / 2).tolist() == [[1.0, 1.0, 0.5]]


def test_other_features_are_refused():
    with pytest.raises(ShapeError, match=r"`features` must have shape \(N, 40, 98\), got \(2, 40, 101\)"):
        KeywordTransformer(64, depth=1)(torch.randn(2, 40, 101))
    with pytest.raises(ValueError, match="`width` must be a multiple of 64, the width of a head, got 96"):
        KeywordTransformer(96)
