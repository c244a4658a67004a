"""Claims about `EarlyExits`."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import exporters
from lightning_kd.errors import SetupError, TapError
from lightning_kd.students import EarlyExits, Exit, lgvit_exits
from lightning_kd.students._find import find_part
from lightning_kd.taps import Tap

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
OF_VIT = [Exit("blocks.1"), Exit("blocks.2"), Exit("blocks.3", "global", 2), Exit("blocks.4", "global", 3)]
OF_RESNET = [Exit("layer1"), Exit("layer2"), Exit("layer3", "global", 2)]


@pytest.fixture
def vit():
    return timm.create_model("test_vit", img_size=64, num_classes=10)


@pytest.fixture
def student(vit):
    return EarlyExits(vit, OF_VIT, final="norm", example=IMAGES)


@pytest.mark.parametrize(
    ("name", "exits", "final"),
    [
        ("test_vit", OF_VIT, "norm"),
        ("test_resnet", OF_RESNET, "layer4"),
        ("test_convnext", [Exit("stages.0"), Exit("stages.2", "global")], "stages.3"),
    ],
)
def test_returns_the_logits_of_every_exit_and_of_any_backbone(name, exits, final):
    backbone = timm.create_model(name, num_classes=7)
    student = EarlyExits(backbone, exits, final=final, example=IMAGES).eval()
    assert [z.shape for z in student(IMAGES)] == [(2, 7)] * (len(exits) + 1)
    assert torch.equal(student(IMAGES)[-1], backbone(IMAGES))


def test_leaves_the_backbone_as_it_was(vit):
    before = copy.deepcopy(vit.state_dict())
    student = EarlyExits(vit, OF_VIT, final="norm", example=IMAGES)
    student(IMAGES)
    assert student.backbone is vit
    assert vit.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in vit.state_dict().items())
    assert vit.training


def test_exits_have_features_of_the_final_width():
    backbone = timm.create_model("test_resnet", num_classes=10)
    student = EarlyExits(backbone, OF_RESNET, final="layer4", example=IMAGES)
    shapes = []
    for head in student.exits:
        head.features.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    student(IMAGES)
    width = backbone.num_features
    assert shapes == [(2, width, 16, 16), (2, width, 8, 8), (2, width, 2, 2)]


def test_global_exits_attend_over_a_reduced_grid(student):
    grids = []
    for head in student.exits:
        head.features.register_forward_hook(lambda _, __, output: grids.append(tuple(output.shape[2:])))
    student(IMAGES)
    # 4 x 4 patches; averaging squares of side 2 gives 2 x 2, of side 3 (the last ones cut off) 2 x 2
    assert grids == [(4, 4), (4, 4), (2, 2), (2, 2)]


def test_an_exit_reads_nothing_behind_its_place(student):
    before = [z.detach() for z in student.eval()(IMAGES)]
    with torch.no_grad():
        for parameter in student.backbone.blocks[3].parameters():
            parameter.add_(torch.randn_like(parameter))
    after = student(IMAGES)
    unchanged = [torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert unchanged == [True, True, False, False, False]


def test_gradients_reach_backbone_and_exits(student):
    sum(z.square().mean() for z in student(IMAGES)).backward()
    assert all(p.grad is not None for p in student.parameters())


def test_a_sample_does_not_depend_on_its_batch(student):
    together, alone = student(IMAGES), student(IMAGES[:1])
    for batch, one in zip(together, alone, strict=True):
        assert_close(batch[:1], one, rtol=1e-4, atol=1e-5)


def test_a_copy_reads_its_own_backbone(student):
    copied = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(z.count_nonzero() > 0 for z in copied(IMAGES))
    copied(IMAGES)[0].sum().backward()
    assert copied.backbone.blocks[0].attn.qkv.weight.grad is not None
    assert student.backbone.blocks[0].attn.qkv.weight.grad is None


def test_the_whole_network_and_the_bare_backbone_can_be_captured(student):
    student.eval()
    program = torch.export.export(student, (IMAGES,))
    for captured, own in zip(program.module()(IMAGES), student(IMAGES), strict=True):
        assert_close(captured, own)
    bare = torch.export.export(student.backbone, (IMAGES,))
    assert_close(bare.module()(IMAGES), student(IMAGES)[-1])


def test_an_exporters_copy_has_its_own_exits(student, tmp_path):
    artifact = exporters.export(student, IMAGES, to="onnx", path=tmp_path / "student.onnx")
    assert len(artifact.parity.outputs) == 5
    assert max(output.max_abs_of_range for output in artifact.parity.outputs) < 1e-4


def test_compiled_exits_say_the_same(student):
    compiled = torch.compile(student, backend="eager")
    for ours, theirs in zip(student(IMAGES), compiled(IMAGES), strict=True):
        assert_close(ours, theirs)


def test_nothing_is_kept_after_a_call(student):
    before = [set(vars(module)) for module in student.modules()]
    student(IMAGES)
    with pytest.raises(RuntimeError):
        student(torch.zeros(2, 5, 64, 64))
    student.backbone(IMAGES)
    assert [set(vars(module)) for module in student.modules()] == before


def test_two_exits_may_leave_at_one_place(vit):
    student = EarlyExits(vit, [Exit("blocks.2"), Exit("blocks.2", "global")], final="norm", example=IMAGES)
    assert len(student(IMAGES)) == 3


def test_a_place_may_choose_among_several_outputs():
    class Pair(nn.Module):
        def forward(self, x):
            return x, 2 * x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.head = Pair(), nn.Linear(3, 4)

        def forward(self, x):
            return self.head(self.pair(x)[1].mean(dim=(2, 3)))

    student = EarlyExits(Net(), [Exit(Tap("pair", select=1))], final=Tap("pair", select=0), example=IMAGES)
    assert len(student(IMAGES)) == 2


def test_refuses_places_it_cannot_read(vit):
    with pytest.raises(SetupError, match="at least one Exit, got none"):
        EarlyExits(vit, [], final="norm", example=IMAGES)
    with pytest.raises(TapError, match=r"`blocks\.99` names no module of the backbone"):
        EarlyExits(vit, [Exit("blocks.99")], final="norm", example=IMAGES)
    with pytest.raises(SetupError, match=r"must read the output .* at='input'"):
        EarlyExits(vit, [Exit(Tap("blocks.1", at="input"))], final="norm", example=IMAGES)


def test_a_module_that_runs_twice_cannot_be_left():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.times = nn.Conv2d(3, 3, 1), nn.Linear(3, 4), 1

        def forward(self, x):
            for _ in range(self.times):
                x = self.body(x)
            return self.head(x.mean(dim=(2, 3)))

    backbone = Twice()
    student = EarlyExits(backbone, [Exit("body")], final="body", example=IMAGES)
    backbone.times = 2
    with pytest.raises(TapError, match="'body' ran 2 times"):
        student(IMAGES)
    backbone.times = 0
    with pytest.raises(TapError, match="'body' ran 0 times"):
        student(IMAGES)


@pytest.mark.parametrize(("kind", "reduction"), [("local", 2), ("global", 0)])
def test_refuses_a_reduction_without_meaning(kind, reduction):
    with pytest.raises(ValueError, match=f"got {reduction}"):
        Exit("blocks.1", kind, reduction)


def test_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="`kind` must be one of 'local', 'global', got 'conv'"):
        Exit("blocks.1", "conv")


def test_a_part_is_found_wherever_it_is(student):
    assert find_part(student, EarlyExits, "student") == ("", student)
    assert find_part(nn.Sequential(nn.ReLU(), student), EarlyExits, "student") == ("1.", student)
    assert find_part(torch.compile(student), EarlyExits, "student") == ("", student)
    with pytest.raises(SetupError, match=r"the student \(ReLU\) must hold exactly one EarlyExits, found 0"):
        find_part(nn.ReLU(), EarlyExits, "student")
    with pytest.raises(SetupError, match="found 2"):
        find_part(nn.ModuleList([student, copy.deepcopy(student)]), EarlyExits, "student")


def test_lgvit_arranges_four_local_and_four_global_exits():
    exits = lgvit_exits([f"blocks.{index}" for index in range(8)])
    assert [exit_.kind for exit_ in exits] == ["local"] * 4 + ["global"] * 4
    assert [exit_.reduction for exit_ in exits] == [1, 1, 1, 1, 2, 2, 3, 3]
    assert [exit_.reduction for exit_ in lgvit_exits(["a", "b", "c"])] == [1, 2, 3]
    assert lgvit_exits(["a"]) == [Exit("a", "global", 2)]
