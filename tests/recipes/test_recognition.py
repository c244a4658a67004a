"""Claims about the recipes of recognisers: published values, Distil-Whisper's loss, the encoder computed once."""

import copy

import lightning as L
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader

from lightning_kd import Distiller, recipes
from lightning_kd.errors import SetupError
from lightning_kd.losses import soft_target_kl
from lightning_kd.objectives import LogitKD
from lightning_kd.step import Step
from lightning_kd.students import distil_whisper_student
from lightning_kd.taps import Inputs, Observation
from lightning_kd.teachers import SharedEncoderTeacher

# The sheet's example; the last token does not count.
STUDENT = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [3, 3, 3]]], dtype=torch.float64)
TEACHER = torch.tensor([[[2.0, 0, -2], [1, 1, 0], [0, 5, 0]]], dtype=torch.float64)
LABELS = torch.tensor([[0, 1, -100]])


class Whisper(L.LightningModule):
    """What a user has."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch):
        return self.net(**batch).loss

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.net.parameters() if p.requires_grad], lr=0.01)


def batches(count=3):
    torch.manual_seed(1)
    for _ in range(count):
        labels = torch.randint(0, 256, (2, 5))
        labels[1, 3:] = -100
        yield {
            "input_features": torch.randn(2, 16, 200),
            "decoder_input_ids": torch.randint(0, 256, (2, 5)),
            "labels": labels,
        }


def fit(net, callback, count=3):
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(Whisper(net), DataLoader(list(batches(count)), batch_size=None))
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def test_the_term_of_distil_whisper_is_the_sheets_value():
    (term,) = recipes.distil_whisper(*random_pair()).objectives
    calls = [Observation(Inputs(), {"logits": logits}) for logits in (STUDENT, TEACHER)]
    kl = term(*calls, Step(batch={"labels": LABELS}))
    assert kl.item() == pytest.approx(0.315086514, abs=1e-9)
    ce = torch.nn.functional.cross_entropy(STUDENT[0], LABELS[0])
    assert (0.8 * ce + 1.0 * kl).item() == pytest.approx(0.756242285, abs=1e-9)
    assert (1.0 * ce + 0.8 * kl).item() == pytest.approx(0.803513925, abs=1e-9)


def random_pair():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": 12, "num_mel_bins": 4}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = WhisperConfig(**sizes, **heads, **tokens, max_source_positions=4, max_target_positions=8)
    teacher = WhisperForConditionalGeneration(config)
    return teacher, distil_whisper_student(teacher, decoder_layers=1)


def test_distil_whisper_has_the_weights_of_the_published_code():
    kd = recipes.distil_whisper(*random_pair())
    assert kd.task_weight == 0.8
    (term,) = kd.objectives
    assert type(term) is LogitKD
    assert (term.weight, term.temperature, term.ignore_index) == (1.0, 2.0, -100)
    assert isinstance(kd.teacher, SharedEncoderTeacher)


def test_trains_the_decoder_alone_and_computes_the_encoder_once(whisper_parts):
    teacher = whisper_parts.make()
    student = distil_whisper_student(teacher)
    runs = []
    for name, model in (("teacher", teacher), ("student", student)):
        model.model.encoder.register_forward_hook(lambda *_, name=name: runs.append(name))
    before = copy.deepcopy(student.state_dict())
    metrics = fit(student, recipes.distil_whisper(teacher, student, path="net"))
    assert runs.count("teacher") == 0
    assert runs.count("student") == 3
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("model.decoder") for name in changed)
    assert not any(name.startswith("model.encoder") for name in changed)
    assert metrics["kd/total"] == pytest.approx(0.8 * metrics["kd/task"] + metrics["kd/token"], rel=1e-5)


def test_sharing_the_encoder_changes_no_number(whisper_parts):
    found = []
    for share in (True, False):
        teacher = whisper_parts.make()
        student = distil_whisper_student(teacher)
        metrics = fit(student, recipes.distil_whisper(teacher, student, path="net", share_encoder=share))
        found.append((metrics, student.state_dict()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, value in found[0][1].items():
        assert_close(value, found[1][1][name], rtol=1e-6, atol=1e-7)


def test_a_student_with_all_layers_starts_with_no_divergence(whisper_parts):
    teacher = whisper_parts.make(decoder_layers=2)
    student = distil_whisper_student(teacher, decoder_layers=2)
    kd = recipes.distil_whisper(teacher, student)
    distiller = Distiller(student, kd.teacher, kd.objectives, allow=("zero",))
    batch = next(batches())
    with distiller.watch() as calls:
        loss = student(**batch).loss
    losses = distiller.losses(loss, calls, batch=batch)
    assert losses.terms["token"].item() == pytest.approx(0.0, abs=1e-6)


def test_counts_only_the_tokens_with_a_label(whisper_parts):
    teacher = whisper_parts.make()
    student = distil_whisper_student(teacher)
    kd = recipes.distil_whisper(teacher, student)
    distiller = Distiller(student, kd.teacher, kd.objectives)
    batch = next(batches())
    with distiller.watch() as calls:
        loss = student(**batch).loss
    term = distiller.losses(loss, calls, batch=batch).terms["token"]
    with torch.no_grad():
        own, other = (
            model(input_features=batch["input_features"], decoder_input_ids=batch["decoder_input_ids"]).logits
            for model in (student, teacher)
        )
    mask = batch["labels"] != -100
    assert_close(term, soft_target_kl(own[mask], other[mask], temperature=2.0), rtol=1e-5, atol=1e-6)


def test_refuses_an_encoder_that_cannot_be_shared(whisper_parts):
    teacher = whisper_parts.make()
    learning = distil_whisper_student(teacher, freeze_encoder=False)
    with pytest.raises(SetupError, match=r"must be frozen to be shared, got \d+ parameters that learn, such as 'conv1"):
        recipes.distil_whisper(teacher, learning)
    other = distil_whisper_student(whisper_parts.make(seed=1))
    with pytest.raises(SetupError, match=r"differ in \d+ tensors, such as '"):
        recipes.distil_whisper(teacher, other)
    random = distil_whisper_student(whisper_parts.make(dropout=0.1))
    with pytest.raises(SetupError, match=r"random in training, config \{'dropout': 0\.1\}"):
        recipes.distil_whisper(whisper_parts.make(dropout=0.1), random)
    assert recipes.distil_whisper(teacher, other, share_encoder=False).teacher is teacher


def test_refuses_another_vocabulary(whisper_parts):
    teacher = whisper_parts.make()
    _, student = random_pair()
    with pytest.raises(SetupError, match=rf"vocabulary of {teacher.config.vocab_size} tokens, got 12"):
        recipes.distil_whisper(teacher, student)


def test_asks_for_keyword_arguments(whisper_parts):
    teacher = whisper_parts.make()
    shared = SharedEncoderTeacher(teacher, distil_whisper_student(teacher))
    output = {"encoder_last_hidden_state": torch.zeros(1, 100, 16)}
    with pytest.raises(SetupError, match=r"keyword arguments only to share its encoder, got 1 by position"):
        shared.inputs_of(Observation(Inputs((torch.zeros(1),)), output))
    with pytest.raises(SetupError, match=r"must hold 'encoder_last_hidden_state' .* got Tensor"):
        shared.inputs_of(Observation(Inputs(), torch.zeros(1)))


@pytest.mark.parametrize(
    ("recipe", "task_weight", "expected"),
    [
        ("ctc_kd", 0.0, {"temperature": 2.0, "selection": None, "weight": 1.0}),  # Hilmes et al., symmetric
        ("ctc_sequence", 0.0, {"hypotheses": 1, "weight": 1.0}),
        ("guided_ctc", 1.0, {"weight": 1.0}),
        ("transducer_kd", 1.0, {"weight": 1e-2, "reduction": "utterance"}),
    ],
)
def test_recipes_of_a_teacher_have_these_values(recipe, task_weight, expected):
    kd = getattr(recipes, recipe)(torch.nn.Linear(2, 3), blank=0)
    assert kd.task_weight == task_weight
    (term,) = kd.objectives
    assert {name: getattr(term, name) for name in expected} == expected


def test_the_share_is_divided_between_term_and_task():
    kd = recipes.ctc_kd(torch.nn.Linear(2, 3), share=0.25, blank=0)
    assert (kd.objectives[0].weight, kd.task_weight) == (0.25, 0.75)
    with pytest.raises(ValueError, match=r"`share` must be a number from 0 to 1, got 2"):
        recipes.ctc_kd(torch.nn.Linear(2, 3), share=2, blank=0)
