"""What users get wrong ends in an error that names the argument, the value and the fix, before a step is taken."""

import copy

import lightning as L
import pytest
import pytorch_lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_kd import CKAKD, FeatureKD, KnowledgeDistillation, LogitKD, Ramp
from lightning_kd.callbacks.distillation import check_trainer
from lightning_kd.errors import LayoutError, SetupError, ShapeError, TapError, TermError


@pytest.fixture
def fit(trainer, loader):
    def run(module, *args, **options):
        kd = KnowledgeDistillation(*args, **{"student": "net", **options})
        trainer(callbacks=[kd]).fit(module, loader())

    return run


def test_a_wrong_student_path_lists_the_nearest(fit, classifier, teacher):
    with pytest.raises(SetupError, match=r"`student`: `nett` names no module of the LightningModule .*nearest: 'net'"):
        fit(classifier(), teacher, student="nett")


def test_a_wrong_tap_lists_the_nearest_of_the_right_model(fit, classifier, teacher):
    with pytest.raises(TapError, match=r"`bodi` names no module of the student \(TinyCNN\); nearest: 'body'"):
        fit(classifier(), teacher, objectives=[FeatureKD("bodi", "block")])
    with pytest.raises(TapError, match=r"`blocks` names no module of the teacher \(TinyViT\); nearest: 'block'"):
        fit(classifier(), teacher, objectives=[FeatureKD("body", "blocks")])


def test_a_student_that_does_not_run_lists_those_that_do(fit, classifier, teacher):
    class TwoNets(classifier):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(3, 3)

    with pytest.raises(SetupError, match=r"`student='other'` did not run .* Modules that did run: 'net'"):
        fit(TwoNets(), teacher, student="other")
    with pytest.raises(SetupError, match=r"`student=''` did not run .* Modules that did run: 'net'"):
        fit(classifier(), teacher, student="")
    with pytest.raises(SetupError, match="the training step ended without calling the student"):
        fit(TwoNets(), teacher, student="other", objectives=[CKAKD("", "block")])


def test_layers_made_in_setup_are_explained(fit, classifier, teacher):
    class Late(classifier):
        def __init__(self):
            super().__init__()
            self.later = self.__dict__["_modules"].pop("net")
            del self.later

        def setup(self, stage):
            self.net = nn.Linear(3, 5)

    with pytest.raises(SetupError, match=r"LightningModule.setup\(\) do not exist yet"):
        fit(Late(), teacher)


