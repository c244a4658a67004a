"""Every recipe trains a student of another family than its teacher's, by distillation alone."""

from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules

import pytest
import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import exporters
from lightning_kd import KnowledgeDistillation, objectives, recipes
from lightning_kd.errors import SetupError
from lightning_kd.indexed import IndexedDataset
from lightning_kd.losses import image_text_contrastive, masked_reconstruction
from lightning_kd.students import (
    EarlyExits,
    MaskedAutoencoder,
    lgvit_exits,
    with_distillation_token,
    with_teacher_classifier,
)
from lightning_kd.students.peers import Peers
from lightning_kd.teachers import FrozenTeacher

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)
DATA = TensorDataset(IMAGES, LABELS)
CLASSES, IGNORED = 5, 255
BOTH_WAYS = [("test_resnet", "test_vit"), ("test_vit", "test_convnext")]
OF_TEACHER = {
    *("kd", "lskd", "dkd", "nkd", "dist", "ctkd", "ssld", "taid", "skew_kl"),
    *("matched_features", "ofa_kd", "scalekd"),
}
OF_BOTH = {
    *("fitnet", "attention_transfer", "vid", "review_kd", "mgd", "vitkd", "feature_recalibration", "cka"),
    *("sp", "rkd", "pkt", "cc", "ickd", "patch_similarity"),
}
ELSEWHERE = {
    *("born_again", "LogitEnsemble"),  # test_generations.py
    *("Stage", "in_stages"),  # test_stages.py
    *("class_incremental", "kd3", "pruned_kd", "weight_aware"),  # test_data.py
    *("quantized_distillation", "sparse_distillation", "teacher_intervention"),  # test_compression.py
    *("distilhubert", "fithubert", "armhubert"),  # test_speech.py
    *("dphubert", "dphubert_second_stage"),  # tests/integration/test_structured_pruning.py
    "lighthubert",  # tests/integration/test_elastic_sampling.py
    *("fkd", "tinyvit"),  # tests/integration/test_cache.py
    "adaptive_computation",  # test_speech_compression.py
    *("meal_v2", "unic", "momentum_distillation", "progressive_self_distillation"),  # test_teacher_recipes.py
    *("deep_mutual_learning", "collaborative_students", "ground_truth_weight"),  # test_teacher_recipes.py
    *("keyword_spotting", "kwt"),  # test_keywords.py
    *("ctc_kd", "ctc_sequence", "guided_ctc", "self_distilled_ctc", "transducer_kd"),  # objectives/test_ctc.py
    "distil_whisper",  # test_recognition.py
}


@dataclass
class Case:
    """A student, what teaches it, and the bare network whose parameters are what is deployed.

    ``deployed`` is where that is in the student; ``extra`` are beginnings of what the method adds to it for good.
    """

    student: nn.Module
    callbacks: list[KnowledgeDistillation]
    bare: nn.Module
    deployed: str = ""
    extra: tuple[str, ...] = ()
    options: dict = field(default_factory=lambda: {"dataset": DATA})


class DenseResNet(ResNet):
    """A ResNet that classifies every position of its last map: a segmentation network of a known family."""

    def __init__(self):
        super().__init__(BasicBlock, (1, 1, 1, 1), num_classes=CLASSES)

    def forward(self, x):
        return self.fc(self.forward_features(x).movedim(1, -1)).movedim(-1, 1)


def segformer():
    heads, widths = [1, 1, 2, 4], [8, 16, 24, 32]
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=CLASSES,
            depths=[1] * 4,
            hidden_sizes=widths,
            num_attention_heads=heads,
            decoder_hidden_size=16,
        )
    )


def segment(net, batch, epoch):
    images, labels = batch
    outputs = net(images) if isinstance(net, Peers) else [net(images)]
    scores = [F.interpolate(getattr(z, "logits", z), size=labels.shape[1:], mode="bilinear") for z in outputs]
    return sum(F.cross_entropy(z, labels, ignore_index=IGNORED) for z in scores)


