"""Every objective can be named in a YAML file with its defaults, but those that take data."""

import inspect

import pytest
from jsonargparse import ArgumentParser

from lightning_kd import objectives
from lightning_kd.objectives import Objective

NEEDED = {"CRDKD": {"samples": 20000}, "UNICKD": {"teachers": {"first": "layer"}}}
TAKE_DATA = ("WeightAwareKD",)
OBJECTIVES = [
    name
    for name in objectives.__all__
    if name not in ("Matching", "Objective", "PairedObjective", *TAKE_DATA)
    and issubclass(getattr(objectives, name), Objective)
]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_made_from_its_class_path_and_places(name):
    kind = getattr(objectives, name)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    places = {p.name: "layer" for p in parameters if p.default is p.empty}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Objective, "objective")
    settings = {"class_path": f"lightning_kd.objectives.{name}", "init_args": places | NEEDED.get(name, {})}
    made = parser.instantiate(parser.parse_object({"objective": settings})).objective
    assert type(made) is kind
    assert made.weight == inspect.signature(kind.__init__).parameters["weight"].default
