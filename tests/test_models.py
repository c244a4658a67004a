"""Networks by name."""

import pytest
import torch
from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.models import load_model, parse_spec


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5", -1.5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("none", None),
        ("null", None),
        ("avg", "avg"),
        ("'3'", "3"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_values_are_read_as_python_writes_them(text, value):
    _, _, options = parse_spec(f"timm:resnet18,key={text}")
    assert options == {"key": value}
    assert type(options["key"]) is type(value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "got 'resnet18'; did you mean 'timm:resnet18'"),
        ("nothing", "must be 'timm:NAME', 'torchvision:NAME' or 'package.module:function', got 'nothing'"),
        (":resnet18", "got ':resnet18'"),
        ("timm:", "got 'timm:'"),
        ("timm:resnet18,10", "must be written key=value, got '10'"),
        ("timm:resnet18,=10", "must be written key=value, got '=10'"),
        ("timm:resnet19", "a network of timm, got 'resnet19'; the nearest names are 'resnet18'"),
        ("torchvision:resnet19", "a network of torchvision, got 'resnet19'; the nearest names are 'resnet18'"),
        ("torch.nn:Linaer", "a function of torch.nn, got 'Linaer'; the nearest names are 'Linear'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("timm:resnet18,widht=3", "do not fit the network: .*'widht'"),
        ("torch.nn:Linear", "do not fit the network: .*'in_features'"),
        ("builtins:dict,size=3", "must return a torch.nn.Module, got dict"),
    ],
)
def test_a_wrong_spec_names_the_fix(spec, message):
    with pytest.raises(SetupError, match=message):
        load_model(spec)


def test_timm_torchvision_and_functions_get_their_arguments():
    assert load_model("timm:resnet18,num_classes=7,in_chans=1").fc.out_features == 7
    assert load_model("torchvision:resnet18,num_classes=7").fc.out_features == 7
    assert load_model("torch.nn:Linear,in_features=2,out_features=3,bias=false").bias is None


def test_weights_come_from_the_checkpoint(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "a.pt")
    first, second = (
        load_model("torch.nn:Linear,in_features=2,out_features=3", checkpoint=tmp_path / "a.pt") for _ in range(2)
    )
    torch.testing.assert_close(first.weight, second.weight, rtol=0, atol=0)


def test_options_without_effect_are_refused():
    with pytest.raises(SetupError, match=r"`prefix` .* got 'model\.' without `checkpoint`"):
        load_model("torch.nn:Identity", prefix="model.")
    with pytest.raises(SetupError, match=r"`pretrained` applies to timm and torchvision only, got torch.nn:Identity"):
        load_model("torch.nn:Identity", pretrained=True)