def segmentation():
    """Labels at full resolution, a quarter of them ignored; the first image has none."""
    images, labels = torch.randn(4, 3, 128, 128), torch.randint(CLASSES, (4, 128, 128))
    labels[:, :32] = labels[0] = IGNORED
    return {"dataset": TensorDataset(images, labels), "loss": segment}


def cwd(net, student, teacher):
    network = student()
    kd = recipes.cwd(teacher(), path="net")
    return Case(network, [kd], student(), options=segmentation())


def selective(net, student, teacher):
    network = student()
    kd = recipes.selective(teacher(), network, path="net")
    return Case(network, [kd], student(), options=segmentation())


def transkd(net, student, teacher, **options):
    network = student()
    kd = recipes.transkd(teacher(), network, path="net", **options)
    return Case(network, [kd], student(), options=segmentation())


def collaborative(net):
    peers = Peers(segformer(), DenseResNet())
    return Case(peers, [recipes.collaborative(peers, path="net")], segformer(), "a", options=segmentation())


def crd(net, student, teacher):
    network, data = net(student), {"dataset": IndexedDataset(DATA)}
    return Case(
        network, [recipes.crd(net(teacher), network, LABELS, path="net", negatives=3)], net(student), options=data
    )


def simkd(net, student="test_vit", teacher="test_resnet", **settings):
    frozen, backbone = net(teacher, **settings), net(student, classes=0, global_pool="")
    kd = recipes.simkd(frozen, path="net")
    last_map = kd.objectives[0].teacher_taps[0]
    network = with_teacher_classifier(backbone, frozen, IMAGES, last_map=last_map)
    return Case(
        network, [kd], nn.ModuleDict({"backbone": net(student, classes=0)}), extra=("projector.", "classifier.")
    )


def deit(net, **options):
    network = with_distillation_token(net("test_vit"))
    return Case(network, [recipes.deit(net("test_resnet"), path="net", **options)], net("test_vit"), extra=TOKEN)


def deit_lt(net):
    network = with_distillation_token(net("test_vit"))
    kd = recipes.deit_lt(net("test_resnet"), range(1, 11), path="net", reweight_from=1, teacher_size=(32, 32))
    return Case(network, [kd], net("test_vit"), extra=TOKEN)


def lgvit(net):
    vit = net("test_vit").requires_grad_(False)
    network = EarlyExits(vit, lgvit_exits([f"blocks.{index}" for index in range(4)]), final="norm", example=IMAGES)
    return Case(network, [recipes.lgvit(path="net")], net("test_vit"), "backbone")


def multi_exit(net, **options):
    exits = lgvit_exits([f"layer{index}" for index in (1, 2, 3)])
    network = EarlyExits(net("test_resnet"), exits, final="layer4", example=IMAGES)
    return Case(network, [recipes.multi_exit(path="net", **options)], net("test_resnet"), "backbone")


def minilm(net, **options):
    network, teacher = net("test_vit"), net("beit_base_patch16_224", img_size=64, embed_dim=48, depth=2, num_heads=2)
    return Case(network, [recipes.minilm(teacher, path="net", **options)], net("test_vit"))


def tinybert(net):
    teacher = net("deit_tiny_distilled_patch16_224", embed_dim=48, depth=4, num_heads=2)
    network = net("test_vit", depth=2)
    kd = recipes.tinybert(teacher, path="net", first_epochs=1)
    return Case(network, [kd], net("test_vit", depth=2))


def hybrid(net):
    masked = net("beit_base_patch16_224", img_size=64, embed_dim=48, depth=3, num_heads=2)
    features, network = net("deit_tiny_distilled_patch16_224", depth=2), net("test_vit", num_heads=2)
    return Case(network, [recipes.hybrid(masked, features, network, path="net")], net("test_vit"))


def autoencoder(encoder):
    return MaskedAutoencoder(encoder, decoder_width=32, decoder_depth=4, decoder_heads=4)


