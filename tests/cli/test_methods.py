"""``lightning-kd methods`` and the rows behind it."""

import json
import re

import pytest

from lightning_kd import objectives, recipes
from lightning_kd.methods import METHODS
from lightning_kd.objectives import Objective

ABSTRACT = {"Objective", "PairedObjective"}


def test_every_objective_has_a_row():
    public = {
        name
        for name in objectives.__all__
        if isinstance(getattr(objectives, name), type) and issubclass(getattr(objectives, name), Objective)
    }
    assert {method.objective for method in METHODS} == public - ABSTRACT


def test_every_recipe_has_a_row():
    others = {"LogitEnsemble", "Stage", "ground_truth_weight", "in_stages"}
    assert {method.recipe for method in METHODS} - {""} == set(recipes.__all__) - others


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_row_is_whole_and_names_its_source(method):
    assert all((method.name, method.moves, method.needs, method.cost))
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:|ours|Interspeech \d{4}|from memory", method.source)
    if method.source.startswith("arXiv") and not method.name.startswith("Born"):
        documented = getattr(objectives, method.objective).__doc__ + _doc(method.recipe)
        assert method.source.split()[0].rstrip(",") in documented


def _doc(recipe):
    return getattr(recipes, recipe).__doc__ if recipe else ""


def test_the_table_lists_every_method(run):
    status, out, _ = run("methods")
    assert status == 0
    assert f"{len(METHODS)} of {len(METHODS)} methods" in out
    assert all(method.name in out for method in METHODS)


def test_words_choose_rows_and_json_holds_them(run):
    status, out, _ = run("methods", "labels", "APART", "--json")
    assert status == 0
    assert [method["name"] for method in json.loads(out)["methods"]] == ["DKD", "NKD"]


def test_markdown_is_one_row_for_each_method(run):
    status, out, _ = run("methods", "--markdown")
    assert status == 0
    assert len(out.splitlines()) == len(METHODS) + 2
    assert all(line.count("|") == 8 for line in out.splitlines())
