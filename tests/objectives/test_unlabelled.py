"""Claims about distillation on data that nobody labelled."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller, Progress, Ramp
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.objectives import KD3KD, InstanceAlignmentKD, WeightAwareKD

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """A trunk and a linear classifier."""

    def __init__(self, width, classes=3):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, width), nn.Tanh())
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.trunk(x))


def term_of(distiller, progress=None):
    """The term of one call, and what the call showed."""
    progress = Progress() if progress is None else progress
    with distiller.watch(progress) as calls:
        distiller.student(X)
    losses = distiller.losses(torch.zeros(()), calls, progress)
    (term,) = losses.terms.values()
    return term


@pytest.fixture
def kd3():
    """A student, a teacher and their distiller."""

    def make(**options):
        torch.manual_seed(0)
        student, teacher = Net(5), Net(8)
        return student, teacher, Distiller(student, teacher, [KD3KD("fc", "fc", **options)]).build([X])

    return make


def test_kd3_is_the_sum_of_its_three_parts(kd3):
    student, teacher, distiller = kd3(keep=0.5, temperature=2.0, alignment=0.7)
    term = term_of(distiller).detach()

    projection = distiller.objectives["kd3"].projection.weight.detach()
    with torch.no_grad():
        f_s, f_t, z_s, z_t = student.trunk(X), teacher.trunk(X), student(X), teacher(X)
    confidence = ((z_s.softmax(1) + z_t.softmax(1)) / 2).max(1).values
    chosen = sorted(range(6), key=lambda n: -confidence[n])[:3]
    p, q = (z_t / 2).softmax(1), (z_s / 2).softmax(1)
    divergence = 4 * sum((p[n] * (p[n] / q[n]).log()).sum() for n in chosen) / 3
    errors = [(projection @ f_s[n] - f_t[n]).square().mean() for n in chosen]
    weights = [confidence[n] for n in chosen]
    features = sum(w * error for w, error in zip(weights, errors, strict=True)) / sum(weights)
    classifiers = (student.fc.weight.detach() - teacher.fc.weight @ projection).square().mean()
    assert_close(term, divergence + 0.7 * (features + classifiers), rtol=1e-5, atol=1e-6)


def test_samples_that_are_not_kept_teach_nothing(kd3):
    student, teacher, distiller = kd3(keep=1 / 6, alignment=0.0)
    with distiller.watch() as calls:
        logits = student(X)
        logits.retain_grad()
    distiller.losses(torch.zeros(()), calls).total.backward()
    with torch.no_grad():
        confidence = ((logits.softmax(1) + teacher(X).softmax(1)) / 2).max(1).values
    taught = logits.grad.abs().sum(1) > 0
    assert taught.nonzero().flatten().tolist() == [int(confidence.argmax())]


def test_what_is_kept_follows_its_schedule(kd3):
    _, _, distiller = kd3(keep=Ramp(1 / 6, 1.0, over=10), alignment=0.0)
    everything = kd3(keep=1.0, alignment=0.0)[2]
    assert not torch.equal(term_of(distiller), term_of(everything))
    assert torch.equal(term_of(distiller, Progress(epoch=10)), term_of(everything))


def test_classifiers_are_aligned_through_the_projection(kd3):
    student, teacher, distiller = kd3(alignment=1.0)
    projection = distiller.objectives["kd3"].projection
    with torch.no_grad():
        student.fc.weight.copy_(teacher.fc.weight @ projection.weight)
    without = Distiller(student, teacher, [KD3KD("fc", "fc", alignment=0.0)]).build([X])
    aligned = distiller.objectives["kd3"]
    assert_close(aligned._between_classifiers(), torch.tensor(0.0), rtol=0, atol=1e-12)
    assert float(term_of(distiller).detach()) > float(term_of(without).detach())


def test_kd3_teaches_trunk_classifier_and_projection_and_leaves_the_teacher(kd3):
    student, teacher, distiller = kd3()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    term_of(distiller).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in student.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in distiller.adapters.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert list(distiller.adapters.state_dict()) == ["kd3.projection.weight"]


def test_kd3_refuses_what_it_cannot_align():
    with pytest.raises(
        SetupError, match="`student` must be the path of a linear classifier, got Sequential at 'trunk'"
    ):
        Distiller(Net(5), Net(8), [KD3KD("trunk", "fc")]).build([X])
    with pytest.raises(SetupError, match="3 classes of the student and 4 of the teacher"):
        Distiller(Net(5), Net(8, classes=4), [KD3KD("fc", "fc")]).build([X])
    with pytest.raises(ValueError, match="`share` must be a number from 0 to 1, got 2"):
        term_of(Distiller(Net(5), Net(8), [KD3KD("fc", "fc", keep=2.0)]).build([X]))


def test_weight_aware_pseudo_labels_come_from_the_most_similar_labelled_sample():
    torch.manual_seed(0)
    student, teacher = Net(5), Net(8)
    known, labels = teacher.trunk(X[:3]).detach(), torch.tensor([0, 1, 2])
    term = term_of(Distiller(student, teacher, [WeightAwareKD("trunk", known, labels)]))
    with torch.no_grad():
        features = teacher.trunk(X)
        similar = torch.nn.functional.cosine_similarity(features[:, None], known[None], dim=2)
        best = similar.sort(dim=1, descending=True)
        log_q = student(X).log_softmax(1)
    losses = [-log_q[n, best.indices[n, 0]] * (best.values[n, 0] - best.values[n, 1]) for n in range(6)]
    assert_close(term.detach(), sum(losses) / 6, rtol=1e-5, atol=1e-6)
    assert best.indices[:3, 0].tolist() == [0, 1, 2]


def test_weight_aware_needs_no_output_of_the_teacher_and_keeps_its_memory_out_of_checkpoints():
    class Encoder(Net):
        def forward(self, x):
            self.trunk(x)
            raise RuntimeError("the teacher ran past its tap")

    objective = WeightAwareKD("trunk", torch.eye(8), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]))
    distiller = Distiller(Net(5), Encoder(8), [objective])
    assert bool(term_of(distiller).isfinite())
    assert distiller.adapters.state_dict() == {}


def test_weight_aware_refuses_memories_that_do_not_fit():
    with pytest.raises(SetupError, match=r"a sample of every class .* got none of \[1\]"):
        WeightAwareKD("trunk", torch.eye(2), torch.tensor([0, 2]))
    with pytest.raises(ShapeError, match=r"shapes \(M, d\) and \(M,\), got \(2, 2\) and \(3,\)"):
        WeightAwareKD("trunk", torch.eye(2), torch.zeros(3, dtype=torch.long))
    distiller = Distiller(Net(5), Net(8), [WeightAwareKD("trunk", torch.eye(8)[:2], torch.tensor([0, 1]))])
    with pytest.raises(ShapeError, match="`labels` name 2 classes and the student tells 3 apart"):
        term_of(distiller)


def test_weight_aware_reads_its_memory_from_a_file(tmp_path):
    known, labels = torch.randn(4, 8), torch.tensor([0, 1, 2, 1])
    file = str(tmp_path / "known.safetensors")
    save_file({"known": known, "labels": labels}, file)
    given, read = WeightAwareKD("trunk", known, labels), WeightAwareKD("trunk", file)
    assert torch.equal(read.known, given.known)
    assert torch.equal(read.labels, given.labels)
    with pytest.raises(SetupError, match="`labels` must be given beside features"):
        WeightAwareKD("trunk", known)
    with pytest.raises(SetupError, match="`labels` must be given beside features, and not beside the path"):
        WeightAwareKD("trunk", file, labels)
    with pytest.raises(SetupError, match=r"`known` must be the path of a .safetensors file, got .*other"):
        WeightAwareKD("trunk", file + "other")
    save_file({"known": known}, file)
    with pytest.raises(SetupError, match=r"`known` must be a file of `known` and `labels`, got \['known'\] in"):
        WeightAwareKD("trunk", file)


def test_instances_are_to_find_their_twins_among_the_batch():
    student = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    distiller = Distiller(student, None, [InstanceAlignmentKD("1", scale=4.0)])
    with distiller.watch() as calls:
        student(X)
    (term,) = distiller.losses(torch.zeros(()), calls).terms.values()
    features = nn.functional.normalize(student[0](X), dim=1)
    cosines = 4.0 * features[:3] @ features[3:].T
    own = torch.arange(3)
    expected = (nn.functional.cross_entropy(cosines, own) + nn.functional.cross_entropy(cosines.T, own)) / 2
    assert_close(term, expected)


@pytest.mark.parametrize("size", [2, 5])
def test_a_batch_without_twins_is_refused(size):
    student = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    distiller = Distiller(student, None, [InstanceAlignmentKD("1")])
    with distiller.watch() as calls:
        student(X[:size])
    with pytest.raises(ShapeError, match=f"two of each at least, got a batch of {size}"):
        distiller.losses(torch.zeros(()), calls)