def paint(net, batch, epoch):
    patches, mask = net(batch[0], net.noise(batch[0]))
    return masked_reconstruction(patches, net.patchify(batch[0]), mask)


def paint_then_classify(net, batch, epoch):
    return paint(net, batch, epoch) if epoch == 0 else F.cross_entropy(net.encoder(batch[0])[0], batch[1])


def dmae(net):
    network, teacher = autoencoder(net("test_vit", classes=0)), autoencoder(net("test_vit3", classes=0))
    return Case(network, [recipes.dmae(teacher, path="net")], net("test_vit", classes=0), "encoder", options=PAINTING)


def further_pretraining(net):
    network, teacher = (autoencoder(net("test_vit", classes=0)) for _ in range(2))
    kd = recipes.further_pretraining(teacher, path="net")
    return Case(network, [kd], net("test_vit", classes=0), "encoder", options=PAINTING)


def g2sd(net):
    network = autoencoder(with_distillation_token(net("test_vit")))
    generic, specific = autoencoder(net("test_vit3", classes=0)), net("test_resnet")
    kds = recipes.g2sd(generic, specific, path="net", generic_epochs=1)
    return Case(network, kds, net("test_vit"), "encoder", TOKEN, {"dataset": DATA, "loss": paint_then_classify})


class Towers(nn.Module):
    """An image and a text tower."""

    def __init__(self, visual, width):
        super().__init__()
        self.visual = visual
        self.embedding = nn.Embedding(16, width)
        self.text = nn.Linear(width, CLASSES)

    def forward(self, images, texts):
        return {"image_embeds": self.visual(images), "text_embeds": self.text(self.embedding(texts).mean(1))}


def contrast(net, batch, epoch):
    return image_text_contrastive(*net(*batch).values(), scale=20.0)


def tinyclip(net, student, *, inherit):
    network, bare = (Towers(net(student, classes=CLASSES), 8) for _ in range(2))
    teacher = Towers(net("test_vit", classes=CLASSES, embed_dim=128), 16)
    texts = torch.arange(4 * 6).reshape(4, 6) % 16
    kd = recipes.tinyclip(teacher, network, path="net", inherit=inherit)
    return Case(network, [kd], bare, options={"dataset": TensorDataset(IMAGES, texts), "loss": contrast})


TOKEN = ("dist_token", "head_dist.")
PAINTING = {"dataset": DATA, "loss": paint}
AVERAGING = {"class_token": False, "global_pool": "avg", "fc_norm": False}
DENSE = [(segformer, DenseResNet), (DenseResNet, segformer)]
CASES = [
    *((recipe, pair, {}) for recipe in (cwd, selective, transkd) for pair in DENSE),
    *((transkd, DENSE[0], {"variant": variant}) for variant in ("gl", "ea")),
    *((crd, pair, {}) for pair in BOTH_WAYS),
    (simkd, ("test_vit", "test_resnet"), {}),
    (simkd, ("test_resnet", "test_vit"), AVERAGING),
    (deit, (), {"kind": "hard"}),
    (deit, (), {"kind": "soft", "temperature": 3.0, "share": 0.1}),
    *((multi_exit, (), {"target": target}) for target in ("final", "next", "ensemble")),
    (minilm, (), {"relation_heads": 16}),
    (minilm, (), {"version": 1}),
    (tinyclip, ("test_vit",), {"inherit": True}),
    (tinyclip, ("test_resnet",), {"inherit": False}),
    *((recipe, (), {}) for recipe in (collaborative, deit_lt, lgvit, tinybert, hybrid)),
    *((recipe, (), {}) for recipe in (dmae, further_pretraining, g2sd)),
]


