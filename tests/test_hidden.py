"""Children that train but are not saved."""

import copy

import pytest
from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.hidden import add_hidden_child


def test_a_hidden_child_trains_but_is_not_saved():
    parent = nn.Sequential(nn.Linear(2, 2))
    bare = list(parent.state_dict())
    remove = add_hidden_child(parent, "helper", nn.Linear(3, 3))
    outer = nn.ModuleDict({"inner": copy.deepcopy(parent)})
    assert list(parent.state_dict()) == bare
    assert list(outer.state_dict()) == [f"inner.{name}" for name in bare]
    assert len(list(outer.parameters())) == 4
    outer.load_state_dict(outer.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
        parent.load_state_dict({})
    with pytest.raises(SetupError, match="`helper` is already an attribute of Sequential"):
        add_hidden_child(parent, "helper", nn.Linear(3, 3))
    remove()
    assert [name for name, _ in parent.named_children()] == ["0"]
