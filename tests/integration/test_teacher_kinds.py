"""Every kind of teacher trains exactly as written by hand, resumes exactly, and leaves bare checkpoints only."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from lightning_kd import EMATeacher, EnsembleTeacher, FeatureKD, FrozenTeacher, KnowledgeDistillation, LogitKD, Window
from lightning_kd.errors import SetupError
from lightning_kd.teachers import BaseTeacher, Execution, PastTeacher, random_teacher

TEMPERATURE, MOMENTUM = 2.0, 0.9
KINDS = ["frozen", "microbatch", "random", "ensemble", "ema", "past"]


@pytest.fixture
def other(cnn):
    """A second teacher, of the student's family."""
    torch.manual_seed(8)
    return cnn(width=9).eval()


@pytest.fixture
def make(teacher, other, cnn):
    """Makes a teacher of each kind, always the same."""

    def make(kind):
        return {
            "frozen": lambda: FrozenTeacher(teacher),
            "microbatch": lambda: FrozenTeacher(teacher, execution=Execution(microbatch=2)),
            "random": lambda: random_teacher(cnn, seed=4),
            "ensemble": lambda: EnsembleTeacher([teacher, other], weights="entropy", temperature=TEMPERATURE),
            "ema": lambda: EMATeacher(MOMENTUM),
            "past": PastTeacher,
        }[kind]()

    return make


def distillation(teacher):
    begin = 1 if isinstance(teacher, PastTeacher) else 0
    term = LogitKD(temperature=TEMPERATURE, weight=Window(0.9, begin=begin))
    return KnowledgeDistillation(teacher, student="net", objectives=[term], task_weight=0.3)


def kl(student, teacher):
    log_q, log_p = (F.log_softmax(logits.float() / TEMPERATURE, dim=-1) for logits in (student, teacher))
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * TEMPERATURE**2


def hand_written_target(kind, teacher, other, cnn):
    """What teaches, in plain PyTorch: a function of the images and of a copy of the student."""

    def ensemble(x, _):
        log_p = torch.stack([F.log_softmax(net(x).float() / TEMPERATURE, dim=-1) for net in (teacher, other)])
        weights = F.softmax((log_p.exp() * log_p).sum(-1), dim=0)[..., None]
        return TEMPERATURE * torch.logsumexp(log_p + weights.log(), dim=0)

    def random(x, _):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            return cnn().eval()(x)

    return {
        "frozen": lambda x, _: teacher(x),
        "microbatch": lambda x, _: torch.cat([teacher(part) for part in x.split(2)]),
        "random": random,
        "ensemble": ensemble,
    }.get(kind, lambda x, own: own(x))


def by_hand(classifier, kind, target):
    """The same training in plain Lightning."""

    class ByHand(classifier):
        def on_fit_start(self):
            self.outside = [copy.deepcopy(self.net).eval().requires_grad_(False)]

        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self.net(x)
            loss = 0.3 * F.cross_entropy(logits, y)
            if kind == "past" and self.current_epoch == 0:
                return loss
            with torch.no_grad():
                teacher_logits = target(x, self.outside[0])
            return loss + 0.9 * kl(logits, teacher_logits)

        @torch.no_grad()
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if kind != "ema" or (batch_idx + 1) % self.trainer.accumulate_grad_batches:
                return
            for own, value in zip(self.outside[0].parameters(), self.net.parameters(), strict=True):
                own.mul_(MOMENTUM).add_(value, alpha=1 - MOMENTUM)
            for own, value in zip(self.outside[0].buffers(), self.net.buffers(), strict=True):
                own.copy_(value)

        def on_train_epoch_end(self):
            if kind == "past":
                self.outside[0].load_state_dict(self.net.state_dict())

    return ByHand


