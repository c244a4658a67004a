"""The values that recipes come with are the published ones, which are written down here once more.

Unless another source is named they are those of mdistiller's CIFAR-100 settings.
"""

import pytest
import torch

from lightning_kd import Distiller, Progress, recipes
from lightning_kd.schedules import weight_at
from lightning_kd.students import MaskedAutoencoder, with_teacher_classifier
from lightning_kd.teachers import FrozenTeacher

IMAGES = torch.zeros(2, 3, 64, 64)

# Recipe of a teacher, weight of the task, and of each objective what it has.
OF_TEACHER = [
    ("kd", 0.1, [{"temperature": 4.0, "weight": 0.9}]),
    ("lskd", 0.1, [{"temperature": 2.0, "weight": 9.0, "standardize": True}]),
    ("dkd", 1.0, [{"temperature": 4.0, "alpha": 1.0, "beta": 8.0}]),
    ("nkd", 1.0, [{"temperature": 1.0, "gamma": 1.5, "weight": 1.0}]),  # cls_KD, ImageNet
    ("dist", 1.0, [{"temperature": 4.0, "inter": 1.0, "intra": 1.0, "weight": 2.0}]),  # DIST_KD, CIFAR-100
    ("ctkd", 0.1, [{"lowest": 1.0, "span": 20.0, "weight": 0.9}]),  # CTKD
    ("ssld", 0.0, [{"weight": 1.0}]),  # PaddleClas
    ("taid", 1.0, [{"start": 0.4, "end": 1.0, "rate": 5e-4, "decay": 0.99}]),  # TAID
    ("skew_kl", 1.0, [{"skew": 0.1, "reverse": False}]),  # distillm
    ("cwd", 1.0, [{"temperature": 4.0, "weight": 3.0}]),  # TorchDistiller, Cityscapes
    ("ofa_kd", 1.0, [{"exponent": 1.5, "temperature": 1.0, "term_weights": 1.0, "variant": "code"}]),  # OFAKD
    (
        "scalekd",
        0.5,
        [
            {"_weights": {"spatial": (0.08, 0.08), "frequency": (0.06, 0.06)}, "self_query": False, "sharpness": 5.0},
            {"temperature": 1.0, "weight": 0.5},
        ],
    ),  # ScaleKD
    ("deit", 0.5, [{"kind": "hard", "temperature": 1.0, "weight": 0.5}]),  # deit
    ("dmae", 1.0, [{"weight": 1.0}]),  # DMAE
    ("simkd", 0.0, [{"weight": 1.0}]),
    ("minilm", 1.0, [{"version": 2, "relation_heads": 48, "relations": ("qq", "kk", "vv"), "weight": 1.0}]),
    ("tinybert", 0.0, [{}, {"temperature": 1.0}]),  # huawei-noah
]
# Recipes of a teacher and a student, with the number of pairs too.
OF_BOTH = [
    ("fitnet", 1, [{"weight": 100.0}]),
    ("attention_transfer", 3, [{"power": 2, "weight": 1000.0}]),
    ("vid", 3, [{"variance": 5.0, "weight": 1.0}]),
    ("sp", 1, [{"weight": 3000.0}]),
    ("rkd", 1, [{"distance_weight": 25.0, "angle_weight": 50.0, "weight": 1.0}]),
    ("pkt", 1, [{"weight": 30000.0}]),
    ("cc", 1, [{"weight": 0.02}]),
    ("review_kd", 4, [{}]),
    ("mgd", 1, [{"ratio": 0.15, "hides": "channels", "weight": 7e-5}]),  # MGD, ImageNet
    ("vitkd", 3, [{"shallow": 3e-5, "deep": 3e-6, "ratio": 0.5, "weight": 1.0}, {"temperature": 1.0, "gamma": 1.0}]),
    ("feature_recalibration", 4, [{"weight": 2.0}, {"temperature": 1.0, "weight": 2.0}]),  # SiT
    ("transkd", 4, [{"middle": 64, "weight": 1.0}, {"mixer": "none", "assistant": False, "weight": 1.0}]),  # TransKD
]


def values(kd, expected):
    assert len(kd.objectives) == len(expected)
    return [
        {name: getattr(objective, name) for name in values}
        for objective, values in zip(kd.objectives, expected, strict=True)
    ]


@pytest.mark.parametrize(("recipe", "task_weight", "expected"), OF_TEACHER)
def test_recipes_of_a_teacher_have_the_published_values(recipe, task_weight, expected, net):
    kd = getattr(recipes, recipe)(net("test_resnet"))
    assert kd.task_weight == task_weight
    assert values(kd, expected) == expected


@pytest.mark.parametrize(("recipe", "pairs", "expected"), OF_BOTH)
def test_recipes_of_two_networks_have_the_published_values(recipe, pairs, expected, net):
    kd = getattr(recipes, recipe)(net("test_resnet"), net("test_vit"))
    assert kd.task_weight == 1.0
    assert len(kd.objectives[0].student_taps) == len(kd.objectives[0].teacher_taps) == pairs
    assert values(kd, expected) == expected


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.05), (9, 0.5), (18, 0.95), (19, 1.0), (200, 1.0)])
def test_terms_warm_up_over_twenty_epochs_counted_from_one(epoch, factor, net):
    networks = net("test_resnet"), net("test_vit")
    for kd in (recipes.dkd(networks[0]), recipes.review_kd(*networks)):
        assert weight_at(kd.objectives[0].weight, Progress(epoch=epoch)) == pytest.approx(factor)


