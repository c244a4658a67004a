"""The recipes of speech encoders train by distillation alone, through a real Trainer, and leave plain checkpoints."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import HubertConfig, HubertModel

from lightning_kd import FrozenTeacher, recipes
from lightning_kd.errors import SetupError
from lightning_kd.speech import PadAudio, SpanMask, load_speech_model
from lightning_kd.students import ThinHubert, distilhubert_student

LENGTHS = (4000, 3000, 3500, 2500, 2000, 3700)


class Encoder(L.LightningModule):
    """Label-free training as a user writes it: the loss is the recipe's."""

    def __init__(self, net, spans=None):
        super().__init__()
        self.net = net
        self.spans = spans

    def training_step(self, batch):
        hidden = {}
        if self.spans is not None:
            frames = self.net._get_feat_extract_output_lengths(batch["attention_mask"].sum(dim=1))
            hidden = {"mask_time_indices": self.spans(frames, frames=int(frames.max()))}
        self.net(**batch, **hidden)
        return torch.zeros(())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.net.parameters(), lr=1e-3)


def thin(**settings):
    config = HubertConfig(layerdrop=0.0, conv_dim=(8,) * 7, feat_extract_norm="layer", num_hidden_layers=3)
    config.update({"apply_spec_augment": False})
    config.update({"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, **settings})
    config.update({"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2})
    return ThinHubert(config)


def make_distilhubert(teacher):
    return distilhubert_student(teacher), recipes.distilhubert(teacher, path="net", layers=(1, 3)), None


def make_fithubert(teacher):
    return thin(time_reduction=2), recipes.fithubert(teacher, path="net", random_layers=1), None


def make_armhubert(teacher):
    return (
        thin(attention_reuse=[False, True, False], apply_spec_augment=True),
        recipes.armhubert(teacher, path="net"),
        SpanMask(longest=4),
    )


@pytest.mark.parametrize("make", [make_distilhubert, make_fithubert, make_armhubert])
def test_it_trains_the_student_alone_and_leaves_the_teacher_as_it_was(make, speech_net, audio, tmp_path):
    teacher = speech_net(apply_spec_augment=True, layerdrop=0.1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student, kd, spans = make(FrozenTeacher(teacher))
    names = list(student.state_dict())
    start = {name: value.clone() for name, value in student.state_dict().items()}
    waves = [audio(length)[0][0] for length in LENGTHS]
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[kd],
        default_root_dir=tmp_path,
    )
    module = Encoder(student, spans)
    loader = DataLoader(waves, batch_size=2, collate_fn=PadAudio(sample_rate=16000))
    trainer.fit(module, loader)
    assert trainer.callback_metrics["kd/total"].isfinite()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert list(student.state_dict()) == names
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, start[name])}
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    # Nothing asks for the embedding of hidden frames where none are hidden.
    assert trained - changed <= ({"masked_spec_embed"} if spans is None else set())


def test_the_values_are_the_published_ones(speech_net):
    (distil,) = (kd := recipes.distilhubert(speech_net())).objectives
    assert (distil.layers, distil.cosine_weight, distil.mask_padding, kd.task_weight) == ((4, 8, 12), 1.0, True, 0.0)
    (fit,) = (kd := recipes.fithubert(speech_net())).objectives
    assert (fit.layers, fit.hint_weight, fit.random_layers, kd.task_weight) == (None, 0.1, None, 0.0)
    (arm,) = (kd := recipes.armhubert(speech_net())).objectives
    assert (arm.layers, arm.hint_weight, kd.task_weight) == (None, 0.1, 0.0)


@pytest.mark.parametrize("recipe", [recipes.distilhubert, recipes.fithubert, recipes.armhubert])
def test_the_teachers_layerdrop_is_off_afterwards(recipe, speech_net):
    teacher = speech_net(layerdrop=0.1)
    recipe(teacher)
    assert teacher.config.layerdrop == 0.0


def test_a_teacher_that_is_heard_twice_hears_what_the_student_does(speech_net):
    teacher = FrozenTeacher(speech_net(), input_transform=lambda audio: audio)
    with pytest.raises(
        SetupError, match=r"`teacher` must hear the student's audio, .* got a FrozenTeacher with an input"
    ):
        recipes.armhubert(teacher)
    with pytest.raises(SetupError, match=r"the teacher \(Linear\) must hold exactly one speech encoder"):
        recipes.distilhubert(nn.Linear(2, 2))


def test_a_public_checkpoint_is_loaded_distilled_and_saved(speech_net, audio, tmp_path):
    speech_net(layerdrop=0.1).save_pretrained(tmp_path / "teacher")
    teacher = load_speech_model(tmp_path / "teacher")
    student = distilhubert_student(teacher)
    student.save_pretrained(tmp_path / "student")
    assert isinstance(load_speech_model(tmp_path / "student"), HubertModel)