@pytest.mark.parametrize(("precision", "accumulate"), [("32-true", 1), ("32-true", 2), ("bf16-mixed", 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_equal_those_of_a_hand_written_module(
    kind, precision, accumulate, make, classifier, cnn, teacher, other, loader, trainer
):
    start = cnn()
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate, "precision": precision}
    ours = classifier(copy.deepcopy(start))
    trainer(callbacks=[distillation(make(kind))], **options).fit(ours, loader())
    target = hand_written_target(kind, teacher.eval(), other, cnn)
    theirs = by_hand(classifier, kind, target)(copy.deepcopy(start))
    trainer(**options).fit(theirs, loader())
    assert not torch.equal(start.head.weight, ours.net.head.weight)
    for name, value in ours.net.state_dict().items():
        assert torch.equal(value, theirs.net.state_dict()[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_unbroken_one(kind, make, classifier, cnn, loader, trainer, tmp_path):
    def start():
        torch.manual_seed(5)
        return classifier(cnn()), distillation(make(kind))

    whole, whole_kd = start()
    trainer(max_epochs=3, callbacks=[whole_kd]).fit(whole, loader())
    broken, broken_kd = start()
    first = trainer(max_epochs=1, callbacks=[broken_kd])
    first.fit(broken, loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    resumed, resumed_kd = classifier(cnn()), distillation(make(kind))
    trainer(max_epochs=3, callbacks=[resumed_kd]).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    kept, again = (kd.state_dict().get("teacher", {}).get("weights", {}) for kd in (whole_kd, resumed_kd))
    assert bool(kept) == (kind in ("ema", "past"))
    assert all(torch.equal(value, again[name]) for name, value in kept.items())


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_load_strictly_into_the_bare_module(
    kind, weights_only, make, classifier, loader, trainer, tmp_path
):
    fitted, module = trainer(callbacks=[distillation(make(kind))]), classifier()
    fitted.fit(module, loader())
    fitted.save_checkpoint(tmp_path / "student.ckpt", weights_only=weights_only)
    state = torch.load(tmp_path / "student.ckpt", weights_only=True)["state_dict"]
    classifier().load_state_dict(state, strict=True)
    assert list(state) == list(classifier().state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_three_fits_leave_nothing_behind(kind, make, classifier, loader, trainer):
    kd, module = distillation(make(kind)), classifier()
    names = [name for name, _ in module.named_modules()]
    for _ in range(3):
        trainer(callbacks=[kd], max_epochs=2).fit(module, loader(samples=8))
        for network in (module, kd._distiller._teacher_module):
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
        assert [name for name, _ in module.named_modules()] == names
        assert "training_step" not in vars(module)


def test_an_average_goes_on_in_a_second_fit(classifier, loader, trainer):
    kd, module = distillation(EMATeacher(1.0)), classifier()
    start = module.net.head.weight.detach().clone()
    for _ in range(2):
        trainer(callbacks=[kd]).fit(module, loader())
        assert torch.equal(kd.teacher.module.head.weight, start)


def test_features_of_the_average_are_distilled(classifier, loader, trainer):
    kd = KnowledgeDistillation(EMATeacher(0.5), student="net", objectives=[FeatureKD("body", "body")])
    fitted = trainer(callbacks=[kd])
    fitted.fit(classifier(), loader())
    assert fitted.callback_metrics["kd/feature"] > 0


def test_the_whole_module_can_be_averaged(classifier, loader, trainer):
    kd = KnowledgeDistillation(EMATeacher(0.5), objectives=[LogitKD()], student="")

    class Whole(classifier):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    module = Whole()
    trainer(callbacks=[kd]).fit(module, loader())
    assert isinstance(kd.teacher.module, Whole)
    assert not torch.equal(kd.teacher.module.net.head.weight, module.net.head.weight)


def test_a_checkpoint_of_another_kind_of_teacher_is_refused(make, classifier, loader, trainer, tmp_path):
    for kind, other_kind, message in [("frozen", "ema", "no state of a EMATeacher"), ("ema", "frozen", "changes")]:
        first = trainer(callbacks=[distillation(make(kind))])
        first.fit(classifier(), loader())
        first.save_checkpoint(tmp_path / "other.ckpt")
        second = trainer(max_epochs=2, callbacks=[distillation(make(other_kind))])
        with pytest.raises(SetupError, match=message):
            second.fit(classifier(), loader(), ckpt_path=tmp_path / "other.ckpt", weights_only=True)


def test_a_teacher_that_serves_too_little_is_refused_at_setup(classifier, trainer, loader):
    class Remembered(BaseTeacher):
        module, serves = None, ("output",)

    kd = KnowledgeDistillation(Remembered(), student="net", objectives=[FeatureKD("body", "body")])
    with pytest.raises(SetupError, match="reads the teacher's features, and this Remembered serves output only"):
        trainer(callbacks=[kd]).fit(classifier(), loader())


def test_a_manual_module_moves_its_teacher_by_the_mixin(cnn, loader, trainer):
    from lightning_kd import DistillationMixin

    class Manual(DistillationMixin, L.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = cnn()
            self.averages = []
            self.setup_distillation(EMATeacher(0.5), student="net", objectives=[LogitKD()], allow=("zero",))

        def training_step(self, batch, batch_idx):
            x, y = batch
            with self.distill() as calls:
                task_loss = F.cross_entropy(self.net(x), y)
            self.averages.append(self.distiller.teacher.module.head.weight.clone())
            self.optimizers().zero_grad()
            self.manual_backward(self.distillation_losses(task_loss, calls).total)
            before = self.net.head.weight.detach().clone()
            self.optimizers().step()
            self.expected = 0.5 * self.averages[-1] + 0.5 * self.net.head.weight.detach()
            assert not torch.equal(before, self.net.head.weight)

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.05)

    module = Manual()
    trainer().fit(module, loader())
    torch.testing.assert_close(module.distiller.teacher.module.head.weight, module.expected)
    assert len(module.averages) == 6