@pytest.mark.parametrize(("epoch", "strength"), [(0, 0.0244717419), (4, 0.5), (9, 1.0), (239, 1.0)])
def test_ctkd_reverses_more_over_ten_epochs_counted_from_one(epoch, strength, net):
    (term,) = recipes.ctkd(net("test_resnet")).objectives
    assert weight_at(term.reversal, Progress(epoch=epoch)) == pytest.approx(strength)


def test_vitkd_imitates_two_blocks_and_generates_what_leaves_the_final_norm(net):
    blocks = recipes.vitkd(net("test_vit"), net("test_vit")).objectives[0]
    for taps in (blocks.student_taps, blocks.teacher_taps):
        assert [tap.path for tap in taps] == ["blocks.0", "blocks.1", "norm"]


def test_crd_contrasts_with_the_published_number_of_negatives(net):
    (term,) = recipes.crd(net("test_resnet"), net("test_vit"), torch.arange(50_000) % 100).objectives
    assert (term.weight, term.negatives, term.width, term.temperature, term.momentum) == (0.8, 16384, 128, 0.07, 0.5)


def test_dense_mgd_hides_three_quarters_of_the_positions(net):
    (term,) = recipes.mgd(net("test_resnet"), net("test_vit"), dense=True).objectives
    assert (term.weight, term.ratio, term.hides) == (2e-5, 0.75, "positions")


def test_transkd_weighs_the_four_embeddings_as_published(net):
    pyramids = [net("pvt_v2_b0", depths=(1, 1, 1, 1)) for _ in range(2)]
    kd = recipes.transkd(*pyramids)
    Distiller(pyramids[1], pyramids[0], kd.objectives).build([IMAGES])
    assert kd.objectives[1]._weights == (0.1, 0.1, 0.5, 1.0)


def test_scalekd_fits_the_weights_to_a_plain_transformers_grid(net):
    # ScaleKD, EVA-L to ResNet-50
    (term,) = recipes.scalekd(net("test_vit"), logits=False).objectives
    assert (term._weights, term.sharpness) == ({"spatial": (0.016, 0.016), "frequency": (0.008, 0.008)}, 0.2)


def test_ssld_normalises_its_teacher_by_the_batch(net):
    kd = recipes.ssld(net("test_resnet"))
    assert isinstance(kd.teacher, FrozenTeacher)
    assert kd.teacher.module.bn1.training


def test_deit_lt_weighs_classes_late_in_training(net):
    # beta = 0.9999: w = (1 - beta) / (1 - beta^n), rescaled to a mean of 1.
    kd = recipes.deit_lt(net("test_resnet"), [500, 50, 5])
    (term,) = kd.objectives
    assert (kd.task_weight, term.weight, term.kind, term.reweight_from) == (0.5, 0.5, "hard", 1100)
    assert term.class_weights.tolist() == pytest.approx([0.02768960, 0.27076302, 2.70154738], rel=1e-6)
    assert recipes.deit_lt(net("test_resnet"), [5, 5], teacher_size=(32, 32)).input_transform.mode == "bicubic"


def test_g2sd_has_half_of_the_second_stage(net):
    masked = MaskedAutoencoder(net("test_vit", classes=0), decoder_width=32, decoder_depth=4, decoder_heads=4)
    generic, specific = recipes.g2sd(masked, net("test_resnet"))
    for epoch, expected in ((0, (1.0, 0.0, 0.0, 1.0)), (299, (1.0, 0.0, 0.0, 1.0)), (300, (0.0, 1.0, 0.5, 0.5))):
        weights = [w for kd in (generic, specific) for w in (kd.objectives[0].weight, kd.task_weight)]
        assert tuple(weight_at(weight, Progress(epoch=epoch)) for weight in weights) == expected
    assert (generic.objectives[0].beta, specific.objectives[0].kind) == (2.0, "hard")


def test_tinybert_takes_turns(net):
    inside, predictions = recipes.tinybert(net("test_vit")).objectives
    turns = [[weight_at(term.weight, Progress(epoch=epoch)) for term in (inside, predictions)] for epoch in (0, 9, 10)]
    assert turns == [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def test_exits_learn_with_the_published_weights():
    lgvit = recipes.lgvit()
    (term,) = lgvit.objectives
    assert (lgvit.task_weight, term.temperature) == (0.7, 2.0)
    assert (term.prediction_weight, term.heterogeneous_weight, term.homogeneous_weight) == (0.3, 0.01, 0.01)
    (exits,) = recipes.multi_exit().objectives
    assert (exits.temperature, exits.target) == (3.0, "final")


def test_tinyclip_is_pure_affinity_at_scale_50(net):
    kd = recipes.tinyclip(net("test_vit"), net("test_vit"))
    (term,) = kd.objectives
    assert (kd.task_weight, term.alpha, term.scales) == (0.0, 1.0, (50.0, 50.0))


def test_simkd_narrows_its_projector_by_two(net):
    teacher, backbone = net("test_resnet"), net("test_vit", classes=0, global_pool="")
    student = with_teacher_classifier(backbone, teacher, IMAGES, last_map="layer4")
    width = teacher.num_features
    shapes = [tuple(p.shape) for name, p in student.projector.named_parameters() if p.ndim == 4]
    assert shapes == [(width // 2, 64, 1, 1), (width // 2, width // 2, 3, 3), (width, width // 2, 1, 1)]
