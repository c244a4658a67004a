"""Claims about `CRDKD`."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd.errors import SetupError
from lightning_kd.indexed import IndexedDataset
from lightning_kd.objectives import CRDKD

CNN_AND_VIT = [("test_resnet", "layer4", "test_vit", "blocks.5"), ("test_vit", "blocks.5", "test_convnext", "stages.3")]


def reference(objective, student, teacher, candidates, banks):
    """The published sums, one sample and one side at a time, in NumPy."""
    n = len(banks[0])
    total = 0.0
    for feature, embedding, bank in (
        (student, objective.student_embedding, banks[1]),
        (teacher, objective.teacher_embedding, banks[0]),
    ):
        weight, bias = (parameter.detach().numpy() for parameter in (embedding.weight, embedding.bias))
        rows = feature.mean((2, 3)).numpy() @ weight.T + bias
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        scores = np.exp([[row @ bank[j] / 0.07 for j in drawn] for row, drawn in zip(rows, candidates, strict=True)])
        p = scores / (scores.mean() * n)
        noise = (p.shape[1] - 1) / n
        total -= np.log(p[:, 0] / (p[:, 0] + noise + 1e-7)).sum() / len(p)
        total -= np.log(noise / (p[:, 1:] + noise + 1e-7)).sum() / len(p)
    return total


def small(**options):
    return CRDKD("a", "b", **{"samples": 9, "negatives": 8, "width": 4, **options})


def test_the_published_numbers_are_the_defaults():
    assert repr(CRDKD("a", "b", samples=50_000)) == (
        "CRDKD(samples=50000, negatives=16384, width=128, temperature=0.07, momentum=0.5)"
    )
    assert CRDKD("a", "b", samples=50_000).weight == 0.8


@pytest.mark.parametrize(("student", "s_tap", "teacher", "t_tap"), CNN_AND_VIT)
@pytest.mark.parametrize("by_class", [False, True])
def test_trains_a_network_of_another_family(by_class, student, s_tap, teacher, t_tap, net, train_three_steps):
    labels = torch.arange(12) % 10
    data = IndexedDataset(TensorDataset(torch.randn(12, 3, 64, 64), labels))
    objective = CRDKD(s_tap, t_tap, samples=len(data), labels=labels if by_class else None, negatives=8)
    result = train_three_steps(net(student), net(teacher), [objective], dataset=data)
    assert result.metrics["kd/crd"] > 0
    assert objective.memory.log_partitions.isfinite().all()
    assert {"crd.memory.student", "crd.memory.teacher"} <= result.kd.state_dict()["adapters"].keys()


def test_equals_the_published_sums(over_features):
    # All eight others are negatives, so that what is drawn is known but for its order.
    student, teacher = torch.randn(3, 5, 4, 4), torch.randn(3, 7, 4, 4)
    objective = small()
    term = over_features(objective, [student], [teacher])
    banks = [bank.numpy().copy() for bank in (objective.memory.student, objective.memory.teacher)]
    indices = torch.tensor([7, 0, 4])
    candidates = [[i, *(j for j in range(9) if j != i)] for i in indices.tolist()]
    value = term([student], [teacher], batch={"index": indices})
    assert value.item() == pytest.approx(reference(objective, student, teacher, candidates, banks), rel=1e-5)


def test_remembers_the_batch_after_its_scores(over_features):
    student, teacher = torch.randn(3, 5, 4, 4), torch.randn(3, 7, 4, 4)
    objective = small()
    term = over_features(objective, [student], [teacher])
    before, indices = objective.memory.student.clone(), torch.tensor([7, 0, 4])
    term([student], [teacher], batch={"index": indices})
    embeddings = torch.nn.functional.normalize(objective.student_embedding(student.mean((2, 3))), dim=1)
    mixed = (before[indices] + embeddings) / 2
    assert_close(objective.memory.student[indices], mixed / mixed.norm(dim=1, keepdim=True))
    untouched = [1, 2, 3, 5, 6, 8]
    assert torch.equal(objective.memory.student[untouched], before[untouched])


def test_both_embeddings_learn_and_the_teacher_does_not(over_features):
    student, teacher = (torch.randn(3, 5, 4, 4, requires_grad=True) for _ in range(2))
    objective = small()
    term = over_features(objective, [student], [teacher])
    term([student], [teacher.detach()], batch={"index": torch.arange(3)}).backward()
    assert student.grad.ne(0).any()
    assert all(parameter.grad.ne(0).any() for parameter in objective.parameters())


def test_is_reproducible_from_the_seed(over_features):
    values = []
    for _ in range(2):
        torch.manual_seed(3)
        feature = torch.randn(3, 5, 4, 4)
        term = over_features(small(negatives=2), [feature], [feature])
        values.append(term([feature], [feature], batch={"index": torch.arange(3)}))
    assert torch.equal(*values)


@pytest.mark.parametrize("samples", [1, 3])
def test_is_finite_under_bfloat16_autocast(samples, over_features):
    student, teacher = torch.randn(samples, 5, 4, 4), torch.randn(samples, 7, 4, 4)
    objective = small()
    term = over_features(objective, [student], [teacher])
    student = student.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term([student], [teacher.bfloat16()], batch={"index": torch.arange(samples)})
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert student.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in objective.parameters())


def test_mixed_labels_do_not_matter(over_features):
    feature = torch.randn(2, 5, 4, 4)
    term = over_features(small(labels=[0, 0, 0, 1, 1, 1, 2, 2, 2], negatives=6), [feature], [feature])
    loader = DataLoader(IndexedDataset(TensorDataset(feature, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))), batch_size=2)
    assert term([feature], [feature], batch=next(iter(loader))).isfinite()


def test_refuses_batches_that_do_not_name_their_samples(over_features):
    feature = torch.randn(2, 5, 4, 4)
    term = over_features(small(), [feature], [feature])
    with pytest.raises(SetupError, match=r"wrap the training data, IndexedDataset\(dataset\)"):
        term([feature], [feature], batch=(feature, torch.arange(2)))
    with pytest.raises(SetupError, match="must be whole numbers"):
        term([feature], [feature], batch={"index": torch.rand(2)})
    with pytest.raises(SetupError, match="from 0 to 8, for 9 samples, got 1 to 9"):
        term([feature], [feature], batch={"index": torch.tensor([1, 9])})


def test_refuses_more_negatives_than_there_are_others():
    with pytest.raises(ValueError, match="`negatives` must be from 1 to 9999, as many of the 10000 samples"):
        CRDKD("a", "b", samples=10_000)
    with pytest.raises(ValueError, match="`samples` must be the size of the data set"):
        CRDKD("a", "b")
    with pytest.raises(ValueError, match="`width` must be a finite number above 0, got 0"):
        small(width=0)
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, got 0"):
        small(temperature=0)
    with pytest.raises(ValueError, match=r"`momentum` must be at least 0 and below 1, got 1\.5"):
        small(momentum=1.5)
