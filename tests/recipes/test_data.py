"""Recipes that choose the data: published values, and three real steps of distillation alone."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller, Tap, recipes
from lightning_kd.callbacks import WeightAligning
from lightning_kd.errors import SetupError
from lightning_kd.incremental import extend_classifier
from lightning_kd.selection import sample_features

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 4])


def test_a_part_of_the_data_is_distilled_with_the_weight_that_goes_with_it():
    kd = recipes.pruned_kd(nn.Linear(4, 3), 0.3)
    (term,) = kd.objectives
    # 1 - 0.3 * 0.5, and the labels have the rest.
    assert (term.weight, kd.task_weight, term.temperature) == (0.85, 0.15, 4.0)
    whole = recipes.pruned_kd(nn.Linear(4, 3), 1.0, full=0.9, temperature=1.0)
    assert (whole.objectives[0].weight, whole.task_weight) == (0.9, 0.1)


def test_class_incremental_has_the_published_loss():
    old, new = nn.Linear(4, 3), nn.Linear(4, 5)
    kd, aligning = recipes.class_incremental(old, classifier="net", old_classes=3, classes=5)
    distiller = Distiller(new, kd.teacher, kd.objectives, task_weight=kd.task_weight)
    with distiller.watch() as calls:
        task = nn.functional.cross_entropy(new(X), Y)
    total = distiller.losses(task, calls).total
    # (1 - 3/5) CE + 3/5 of the divergence at temperature 2, without the factor 4.
    p, q = (old(X) / 2).softmax(1), (new(X)[:, :3] / 2).softmax(1)
    assert_close(total, 0.4 * task + 0.6 * (p * (p / q).log()).sum(1).mean())
    assert (aligning.classifier, aligning.old_classes) == ("net", 3)


@pytest.mark.parametrize(("old", "classes"), [(0, 3), (3, 3), (4, 3)])
def test_class_incremental_needs_old_and_new_classes(old, classes):
    with pytest.raises(SetupError, match=f"got {old} old of {classes}"):
        recipes.class_incremental(nn.Linear(4, 3), classifier="net", old_classes=old, classes=classes)


def classifier_of(network):
    """Path of the linear layer that a small timm network ends in."""
    return [path for path, module in network.named_modules() if isinstance(module, nn.Linear)][-1]


@pytest.mark.parametrize(("student", "teacher"), [("test_resnet", "test_vit"), ("test_vit", "test_resnet")])
def test_students_learn_from_every_recipe_alone(student, teacher, net, learn_alone):
    for make in (pruned, kd3, weight_aware):
        network, frozen = net(student), net(teacher)
        learn_alone(network, [make(network, frozen)])
        assert list(network.state_dict()) == list(net(student).state_dict())


def pruned(_, teacher):
    return recipes.pruned_kd(teacher, 0.5, path="net")


def kd3(student, teacher):
    classifiers = classifier_of(student), classifier_of(teacher)
    return recipes.kd3(teacher, classifiers=classifiers, path="net", perturbed=True)


def weight_aware(_, teacher):
    place = Tap(classifier_of(teacher), at="input")
    known = sample_features(teacher, [torch.randn(10, 3, 64, 64)], place)
    return recipes.weight_aware(teacher, place, known=known, labels=torch.arange(10), path="net")


def test_a_student_learns_new_classes_from_the_network_it_was(net, learn_alone):
    teacher, network = net("test_resnet", classes=3), net("test_resnet", classes=3)
    network.load_state_dict(teacher.state_dict())
    path = classifier_of(network)
    network.set_submodule(path, extend_classifier(network.get_submodule(path), 5))
    kd, aligning = recipes.class_incremental(teacher, classifier=f"net.{path}", old_classes=3, classes=5, path="net")
    assert isinstance(aligning, WeightAligning)
    learn_alone(network, [kd])
