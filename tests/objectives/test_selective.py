"""Claims about selective distillation of dense predictions, from a teacher and between peers."""

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from lightning_kd import Distiller, KnowledgeDistillation
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import cosine_distance, selective_pixel_kl, selective_region_cosine
from lightning_kd.objectives import BSDKD, HFDKD, SelectiveKD
from lightning_kd.students.peers import Peers

CLASSES, PIXELS, IGNORED = 5, 64, 255


class Segmenter(nn.Module):
    """A timm backbone, a 1x1 convolution on its last map, scores on a stride of its own."""

    def __init__(self, name, stride, **options):
        super().__init__()
        self.stride = stride
        self.backbone = timm.create_model(name, features_only=True, **options)
        self.head = nn.Conv2d(self.backbone.feature_info.channels()[-1], CLASSES, 1)

    def forward(self, x):
        size = [cells // self.stride for cells in x.shape[2:]]
        return F.interpolate(self.head(self.backbone(x)[-1]), size=size, mode="bilinear")


def convolutional(stride=8):
    return Segmenter("test_resnet", stride)


def pyramid(stride=4):
    return Segmenter("pvt_v2_b0", stride, depths=(1,) * 4)


def segformer():
    config = SegformerConfig(
        num_labels=CLASSES,
        depths=[1] * 4,
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 1, 2, 4],
        decoder_hidden_size=16,
    )
    return SegformerForSemanticSegmentation(config)


NETS = {
    "cnn": (convolutional, "backbone.layer1", "backbone.layer3"),
    "pyramid": (pyramid, "backbone.stages_0", "backbone.stages_2"),
    "segformer": (segformer, "segformer.stages.0.layer_norm", "segformer.stages.2.layer_norm"),
}


def masks(samples):
    """Labels of full resolution, a quarter of them ignored; the first image has none at all."""
    labels = torch.randint(CLASSES, (samples, PIXELS, PIXELS))
    labels[torch.rand(labels.shape) < 0.25] = IGNORED
    labels[0] = IGNORED
    return labels


