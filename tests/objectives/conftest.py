"""Objectives seen apart from a Trainer: their gradient alone, and on features instead of networks."""

import pytest
import torch
from torch import nn

from lightning_kd.adapters import Probe
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation


@pytest.fixture
def student_gradient():
    """Gradient of the term alone, without the task loss: which of the student's parameters does it reach?"""

    def gradient(distiller, images, batch=None):
        with distiller.watch() as calls:
            distiller.student(images)
        losses = distiller.losses(images.new_zeros(()), calls, batch=batch)
        losses.total.backward()
        return {
            name
            for name, parameter in distiller.student.named_parameters()
            if parameter.grad is not None and bool(parameter.grad.ne(0).any())
        }

    return gradient


@pytest.fixture
def over_features():
    """Build an objective from features instead of networks; return the term as a function of features."""

    def observe(taps, features):
        return Observation(
            Inputs((torch.zeros(len(features[0]), 3, 64, 64),)), None, dict(zip(taps, features, strict=True))
        )

    def probe(taps, features):
        return Probe(nn.ModuleDict({tap.path: nn.Identity() for tap in taps if tap.path}), observe(taps, features))

    def build(objective, students, teachers):
        taps = objective.student_taps, objective.teacher_taps
        objective.build(probe(taps[0], students), probe(taps[1], teachers))

        def term(students, teachers, **step):
            return objective(observe(taps[0], students), observe(taps[1], teachers), Step(**step))

        return term

    return build
