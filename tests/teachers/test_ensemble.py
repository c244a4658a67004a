"""Several teachers as one: the mean of probabilities, weights per member and per sample, and the features of each."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd import Distiller, FeatureKD, FrozenTeacher, LogitKD, Step, Tap
from lightning_kd.errors import SetupError, ShapeError, TapError
from lightning_kd.losses import soft_cross_entropy
from lightning_kd.taps import Inputs
from lightning_kd.teachers import EnsembleTeacher, Execution
from lightning_kd.teachers.weighting import member_weights

ZS = torch.tensor([[2, 0.5, -1], [0, 1, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3, 0, -1], [0.5, 2, -0.5]], dtype=torch.float64)
OTHER = torch.tensor([[1, 1, 0], [0, 3, 0]], dtype=torch.float64)


class Says(nn.Module):
    """Returns the same scores whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        return self.logits


def joint(members, *, step=None, **options):
    return EnsembleTeacher([Says(z) for z in members], **options).observe(Inputs.of(ZS), step=step).output


def test_the_target_is_the_mean_of_probabilities_and_not_of_logits():
    means = {average: joint([ZT, OTHER], average=average)["logits"] for average in ("probabilities", "logits")}
    # From the sheet of MEAL V2, computed there with NumPy.
    assert soft_cross_entropy(ZS, means["probabilities"]).item() == pytest.approx(0.8103619190, abs=1e-9)
    assert soft_cross_entropy(ZS, means["logits"]).item() == pytest.approx(0.7188953079, abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_at_its_temperature_the_softmax_is_the_mean_of_the_members(temperature):
    output = joint([ZT, OTHER], temperature=temperature)
    expected = (F.softmax(ZT / temperature, 1) + F.softmax(OTHER / temperature, 1)) / 2
    torch.testing.assert_close(F.softmax(output["logits"] / temperature, 1), expected)
    assert torch.equal(output["members"], torch.stack([ZT, OTHER]))


def test_one_member_is_that_member():
    torch.testing.assert_close(F.softmax(joint([ZT])["logits"], 1), F.softmax(ZT, 1))


def test_weights_are_shares():
    output = joint([ZT, OTHER], weights=[3.0, 1.0])
    torch.testing.assert_close(F.softmax(output["logits"], 1), 0.75 * F.softmax(ZT, 1) + 0.25 * F.softmax(OTHER, 1))
    only = joint([ZT, OTHER], weights=[0.0, 2.0])
    torch.testing.assert_close(F.softmax(only["logits"], 1), F.softmax(OTHER, 1))


def test_confidence_weighs_each_sample_by_the_largest_probability():
    p = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.6, 0.4], [1.0, 0.0]]], dtype=torch.float64)
    weights = member_weights(p.log(), "confidence")
    expected = torch.tensor([[0.9 / 1.5, 0.5 / 1.5], [0.6 / 1.5, 1.0 / 1.5]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)


def test_entropy_prefers_the_member_that_is_sure():
    p = torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]], dtype=torch.float64)
    # Entropies ln 2 and 0: exp(-H) is 1/2 and 1.
    torch.testing.assert_close(member_weights(p.log(), "entropy").flatten(), torch.tensor([1 / 3, 2 / 3]).double())


def test_labels_weigh_by_who_is_less_wrong():
    p = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]], dtype=torch.float64)
    # exp(cross-entropy) is 1/p: 2 and 4, shares 1/3 and 2/3, and one minus them.
    expected = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    for labels in (torch.tensor([0]), torch.tensor([[0.9, 0.1]])):
        torch.testing.assert_close(member_weights(p.log(), "labels", labels).flatten(), expected)


@pytest.mark.parametrize("rule", ["confidence", "entropy", "labels", None])
def test_weights_sum_to_one_and_equal_members_count_alike(rule):
    labels, log_p = torch.tensor([0, 2, 1]), torch.randn(4, 3, 5).log_softmax(-1)
    for same in (False, True):
        weights = member_weights(log_p[:1].expand(4, -1, -1) if same else log_p, rule, labels)
        torch.testing.assert_close(weights.expand(4, 3).sum(0), torch.ones(3))
        if same:
            torch.testing.assert_close(weights.expand(4, 3), torch.full((4, 3), 0.25))


def test_labels_come_from_the_batch_of_the_step():
    step = Step(batch=(ZS, torch.tensor([0, 1])))
    weighted = joint([ZT, OTHER], weights="labels", step=step)["logits"]
    log_p = torch.stack([ZT, OTHER]).log_softmax(-1)
    weights = member_weights(log_p, "labels", torch.tensor([0, 1]))[..., None]
    torch.testing.assert_close(weighted.exp(), (weights * log_p.exp()).sum(0))
    outside = joint([ZT, OTHER], weights="labels")["logits"]
    torch.testing.assert_close(outside.exp(), log_p.exp().mean(0))


