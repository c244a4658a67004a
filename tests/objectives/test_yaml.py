"""Every objective can be named in a YAML file with its defaults."""

import inspect

import pytest
import torch
from jsonargparse import ArgumentParser
from safetensors.torch import save_file

from lightning_kd import objectives
from lightning_kd.objectives import Objective

NEEDED = {"CRDKD": {"samples": 20000}, "UNICKD": {"teachers": {"first": "layer"}}}
OBJECTIVES = [
    name
    for name in objectives.__all__
    if name not in ("Matching", "Objective", "PairedObjective") and issubclass(getattr(objectives, name), Objective)
]


@pytest.fixture
def needed(tmp_path):
    """What has no default, by objective."""
    known = str(tmp_path / "known.safetensors")
    save_file({"known": torch.eye(3), "labels": torch.arange(3)}, known)
    return NEEDED | {"WeightAwareKD": {"known": known}}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_made_from_its_class_path_and_places(name, needed):
    kind = getattr(objectives, name)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    places = {p.name: "layer" for p in parameters if p.default is p.empty}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Objective, "objective")
    settings = {"class_path": f"lightning_kd.objectives.{name}", "init_args": places | needed.get(name, {})}
    made = parser.instantiate(parser.parse_object({"objective": settings})).objective
    assert type(made) is kind
    assert made.weight == inspect.signature(kind.__init__).parameters["weight"].default