def test_every_objective_is_trained_by_a_recipe_or_by_tests_of_its_own():
    modules = [import_module(f"{recipes.__name__}.{info.name}") for info in iter_modules(recipes.__path__)]
    used = {name for module in modules for name in objectives.__all__ if name in vars(module)}
    trained_by_their_own_tests = {"FrameKD", "HiddenCosineKD", "JSKD", "MIKD"}
    assert used | trained_by_their_own_tests == set(objectives.__all__)


def test_every_recipe_is_trained_somewhere():
    trained = OF_TEACHER | OF_BOTH | {recipe.__name__ for recipe, _, _ in CASES}
    assert trained | ELSEWHERE == set(recipes.__all__)


@pytest.mark.parametrize(("student", "teacher"), BOTH_WAYS)
@pytest.mark.parametrize("recipe", sorted(OF_TEACHER | OF_BOTH))
def test_trains_in_both_directions(recipe, student, teacher, net, learn_alone):
    network, frozen = net(student), net(teacher)
    kd = getattr(recipes, recipe)(frozen, *([network] if recipe in OF_BOTH else []), path="net")
    learn_alone(network, [kd], dataset=DATA)
    assert list(network.state_dict()) == list(net(student).state_dict())


@pytest.mark.parametrize(
    ("make", "networks", "options"), CASES, ids=[f"{case[0].__name__}-{i}" for i, case in enumerate(CASES)]
)
def test_trains_what_the_recipe_is_made_for(make, networks, options, net, learn_alone):
    case = make(net, *networks, **options)
    _, metrics = learn_alone(case.student, case.callbacks, **case.options)
    terms = [f"{kd.name}/{objective.name}" for kd in case.callbacks for objective in kd.objectives]
    assert set(terms) <= metrics.keys()
    deployed = case.student.get_submodule(case.deployed).state_dict()
    added = {name for name in deployed if name.startswith(case.extra)}
    assert bool(added) == bool(case.extra)
    assert deployed.keys() - added == case.bare.state_dict().keys()


@pytest.mark.parametrize("recipe", sorted(OF_TEACHER | OF_BOTH | {"simkd", "transkd", "selective", "cwd", "deit"}))
def test_takes_a_frozen_teacher_as_it_is(recipe, net):
    function, teacher = getattr(recipes, recipe), FrozenTeacher(net("test_resnet"))
    networks = (teacher, net("test_vit")) if "student" in signature(function).parameters else (teacher,)
    assert function(*networks).teacher is teacher


def test_weights_are_inherited_from_inside_a_frozen_teacher(net):
    teacher = Towers(net("test_vit"), 16)
    student = Towers(net("test_vit"), 8)
    recipes.tinyclip(FrozenTeacher(teacher), student)
    assert torch.equal(student.embedding.weight, teacher.embedding.weight[:, :8])


def test_two_teachers_that_run_as_one_keep_no_options_of_their_own(net):
    vit = net("test_vit")
    with pytest.raises(
        SetupError, match=r"`feature_teacher` must see the student's images .* got a FrozenTeacher with"
    ):
        recipes.hybrid(vit, FrozenTeacher(vit, batch_statistics=True), net("test_vit"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [crd, deit, simkd, lgvit, g2sd])
def test_the_export_computes_what_a_network_that_was_never_distilled_does(make, net, learn_alone, tmp_path):
    networks = BOTH_WAYS[0] if make is crd else ()
    case, again = make(net, *networks), make(net, *networks)
    learn_alone(case.student, case.callbacks, **case.options)
    deployed = case.student.get_submodule(case.deployed)
    twin = again.student.get_submodule(case.deployed) if case.extra else case.bare
    twin.load_state_dict(deployed.state_dict())
    artifact = exporters.export(deployed, IMAGES[:1], to="onnx", path=tmp_path / "student.onnx")
    (scores,) = exporters.load(artifact.path, threads=1).run({artifact.inputs[0].name: IMAGES[1:2].numpy()}).values()
    with torch.no_grad():
        assert_close(torch.from_numpy(scores), twin.eval()(IMAGES[1:2]), rtol=1e-4, atol=1e-4)
