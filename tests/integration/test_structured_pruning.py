"""Gates that learn in a real fit beside distillation, and the smaller network that is left and distilled on."""

import copy
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import KnowledgeDistillation, StructuredPruning
from lightning_kd.compression import EncoderGates, EncoderShape
from lightning_kd.compression.hard_concrete import sparsity_penalty
from lightning_kd.errors import SetupError
from lightning_kd.objectives import DPHuBERTKD
from lightning_kd.recipes import dphubert, dphubert_second_stage
from lightning_kd.schedules import Ramp

GROUPS = ((0,), (1, 2))


class Listener(L.LightningModule):
    """What a user has: an encoder, a batch of audio without labels, an optimiser."""

    def __init__(self, net, lr=1e-3):
        super().__init__()
        self.net = net
        self.lr = lr

    def training_step(self, batch, batch_idx):
        self.net(batch[0])
        return torch.zeros(())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Validated(Listener):
    """Remembers what it computed in validation."""

    def validation_step(self, batch, batch_idx):
        self.seen = self.net(batch[0]).last_hidden_state


@pytest.fixture
def teacher(speech_net):
    return speech_net(feat_extract_norm="group", num_hidden_layers=2).eval()


@pytest.fixture
def batches():
    audio = torch.randn(8, 800, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(audio), batch_size=4)


def student_of(teacher):
    return copy.deepcopy(teacher).train().requires_grad_(True)


def stage_one(teacher, **options):
    return list(dphubert(teacher, path="net", groups=GROUPS, **options))


def test_what_was_validated_is_what_is_left_after_pruning(teacher, batches, trainer):
    module = Validated(student_of(teacher))
    kd, pruning = stage_one(teacher, sparsity=0.5, sparsity_steps=4, learning_rate=0.1)
    run = trainer(max_epochs=4, callbacks=[kd, pruning], num_sanity_val_steps=0)
    run.fit(module, batches, batches)
    smaller = pruning.prune(module.net.eval())
    assert_close(smaller(batches.dataset[4:][0]).last_hidden_state, module.seen, rtol=1e-4, atol=1e-5)
    assert EncoderShape.of(module.net) == EncoderShape.of(teacher)
    assert list(module.net.state_dict()) == list(teacher.state_dict())
    assert not module.net.encoder.layers[0].attention.out_proj._forward_pre_hooks
    assert {"pruning/sparsity", "pruning/target", "pruning/penalty", "kd/dphubert"} <= run.callback_metrics.keys()


def test_the_second_stage_goes_on_with_the_linear_layers_of_the_first(teacher, batches, trainer):
    module = Listener(student_of(teacher), lr=0.05)
    kd, pruning = stage_one(teacher, sparsity=0.3, sparsity_steps=2, learning_rate=0.1)
    trainer(callbacks=[kd, pruning]).fit(module, batches)
    learnt = [p.detach().clone() for p in kd.objectives[0].projections.parameters()]
    assert not torch.equal(learnt[0], torch.eye(16))
    smaller = pruning.prune(module.net)
    second = dphubert_second_stage(kd)
    starting = []
    second.on_train_start = lambda *_: starting.extend(
        p.detach().clone() for p in second.objectives[0].projections.parameters()
    )
    refined = Listener(smaller.train(), lr=0.05)
    before = {name: value.clone() for name, value in smaller.state_dict().items()}
    trainer(callbacks=[second]).fit(refined, batches)
    assert all(torch.equal(a, b) for a, b in zip(starting, learnt, strict=True))
    assert any(not torch.equal(value, before[name]) for name, value in smaller.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.3, 0.6])
