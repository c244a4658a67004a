"""Teacher Intervention in real Trainers: training resumes exactly, and what cannot work is refused."""

import copy

import pytest
import timm
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_kd import TeacherIntervention, recipes
from lightning_kd.errors import SetupError


def vit():
    torch.manual_seed(3)
    return timm.create_model("test_vit", img_size=8, patch_size=4, num_classes=5, depth=2)


@pytest.fixture
def start(classifier):
    """A module whose student is a copy of the teacher, and the recipe's callbacks."""

    def make():
        teacher = vit()
        callbacks = recipes.teacher_intervention(teacher, path="net", skip=["patch_embed", "head"])
        return classifier(copy.deepcopy(teacher)), callbacks

    return make


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_resumed_run_equals_an_unbroken_one(start, loader, trainer, tmp_path):
    whole, callbacks = start()
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer(max_epochs=2, callbacks=[*callbacks, saver], enable_checkpointing=True).fit(whole, loader())
    torch.manual_seed(99)
    resumed, callbacks = start()
    trainer(max_epochs=2, callbacks=callbacks).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_an_endless_training_has_no_sixth(start, loader, trainer):
    module, callbacks = start()
    with pytest.raises(SetupError, match="needs the number of steps"):
        trainer(max_epochs=-1, callbacks=callbacks).fit(module, loader())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.net.modules())


def test_a_student_of_another_kind_is_refused(classifier, loader, trainer):
    with pytest.raises(SetupError, match=r"no attention module .* is known in the student"):
        trainer(callbacks=[TeacherIntervention(vit(), student="net")]).fit(classifier(), loader())
    with pytest.raises(ValueError, match=r"`signal` must be one of .* got 'all'"):
        TeacherIntervention(vit(), signal="all")