def test_layers_made_in_configure_model_are_found(fit, classifier, cnn, teacher):
    class Late(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            if self.net is None:
                self.net = cnn()

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    fit(Late(), teacher)


def test_a_trainer_of_the_pytorch_lightning_package_is_refused(cnn, teacher, loader):
    class Legacy(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = cnn()

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pytorch_lightning.Trainer(
        callbacks=[KnowledgeDistillation(teacher, student="net")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
        max_epochs=1,
    )
    with pytest.raises(SetupError, match=r"a pytorch_lightning Trainer.*import lightning.pytorch as pl"):
        trainer.fit(Legacy(), loader())


@pytest.mark.parametrize("wrong", ["resnet50", None, 3, [nn.Linear(1, 1)]])
def test_a_teacher_that_is_no_module_is_refused(wrong):
    with pytest.raises(SetupError, match=r"`teacher` must be a torch\.nn\.Module"):
        KnowledgeDistillation(wrong)


def test_wrong_types_and_values_name_the_argument(fit, classifier, teacher):
    with pytest.raises(SetupError, match="`student` must be the dotted path"):
        KnowledgeDistillation(teacher, student=teacher)
    with pytest.raises(SetupError, match=r"`objectives` must hold objectives such as LogitKD.*got 'logit'"):
        fit(classifier(), teacher, objectives=["logit"])
    with pytest.raises(SetupError, match="`objectives` must hold at least one"):
        fit(classifier(), teacher, objectives=[])
    with pytest.raises(SetupError, match="two terms named 'logit'"):
        fit(classifier(), teacher, objectives=[LogitKD(), LogitKD(temperature=2.0)])
    with pytest.raises(ValueError, match=r"`task_weight` must be a finite number of at least 0.*got -0\.1"):
        fit(classifier(), teacher, task_weight=-0.1)
    with pytest.raises(ValueError, match="`allow` must be one of 'zero', 'frozen', got 'nan'"):
        fit(classifier(), teacher, allow=("nan",))
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got 0"):
        LogitKD(temperature=0)
    with pytest.raises(ValueError, match=r"`weight` must be a finite number of at least 0.*got nan"):
        FeatureKD("a", "b", weight=float("nan"))
    with pytest.raises(SetupError, match="pairs student and teacher taps one to one, got 2 and 1"):
        FeatureKD(["a", "b"], "c")
    with pytest.raises(SetupError, match=r"`adapter_group` must index one of the optimiser's 1 groups, got 3"):
        fit(classifier(), teacher, objectives=[FeatureKD("body", "block")], adapter_group=3)
    with pytest.raises(SetupError, match="`name` must be made of letters"):
        KnowledgeDistillation(teacher, name="kd/a")
    with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
        LogitKD(temprature=4.0)
    with pytest.raises(ValueError, match=r"`over` must be a finite number above 0, got 0"):
        Ramp(0.0, 1.0, over=0)


def test_a_teacher_of_another_label_set_is_refused(fit, classifier, teacher):
    teacher.head = nn.Linear(8, 1000)
    with pytest.raises(ShapeError, match="`teacher` tells 1000 classes apart and the student 5"):
        fit(classifier(), teacher)


def test_a_teacher_inside_the_module_is_refused(fit, classifier, teacher):
    module = classifier()
    module.teacher = teacher
    with pytest.raises(SetupError, match="`teacher` is also a submodule of the LightningModule"):
        fit(module, teacher)


def test_a_teacher_that_shares_the_students_weights_is_refused_and_not_frozen(fit, classifier):
    module = classifier()
    with pytest.raises(SetupError, match=r"share parameters.*copy\.deepcopy"):
        fit(module, module.net)
    assert all(parameter.requires_grad for parameter in module.net.parameters())


class EmptyBatch(IterableDataset):
    def __iter__(self):
        yield torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.long)


def test_an_empty_batch_is_refused(trainer, classifier, teacher):
    loader = DataLoader(EmptyBatch(), batch_size=None)
    with pytest.raises(ShapeError, match="the batch is empty"):
        trainer(callbacks=[KnowledgeDistillation(teacher, student="net")]).fit(quiet(classifier)(), loader)


def quiet(classifier):
    class Quiet(classifier):
        def training_step(self, batch, batch_idx):
            self.net.eval()
            return self.net(batch[0]).sum()

    return Quiet


def test_nan_from_the_teacher_is_blamed_on_the_teacher(fit, classifier, teacher):
    with torch.no_grad():
        teacher.head.weight.fill_(float("nan"))
    with pytest.raises(TermError, match=r"'logit' is nan on the first step; not finite are the teacher's output"):
        fit(classifier(), teacher)


def test_sharding_strategies_are_refused(trainer, classifier, teacher):
    callback = KnowledgeDistillation(teacher)
    for strategy in (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy):
        sharded = trainer(callbacks=[callback])
        sharded.strategy.__class__ = type("Sharded", (strategy,), {})
        with pytest.raises(SetupError, match=r"`strategy` is Sharded.*use strategy='ddp'"):
            check_trainer(sharded, classifier(), callback)


def test_manual_optimisation_is_sent_to_the_mixin(fit, classifier, teacher):
    class Manual(classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    with pytest.raises(SetupError, match=r"lightning_kd\.DistillationMixin"):
        fit(Manual(), teacher)


def test_a_layout_that_cannot_be_told_says_what_to_declare(fit, classifier, teacher):
    del type(teacher).num_prefix_tokens
    try:
        with pytest.raises(LayoutError, match=r"17 tokens do not fill .*prefix_tokens=1 would fit"):
            fit(classifier(), teacher, objectives=[FeatureKD("body", "block")])
    finally:
        type(teacher).num_prefix_tokens = 1


def test_a_batch_that_cannot_be_followed_asks_for_an_example(fit, classifier, teacher):
    class Logging(classifier):
        def training_step(self, batch, batch_idx):
            self.log("before", 1.0)
            return super().training_step(batch, batch_idx)

    objectives = [FeatureKD("body", "block")]
    with pytest.raises(SetupError, match=r"could not follow a training batch.*pass example_inputs="):
        fit(Logging(), teacher, objectives=objectives)
    fit(Logging(), teacher, objectives=objectives, example_inputs=torch.zeros(1, 3, 8, 8))


def test_nothing_is_left_on_the_module_after_a_refusal(fit, classifier, teacher):
    module = classifier()
    assert module.hparams == {}
    before = copy.copy(vars(module))
    with pytest.raises(TapError, match="`bodi`"):
        fit(module, teacher, objectives=[FeatureKD("bodi", "block")])
    assert "training_step" not in vars(module)
    assert vars(module).keys() == before.keys()
    assert not module.net._forward_hooks
    assert not teacher._forward_hooks