def test_the_share_that_is_asked_for_is_met(teacher, batches, trainer, sparsity):
    module = Listener(student_of(teacher))
    rate = Ramp(0.1, 0.005, over=200, unit="step", begin=200)
    kd, pruning = stage_one(teacher, sparsity=sparsity, sparsity_steps=50, learning_rate=rate)
    trainer(max_epochs=200, callbacks=[kd, pruning]).fit(module, batches)
    assert pruning.gates.expected_sparsity().item() == pytest.approx(sparsity, abs=0.04)
    count = [sum(p.numel() for p in m.parameters()) for m in (pruning.prune(module.net), teacher)]
    assert 1 - count[0] / count[1] == pytest.approx(sparsity, abs=0.08)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gates_follow_a_hand_written_loop(teacher, batches, trainer, accumulate):
    module = Listener(student_of(teacher), lr=0.01)
    kd = KnowledgeDistillation(teacher, student="net", objectives=[DPHuBERTKD(GROUPS)], task_weight=0.0)
    pruning = StructuredPruning(sparsity=0.5, sparsity_steps=3, learning_rate=0.05, student="net")
    started, seed = {}, L.Callback()
    pruning.on_train_start = lambda *_: started.update(gates=copy.deepcopy(pruning.gates))
    seed.on_train_batch_start = lambda t, *_: torch.manual_seed(t.fit_loop.total_batch_idx)
    run = trainer(max_epochs=2, callbacks=[kd, pruning, seed], accumulate_grad_batches=accumulate)
    run.fit(module, batches)

    net, gates = student_of(teacher), started["gates"]
    heads = [torch.nn.Linear(16, 16) for _ in GROUPS]
    for head in heads:
        torch.nn.init.eye_(head.weight)
        torch.nn.init.zeros_(head.bias)
    multipliers = [torch.zeros((), requires_grad=True) for _ in range(2)]
    weights = torch.optim.SGD([*net.parameters(), *(p for head in heads for p in head.parameters())], lr=0.01)
    descent = torch.optim.Adam(gates.parameters(), lr=0.05)
    ascent = torch.optim.Adam(multipliers, lr=0.05, maximize=True)
    detach = gates.attach(net)
    for step, (audio,) in enumerate([*batches, *batches]):
        torch.manual_seed(step)
        states = net(audio, output_hidden_states=True).hidden_states
        with torch.no_grad():
            targets = teacher(audio, output_hidden_states=True).hidden_states
        loss = 0.0
        for layer, head in zip((0, 1, 2), (heads[0], heads[1], heads[1]), strict=True):
            s, t = head(states[layer]), targets[layer]
            loss = loss + (s - t).abs().mean() - torch.nn.functional.cosine_similarity(s, t, dim=-1).mean()
        (loss / 3 / accumulate).backward()
        if (step + 1) % accumulate == 0:
            target = 0.5 * min(1.0, (step // accumulate) / 3)
            sparsity_penalty(gates.expected_sparsity(), target, *multipliers, two_sided=True).backward()
            for optimizer in (weights, descent, ascent):
                optimizer.step()
                optimizer.zero_grad()
    detach()
    for own, expected in zip(pruning.gates.parameters(), gates.parameters(), strict=True):
        assert_close(own, expected, rtol=1e-5, atol=1e-6)
    for own, expected in zip(module.net.parameters(), net.parameters(), strict=True):
        assert_close(own, expected, rtol=1e-5, atol=1e-6)
    assert pruning.constraint.linear.item() == pytest.approx(multipliers[0].item(), rel=1e-5)


def test_resumed_run_equals_an_unbroken_one(teacher, batches, trainer, tmp_path):
    def run(epochs, resume=None):
        torch.manual_seed(1)
        module = Listener(student_of(teacher))
        pruning = stage_one(teacher, sparsity=0.5, sparsity_steps=2, learning_rate=0.05)
        seed = L.Callback()
        seed.on_train_batch_start = lambda t, *_: torch.manual_seed(t.fit_loop.total_batch_idx)
        fit = trainer(max_epochs=epochs, callbacks=[*pruning, seed])
        fit.fit(module, batches, ckpt_path=resume, weights_only=False if resume else None)
        fit.save_checkpoint(tmp_path / "last.ckpt")
        return pruning[1].gates.state_dict(), module.net.state_dict()

    unbroken = run(2)
    run(1)
    resumed = run(2, tmp_path / "last.ckpt")
    for whole, broken in zip(unbroken, resumed, strict=True):
        assert all(torch.equal(value, broken[name]) for name, value in whole.items())


def test_gates_of_a_checkpoint_prune_without_another_fit(teacher, batches, trainer, tmp_path):
    module = Listener(student_of(teacher))
    kd, pruning = stage_one(teacher, sparsity=0.5, sparsity_steps=2, learning_rate=0.1)
    run = trainer(callbacks=[kd, pruning])
    run.fit(module, batches)
    run.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"][pruning.state_key]
    gates = EncoderGates(module.net)
    gates.load_state_dict(state["gates"])
    assert all(torch.equal(gates.settled()[key], value) for key, value in pruning.gates.settled().items())


def test_refuses_what_cannot_work(teacher, batches, trainer, speech_net):
    def fit(callback, net=None, **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found .* module\\(s\\) in eval mode")
            trainer(callbacks=[callback], **options).fit(Listener(net or student_of(teacher)), batches)

    pruning = StructuredPruning(student="net")
    with pytest.raises(SetupError, match=r"call prune\(\) after Trainer\.fit"):
        pruning.prune(teacher)
    dropping = speech_net(feat_extract_norm="group", layerdrop=0.1)
    with pytest.raises(SetupError, match=r"`layerdrop` of the student must be 0, got 0\.1"):
        fit(StructuredPruning(student="net"), dropping)
    with pytest.raises(SetupError, match=r"in evaluation mode, where gates are not drawn: call student\.train\(\)"):
        fit(StructuredPruning(student="net"), copy.deepcopy(teacher))
    scaled = MixedPrecision("16-mixed", device="cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(SetupError, match="`precision='16-mixed'` scales gradients"):
        fit(StructuredPruning(student="net"), plugins=[scaled])
    with pytest.raises(SetupError, match="`callbacks` lists WeightAveraging, which averages weights"):
        trainer(callbacks=[pruning, WeightAveraging()]).fit(Listener(student_of(teacher)), batches)
    with pytest.raises(SetupError, match="`units` must leave out 'convolutions'"):
        fit(StructuredPruning(student="net"), speech_net(num_hidden_layers=2))
    with pytest.raises(ValueError, match="`sparsity` must be above 0 and below 1, got 1"):
        StructuredPruning(sparsity=1)
    with pytest.raises(ValueError, match=r"`learning_rate` must be a finite number of at least 0, .* got -1"):
        StructuredPruning(learning_rate=-1)
