"""Taps and the recorder that reads them."""

import copy

import pytest
import timm
import torch
from torch import nn

from lightning_kd.errors import LayoutError, TapError
from lightning_kd.layout import Layout, LayoutHints
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Inputs, Tap, layout_hints, module_paths, pick_tensor, resolve_module


class Twice(nn.Module):
    """Runs one layer twice and returns a tuple."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, *, bias=None):
        first = self.layer(x)
        return first, self.layer(first if bias is None else first + bias)


def record(model, *taps, inputs=None, **kwargs):
    recorder = TapRecorder(model, taps, name="student")
    with recorder.recording() as calls:
        model(*(inputs or (torch.ones(2, 4),)), **kwargs)
    recorder.detach()
    return calls[0]


def test_reads_inputs_and_outputs_of_any_module():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)
    inside, outside = Tap("1", at="input"), Tap("0")
    call = record(model, inside, outside, Tap(""), inputs=(x,))
    assert torch.equal(call.features[inside], call.features[outside])
    assert torch.equal(call.features[Tap("")], call.output)
    assert call.inputs.args == (x,)


def test_a_module_that_runs_twice_needs_a_choice():
    model, x = Twice(), torch.ones(2, 4)
    with pytest.raises(TapError, match=r"'layer' ran 2 times in one forward pass.*Tap\('layer', call=0\)"):
        record(model, Tap("layer"))
    call = record(model, Tap("layer", call=0), Tap("layer", call=-1))
    assert torch.equal(call.features[Tap("layer", call=0)], model.layer(x))
    assert torch.equal(call.features[Tap("layer", call=-1)], call.output[1])
    with pytest.raises(TapError, match="ran 2 times, got call=5"):
        record(model, Tap("layer", call=5))


def test_select_takes_one_of_several_tensors():
    model = nn.ModuleDict({"twice": Twice()})
    model.forward = lambda x: model["twice"](x, bias=x)[1]
    by_index, by_key = Tap("twice", select=1), Tap("twice", at="input", select="bias")
    call = record(model, by_index, by_key)
    assert torch.equal(call.features[by_index], call.output)
    assert torch.equal(call.features[by_key], torch.ones(2, 4))
    with pytest.raises(TapError, match=r"the student tap 'twice' holds no tensor at select=7"):
        record(model, Tap("twice", select=7))
    with pytest.raises(TapError, match=r"without a tensor 'scale'.*of \['bias'\]"):
        record(model, Tap("twice", at="input", select="scale"))


def test_a_tap_that_does_not_fire_raises():
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
    model.forward = model["used"].forward
    with pytest.raises(TapError, match="the student tap 'unused' did not fire"):
        record(model, Tap("unused"))


def test_nothing_is_recorded_outside_and_nothing_is_kept():
    model = nn.Linear(4, 4)
    recorder = TapRecorder(model, [Tap("")])
    model(torch.ones(2, 4))
    with recorder.recording() as calls:
        pass
    assert calls == []
    with pytest.raises(RuntimeError, match="shapes"), recorder.recording() as calls:
        model(torch.ones(2, 5))
    assert calls == []
    assert recorder._calls == recorder._open == []


def test_a_copy_of_a_hooked_module_runs_and_records_nothing():
    model = nn.Linear(4, 4)
    recorder = TapRecorder(model, [Tap("")])
    twin = copy.deepcopy(model)
    with recorder.recording() as calls:
        model(torch.ones(2, 4))
    assert len(calls) == 1
    twin(torch.ones(2, 4))
    recorder.detach()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "inside"}, "`at` must be one of 'output', 'input', got 'inside'"),
        ({"axes": "NLC"}, "`axes` must be one of .*'NLD'.*got 'NLC'"),
        ({"prefix_tokens": -1}, "`prefix_tokens` must not be negative, got -1"),
    ],
)
def test_taps_check_their_values(options, message):
    with pytest.raises(ValueError, match=message):
        Tap("layer", **options)
    with pytest.raises(TypeError, match="`path` must be the dotted path of a module, got 3"):
        Tap(3)


def test_declared_layouts_win_over_detection():
    hints = LayoutHints(image_size=(224, 224))
    assert Tap("a", axes="NHWC").layout((2, 56, 56, 56), hints) == Layout("NHWC")
    assert Tap("a", prefix_tokens=1).layout((2, 197, 8), hints) == Layout("NLD", 1, (14, 14))
    assert Tap("a", prefix_tokens=1, grid=(7, 28)).layout((2, 197, 8), hints) == Layout("NLD", 1, (7, 28))
    assert Tap("a", axes="NTD").layout((2, 197, 8), hints) == Layout("NTD")
    with pytest.raises(LayoutError, match="194 tokens do not fill"):
        Tap("a", prefix_tokens=3).layout((2, 197, 8), hints)


def test_paths_do_not_spell_the_wrapper_of_compiled_modules():
    model = nn.ModuleDict({"net": torch.compile(nn.Sequential(nn.Linear(2, 2)))})
    assert list(module_paths(model)) == ["", "net", "net.0"]
    assert resolve_module(model, "net.0") is model["net"]._orig_mod[0]
    assert resolve_module(model, "net") is model["net"]


def test_timm_models_say_what_their_tokens_are():
    vit = timm.create_model("vit_tiny_patch16_224", reg_tokens=4, depth=1, img_size=32)
    assert layout_hints(vit, "blocks.0", Inputs((torch.zeros(1, 3, 32, 32),))) == LayoutHints(5, False, (32, 32))
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=24, num_heads=(1, 1, 1, 1))
    assert layout_hints(swin, "layers.0", Inputs()) == LayoutHints(0, True, None)


def test_pick_tensor_reads_what_models_return():
    x = torch.ones(1)
    assert pick_tensor(x, None, "it") is x
    assert pick_tensor((x, 3), None, "it") is x
    assert pick_tensor({"logits": x}, None, "it") is x
    assert pick_tensor([1, x], 1, "it") is x
    with pytest.raises(TapError, match=r"it holds no tensor at select=None: it is a tuple of \['int'\]"):
        pick_tensor((1,), None, "it")
    with pytest.raises(TapError, match="it is of type str"):
        pick_tensor("text", None, "it")
