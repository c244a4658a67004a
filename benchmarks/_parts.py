"""What the parts of a distilled step cost, timed apart from the networks."""

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from lightning_kd import Distiller, Objective
from lightning_kd.adapters import Align
from lightning_kd.recorder import TapRecorder
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap

HOOKED_CALLS = 50


def time_parts(distiller: Distiller, images: Tensor, *, repeats: int) -> dict[str, float]:
    """Median times of the parts of a step, in seconds.

    Args:
        distiller: Built.
        images: A batch for both networks.
        repeats: How often each part is timed.

    Returns:
        ``hooks``: reading every tap of both networks. ``adapters/<objective>`` and ``loss/<objective>``: forward and
        backward passes.
    """
    with distiller.watch() as calls:
        distiller.student(images)
    student, teacher = _detached(calls[0]), distiller.teacher.observe(calls[0].inputs)
    taps = sum(len(objective.student_taps) + len(objective.teacher_taps) for objective in distiller.objectives.values())
    parts = {"hooks": _hooks_s(taps, repeats)}
    for name, objective in distiller.objectives.items():
        whole = _median_s(partial(_pass, objective, student, teacher), repeats)
        adapters = 0.0
        for align, features in _aligned(objective, student, teacher):
            adapters += _median_s(partial(_align, align, *features), repeats)
        parts |= {f"adapters/{name}": adapters, f"loss/{name}": max(whole - adapters, 0.0)}
    return parts


def _pass(objective: Objective, student: Observation, teacher: Observation) -> None:
    objective(student, teacher, Step()).backward()


def _aligned(
    objective: Objective, student: Observation, teacher: Observation
) -> Iterable[tuple[Align, tuple[Tensor, Tensor]]]:
    pairs = getattr(objective, "pairs", list(zip(objective.student_taps, objective.teacher_taps, strict=False)))
    aligns = (module for module in objective.modules() if isinstance(module, Align))
    for align, (student_tap, teacher_tap) in zip(aligns, pairs, strict=False):
        yield align, (student.features[student_tap], teacher.features[teacher_tap])


def _align(align: Align, student: Tensor, teacher: Tensor) -> None:
    projected, _ = align(student, teacher)
    projected.backward(torch.ones_like(projected))


def _detached(call: Observation) -> Observation:
    """The call, its features and output cut from the network."""
    features = {tap: _leaf(feature) for tap, feature in call.features.items()}
    return Observation(call.inputs, _leaf(call.output), features)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _hooks_s(taps: int, repeats: int) -> float:
    """Seconds that reading ``taps`` taps adds to a call of layers that do nothing."""
    net, value = nn.Sequential(*(nn.Identity() for _ in range(taps))), torch.zeros(1)
    bare = _median_s(lambda: net(value), repeats * HOOKED_CALLS)
    recorder = TapRecorder(net, [Tap(str(index)) for index in range(taps)])

    def read() -> None:
        with recorder.recording():
            net(value)

    return max(_median_s(read, repeats * HOOKED_CALLS) - bare, 0.0)


def _median_s(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