class Segmentation(L.LightningModule):
    """What a user has: the cross-entropy of every network's scores, at the resolution of the labels."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.gradients = set()

    def training_step(self, batch, batch_idx):
        x, y = batch
        outputs = self.net(x)
        outputs = outputs if isinstance(self.net, Peers) else (outputs,)
        scores = [output if isinstance(output, torch.Tensor) else output.logits for output in outputs]
        full = [F.interpolate(score, size=y.shape[1:], mode="bilinear") for score in scores]
        return sum(F.cross_entropy(score, y, ignore_index=IGNORED) for score in full)

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)

    def on_after_backward(self):
        self.gradients |= {name for name, p in self.named_parameters() if p.grad is not None and p.grad.ne(0).any()}


@pytest.fixture
def segment(tmp_path):
    """Distil for three steps on masks of which the first has no label; check who learnt, and what is exported."""

    def train(student, teacher, objectives):
        module, keys = Segmentation(student), list(student.state_dict())
        kd = KnowledgeDistillation(teacher, student="net", objectives=objectives)
        trainer = L.Trainer(
            max_steps=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[kd],
        )
        data = TensorDataset(torch.randn(12, 3, PIXELS, PIXELS), masks(12))
        trainer.fit(module, DataLoader(data, batch_size=4))
        adapters = {f"_kd_adapters.{name}" for name, _ in kd._distiller.adapters.named_parameters()}
        assert adapters <= module.gradients
        assert list(student.state_dict()) == keys
        assert all(p.isfinite().all() for p in student.parameters())
        return module, {key: float(value) for key, value in trainer.callback_metrics.items()}

    return train


@pytest.fixture
def peers():
    return Peers(convolutional(), pyramid())


def observed(student, teacher, objective, images):
    distiller = Distiller(student, teacher, [objective]).build([images])
    with distiller.watch() as calls:
        student(images)
    return distiller, calls


def gradients(module):
    return {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.ne(0).any()}


@pytest.mark.parametrize(("student", "teacher"), [("cnn", "pyramid"), ("pyramid", "cnn"), ("segformer", "cnn")])
def test_a_teacher_of_another_family_is_selected_from(student, teacher, segment):
    (make_student, _, student_tap), (make_teacher, _, teacher_tap) = NETS[student], NETS[teacher]
    net, frozen = make_student(), make_teacher()
    module, metrics = segment(net, frozen, [SelectiveKD(student_tap, teacher_tap, regions=4)])
    assert metrics["kd/selective"] > 0
    assert any(name.startswith("net.") for name in module.gradients)
    assert all(p.grad is None for p in frozen.parameters())


@pytest.mark.parametrize(("a", "b"), [("cnn", "pyramid"), ("segformer", "cnn")])
def test_two_peers_of_different_families_train_in_one_fit(a, b, segment):
    (make_a, low_a, high_a), (make_b, low_b, high_b) = NETS[a], NETS[b]
    student = Peers(make_a(), make_b())
    objectives = [HFDKD(f"a.{low_a}", f"b.{low_b}"), BSDKD(f"a.{high_a}", f"b.{high_b}", regions=4)]
    module, metrics = segment(student, None, objectives)
    assert metrics["kd/hfd"] > 0
    assert metrics["kd/bsd"] > 0
    assert {name.split(".")[1] for name in module.gradients if name.startswith("net.")} == {"a", "b"}
    assert list(student.a.state_dict()) == list(make_a().state_dict())
    assert list(student.b.state_dict()) == list(make_b().state_dict())


def test_the_term_of_a_teacher_is_the_sum_of_its_losses():
    # Scores of strides 8 and 4 meet on stride 8, where every eighth label is read; maps of stride 16 agree already.
    student, teacher, images, labels = convolutional(8).eval(), pyramid(4), torch.randn(3, 3, PIXELS, PIXELS), masks(3)
    objective = SelectiveKD("backbone.layer3", "backbone.stages_2", regions=2)
    distiller, calls = observed(student, teacher, objective, images)
    term = distiller.losses(torch.zeros(()), calls, batch=(images, labels)).terms["selective"]
    taught = distiller.teacher.observe(calls[0].inputs)
    logits = calls[0].output, F.avg_pool2d(taught.output, 2)
    s, t = calls[0].features[objective.student_taps[0]], taught.features[objective.teacher_taps[0]]
    s = objective.transfer.adapters[0].projection(s)
    expected = selective_pixel_kl(*logits, labels[:, ::8, ::8])
    expected = expected + selective_region_cosine(s, t, *logits, labels[:, ::8, ::8], regions=2)
    assert_close(term, expected, rtol=1e-6, atol=0)


def test_peers_teach_each_other_in_both_directions(peers):
    images, labels = torch.randn(3, 3, PIXELS, PIXELS), masks(3)
    distiller, calls = observed(peers.eval(), None, BSDKD(), images)
    term = distiller.losses(torch.zeros(()), calls, batch=(images, labels)).terms["bsd"]
    a, b = calls[0].output[0], F.avg_pool2d(calls[0].output[1], 2)
    read = labels[:, ::8, ::8]
    assert_close(term, selective_pixel_kl(a, b, read) + selective_pixel_kl(b, a, read), rtol=1e-6, atol=0)


def test_low_layers_meet_in_the_width_of_either_side(peers):
    images = torch.randn(3, 3, PIXELS, PIXELS)
    distiller, calls = observed(peers.eval(), None, HFDKD("a.backbone.layer1", "b.backbone.stages_0"), images)
    (to_a, to_b), objective = distiller.objectives["hfd"].adapters, distiller.objectives["hfd"]
    a, b = (calls[0].features[tap] for tap in objective.student_taps)
    b_map = to_a(a, b)[1]
    expected = cosine_distance(to_a.projection(a), b_map) + cosine_distance(to_b.projection(b_map), a)
    assert_close(distiller.losses(torch.zeros(()), calls).terms["hfd"], expected, rtol=1e-6, atol=0)


def test_where_one_peer_is_always_right_only_the_other_learns(peers):
    class Certain(nn.Module):
        """Scores that agree with the labels, from features of its own."""

        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x) + 100 * F.one_hot(x[:, 0, ::8, ::8].long(), CLASSES).movedim(-1, 1)

    student = Peers(convolutional(), Certain(pyramid(8)))
    labels = torch.randint(CLASSES, (2, PIXELS, PIXELS))
    images = torch.cat([labels[:, None].float(), torch.randn(2, 2, PIXELS, PIXELS)], dim=1)
    objective = BSDKD("a.backbone.layer3", "b.net.backbone.stages_2")
    distiller, calls = observed(student, None, objective, images)
    distiller.losses(torch.zeros(()), calls, batch=(images, labels)).total.backward()
    assert gradients(student) == {"a"}


@pytest.mark.parametrize("samples", [1, 2])
def test_terms_and_gradients_are_finite_under_bfloat16_autocast(samples, peers):
    images, labels = torch.randn(samples + 1, 3, PIXELS, PIXELS), masks(samples + 1)
    objective = BSDKD("a.backbone.layer3", "b.backbone.stages_2")
    distiller = Distiller(peers, None, [objective, HFDKD("a.backbone.layer1", "b.backbone.stages_0")]).build([images])
    images, labels = images[1:], labels[1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with distiller.watch() as calls:
            peers.eval()(images)
        losses = distiller.losses(torch.zeros(()), calls, batch=(images, labels))
    losses.total.backward()
    assert all(term.dtype == torch.float32 for term in losses.terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in (*peers.parameters(), *objective.parameters()))


def test_a_batch_without_labels_transfers_nothing_and_is_refused_on_the_first_step_only(peers):
    images = torch.randn(2, 3, PIXELS, PIXELS)
    distiller = Distiller(peers, None, [BSDKD("a.backbone.layer3", "b.backbone.stages_2")], allow=("zero",))
    distiller.build([images])
    with distiller.watch() as calls:
        peers(images)
    losses = distiller.losses(torch.zeros(()), calls, batch=(images, torch.full((2, PIXELS, PIXELS), IGNORED)))
    losses.total.backward()
    assert losses.terms["bsd"] == 0
    assert all(p.grad.eq(0).all() for p in distiller.adapters.parameters())


def test_a_classifier_is_selected_from_sample_by_sample(net, train_three_steps):
    result = train_three_steps(net("test_vit"), net("test_resnet"), [SelectiveKD()])
    assert result.metrics["kd/selective"] > 0


def test_what_cannot_be_selected_is_explained(peers):
    images = torch.randn(2, 3, PIXELS, PIXELS)
    with pytest.raises(SetupError, match=r"nothing to transfer: name places .* or pass pixels=True"):
        SelectiveKD(pixels=False)
    with pytest.raises(SetupError, match=r"nothing to transfer"):
        HFDKD((), ())
    with pytest.raises(SetupError, match=r"`bsd` pairs places of both sides one to one, got 2 and 1"):
        BSDKD(["a.x", "a.y"], "b.x")
    with pytest.raises(ValueError, match=r"`regions` must be a finite number above 0, got 0"):
        BSDKD(regions=0)
    distiller, calls = observed(convolutional(), None, BSDKD(), images)
    with pytest.raises(SetupError, match=r"`bsd` distils between .* Peers\(a, b\), .* got Tensor"):
        distiller.losses(torch.zeros(()), calls, batch=(images, masks(2)))
    distiller, calls = observed(peers, None, BSDKD(), images)
    with pytest.raises(ShapeError, match=r"`labels` must give a class to each pixel.* got shape \(2,\)"):
        distiller.losses(torch.zeros(()), calls, batch=(images, torch.zeros(2, dtype=torch.long)))
    with pytest.raises(SetupError, match=r"`labels`: 1 is not in the batch, a tuple of 1"):
        distiller.losses(torch.zeros(()), calls, batch=(images,))
    peers.b.head = nn.Conv2d(256, 7, 1)
    distiller, calls = observed(peers, None, BSDKD(), images)
    with pytest.raises(ShapeError, match=r"on one label set, got 5 and 7 classes"):
        distiller.losses(torch.zeros(()), calls, batch=(images, masks(2)))
