"""2:4 sparsity beside distillation in real Trainers: zeros stay zeros, checkpoints are plain, training resumes."""

import pytest
import torch
from torch import nn

from lightning_kd import KnowledgeDistillation, TwoFourSparsity
from lightning_kd.compression import two_four_layers
from lightning_kd.errors import SetupError


@pytest.fixture
def momentum_classifier(classifier, cnn):
    """Weight decay and Adam's moments would bring pruned weights back to life."""

    class Student(classifier):
        def __init__(self):
            super().__init__(nn.Sequential(cnn(width=8, classes=8), nn.Linear(8, 5)))

        def configure_optimizers(self):
            return torch.optim.AdamW(self.net.parameters(), lr=0.01, weight_decay=0.1)

    return Student


def distilled(teacher):
    return [KnowledgeDistillation(teacher, student="net"), TwoFourSparsity(student="net")]


SPARSE = {"0.body.0.weight": False, "0.head.weight": True, "1.weight": True}


def test_weights_are_sparse_after_every_step_and_the_checkpoint_is_plain(
    momentum_classifier, teacher, loader, trainer, tmp_path
):
    module, callbacks = momentum_classifier(), distilled(teacher)
    fitted = trainer(callbacks=callbacks, max_steps=3, max_epochs=-1)
    fitted.fit(module, loader())
    assert callbacks[1].dense == ("0.body.0.weight",)
    assert two_four_layers(module.net) == SPARSE
    moments = fitted.optimizers[0].state[module.net[1].weight]["exp_avg"]
    assert torch.equal(moments.ne(0), callbacks[1].masks["1.weight"])
    fitted.save_checkpoint(tmp_path / "sparse.ckpt")
    state = torch.load(tmp_path / "sparse.ckpt", weights_only=True)["state_dict"]
    bare = momentum_classifier()
    bare.load_state_dict(state, strict=True)
    assert two_four_layers(bare.net) == SPARSE


def test_resumed_run_equals_an_unbroken_one(momentum_classifier, teacher, loader, trainer, tmp_path):
    def start():
        torch.manual_seed(5)
        return momentum_classifier(), distilled(teacher)

    whole, callbacks = start()
    trainer(max_epochs=3, callbacks=callbacks).fit(whole, loader())
    broken, callbacks = start()
    first = trainer(max_epochs=1, callbacks=callbacks)
    first.fit(broken, loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    torch.manual_seed(99)
    resumed, callbacks = momentum_classifier(), distilled(teacher)
    trainer(max_epochs=3, callbacks=callbacks).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_sparse_student_keeps_its_zeros_in_a_second_fit(momentum_classifier, teacher, loader, trainer):
    module = momentum_classifier()
    trainer(callbacks=distilled(teacher)).fit(module, loader())
    zeros = module.net[1].weight.eq(0)
    trainer(callbacks=distilled(teacher)).fit(module, loader())
    assert torch.equal(module.net[1].weight.eq(0), zeros)


def test_the_same_callback_prunes_another_student_anew(momentum_classifier, teacher, loader, trainer):
    first, second = momentum_classifier(), momentum_classifier()
    sparsity = TwoFourSparsity(student="net")
    trainer(callbacks=[sparsity]).fit(first, loader())
    masks = sparsity.masks
    trainer(callbacks=[sparsity]).fit(second, loader())
    assert not torch.equal(masks["1.weight"], sparsity.masks["1.weight"])
    assert two_four_layers(second.net) == SPARSE


def test_a_student_that_cannot_be_sparse_is_refused(classifier, loader, trainer):
    with pytest.raises(SetupError, match=r"four divides the inputs of none of \['body.0.weight', 'head.weight'\]"):
        trainer(callbacks=[TwoFourSparsity(student="net")]).fit(classifier(), loader())