def test_dense_scores_keep_their_classes_on_axis_1_and_labels_out_of_range_do_not_matter():
    members = torch.randn(2, 2, 3, 4, 4)
    labels = torch.randint(3, (2, 8, 8))
    labels[0, 0] = 255
    output = joint(list(members), weights="labels", step=Step(batch=(None, labels)))
    assert output["logits"].shape == (2, 3, 4, 4)
    torch.testing.assert_close(output["logits"].exp().sum(1), torch.ones(2, 4, 4))


def test_an_objective_reads_the_joint_logits():
    student = nn.Linear(3, 3).double()
    distiller = Distiller(student, EnsembleTeacher([Says(ZT), Says(OTHER)]), [LogitKD(temperature=1.0)])
    with distiller.watch() as calls:
        logits = student(ZS)
    p = (F.softmax(ZT, 1) + F.softmax(OTHER, 1)) / 2
    expected = (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(distiller.losses(logits.sum() * 0, calls).terms["logit"], expected)


def test_features_of_each_member_are_read_under_its_name_and_nobody_else_runs():
    cnn, vit = timm.create_model("test_resnet"), timm.create_model("test_vit", img_size=64)
    idle = Says(ZT)
    teacher = EnsembleTeacher({"cnn": cnn, "vit": vit, "idle": idle})
    taps = [Tap("cnn.layer2"), Tap("vit.blocks.1")]
    teacher.tap(taps)
    images = torch.randn(2, 3, 64, 64)
    seen = teacher.observe(Inputs.of(images), stop=True)
    assert seen.output is None
    assert idle.runs == 0
    for tap, net in zip(taps, (cnn, vit), strict=True):
        alone = FrozenTeacher(net)
        own = Tap(tap.path.partition(".")[2])
        alone.tap([own])
        assert torch.equal(seen.features[tap], alone.observe(Inputs.of(images)).features[own])
        alone.untap()
    assert list(teacher.observe(Inputs.of(images), taps=taps[:1], stop=True).features) == taps[:1]
    teacher.untap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.module.modules())


def test_a_student_learns_features_of_two_architectures():
    cnn, vit = timm.create_model("test_resnet"), timm.create_model("test_vit", img_size=64)
    student = timm.create_model("test_resnet", num_classes=1000)
    terms = [FeatureKD("layer2", "cnn.layer2"), FeatureKD("layer3", "vit.blocks.1", name="tokens"), LogitKD()]
    images = torch.randn(2, 3, 64, 64)
    distiller = Distiller(student, EnsembleTeacher({"cnn": cnn, "vit": vit}), terms).build([images])
    with distiller.watch() as calls:
        task = student(images).sum()
    losses = distiller.losses(task, calls)
    losses.total.backward()
    assert all(term > 0 for term in losses.terms.values())


def test_members_may_see_different_inputs():
    half = FrozenTeacher(nn.Flatten(), input_transform=lambda x: x[:, :, ::2])
    teacher = EnsembleTeacher({"all": nn.Flatten(), "odd": half})
    with pytest.raises(
        ShapeError, match=r"one label set and one grid, got shapes \{'all': \(1, 4\), 'odd': \(1, 2\)\}"
    ):
        teacher.observe(Inputs.of(torch.zeros(1, 1, 4)))


def test_streams_of_members_are_those_of_the_ensemble():
    assert not EnsembleTeacher([nn.Identity()]).overlaps
    assert EnsembleTeacher([FrozenTeacher(nn.Identity(), execution=Execution(stream=True))]).overlaps


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EnsembleTeacher([]), SetupError, r"at least one network, by names without dots .*, got \[\]"),
        (lambda: EnsembleTeacher({"a.b": nn.Identity()}), SetupError, r"got \['a\.b'\]"),
        (lambda: EnsembleTeacher({"half": nn.Identity()}), SetupError, r"that no module uses, got \['half'\]"),
        (lambda: EnsembleTeacher(["resnet"]), SetupError, "`module` must be .* got 'resnet'"),
        (lambda: EnsembleTeacher([nn.Identity()], weights="best"), ValueError, "`weights` must be one of .* 'best'"),
        (lambda: EnsembleTeacher([nn.Identity()], average="votes"), ValueError, "`average` must be one of .* 'votes'"),
        (lambda: EnsembleTeacher([nn.Identity()], temperature=0), ValueError, "`temperature` .* got 0"),
        (lambda: joint([ZT, OTHER], weights=[1.0]), ShapeError, "one value for each of 2 members, got 1"),
        (lambda: joint([ZT, OTHER], weights=[-1.0, 2.0]), ValueError, r"not all 0, got \[-1\.0, 2\.0\]"),
        (lambda: joint([ZT], weights="labels", step=Step(batch=(0, torch.tensor([0, 1])))), SetupError, "got one"),
        (lambda: EnsembleTeacher([nn.Identity()]).tap([Tap("layer1")]), TapError, r"one of \['0'\]"),
        (lambda: member_weights(torch.zeros(2, 1, 2), "labels"), SetupError, "needs the labels of the batch, got none"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
