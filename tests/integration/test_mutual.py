"""Students that teach each other train as written by hand, resume, checkpoint alone, and leave nothing behind."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from lightning_kd import FeatureKD, LogitKD, MutualLearning, Window
from lightning_kd.checkpoints import load_weights
from lightning_kd.errors import SetupError, TermError

NAMES = ("cnn", "vit")


@pytest.fixture
def students(classifier, cnn, teacher):
    """A convolutional student and a transformer, always the same, each with an optimiser and scheduler of its own."""

    def make():
        torch.manual_seed(3)
        vit = copy.deepcopy(teacher)
        vit.block.dropout.p = vit.block.dropout1.p = vit.block.dropout2.p = vit.block.self_attn.dropout = 0.0
        return {"cnn": classifier(cnn()), "vit": classifier(vit, lr=0.01)}

    return make


def kl(student, other):
    log_q, log_p = F.log_softmax(student.float(), dim=-1), F.log_softmax(other.detach().float(), dim=-1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


class ByHand(L.LightningModule):
    """Deep mutual learning of two networks in plain Lightning."""

    def __init__(self, modules, order):
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = (module.net for module in modules.values())
        self.rates = [module.lr for module in modules.values()]
        self.order = order

    def training_step(self, batch, batch_idx):
        x, y = batch
        first, second = self.optimizers()
        a = self.a(x)
        if self.order == "together":
            b = self.b(x)
            losses = F.cross_entropy(a, y) + kl(a, b), F.cross_entropy(b, y) + kl(b, a)
            for loss, optimizer in zip(losses, (first, second), strict=True):
                self.learn(loss, optimizer)
            return
        with torch.no_grad():
            b = self.b(x)
        self.learn(F.cross_entropy(a, y) + kl(a, b), first)
        b = self.b(x)
        with torch.no_grad():
            a = self.a(x)
        self.learn(F.cross_entropy(b, y) + kl(b, a), second)

    def learn(self, loss, optimizer):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_train_epoch_end(self):
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self):
        pairs = zip((self.a, self.b), self.rates, strict=True)
        optimizers = [torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9) for net, rate in pairs]
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch) for o in optimizers]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("order", ["together", "in_turn"])
def test_weights_equal_those_of_a_hand_written_module(order, precision, students, loader, trainer):
    modules = students()
    theirs = ByHand(copy.deepcopy(modules), order)
    mutual = MutualLearning(modules, student="net", order=order)
    for module in (mutual, theirs):
        options = {"precision": precision}
        if precision == "16-mixed":  # on a CPU, with a scaler that grows after every other step
            scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
            options = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
        trainer(max_epochs=2, **options).fit(module, loader())
    start = students()
    for name, net in zip(NAMES, (theirs.a, theirs.b), strict=True):
        assert not torch.equal(start[name].net.head.weight, net.head.weight)
        for key, value in modules[name].net.state_dict().items():
            assert torch.equal(value, net.state_dict()[key]), (name, key)


def test_both_learn_from_each_other_and_say_so(students, loader, trainer):
    mutual = MutualLearning(students(), student="net")
    fitted = trainer(log_every_n_steps=1)
    fitted.fit(mutual, loader())
    metrics = fitted.callback_metrics
    for learner, other in (NAMES, NAMES[::-1]):
        prefix = f"{learner}_from_{other}"
        assert metrics[f"{prefix}/logit"] > 0
        total = metrics[f"{prefix}/task"] + metrics[f"{prefix}/logit"]
        assert metrics[f"{prefix}/total"].item() == pytest.approx(total.item(), rel=1e-6)
        assert metrics[f"{prefix}/logit_weight"] == 1.0
    assert fitted.global_step == 12  # six batches, two optimisers


def test_three_students_learn_from_the_mean_over_the_others(classifier, loader, trainer):
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 5)

        def forward(self, x):
            return self.head(x.flatten(1))

    torch.manual_seed(0)
    modules = {name: classifier(Scores()) for name in "abc"}
    start = {name: copy.deepcopy(module.net) for name, module in modules.items()}
    trainer(max_steps=3).fit(MutualLearning(modules, student="net"), loader())
    x, y = next(iter(loader()))
    logits = {name: net(x) for name, net in start.items()}
    for name, net in start.items():
        transfer = sum(kl(logits[name], logits[other]) for other in start if other != name) / 2
        (F.cross_entropy(logits[name], y) + transfer).backward()
        expected = net.head.weight - 0.05 * net.head.weight.grad
        torch.testing.assert_close(modules[name].net.head.weight, expected)


def features(learner, other):
    places = {"cnn": "body", "vit": "block"}
    return [LogitKD(temperature=1.0), FeatureKD(places[learner], places[other])]


def test_adapters_train_with_their_student_and_stay_out_of_checkpoints(
    students, classifier, cnn, loader, trainer, tmp_path
):
    example = torch.zeros(2, 3, 8, 8)
    mutual = MutualLearning(students(), student="net", objectives=features, example_inputs=example)
    adapters = mutual._distillers["cnn"]["vit"].adapters
    start = copy.deepcopy(adapters.state_dict())
    fitted = trainer()
    fitted.fit(mutual, loader())
    assert any(not torch.equal(value, start[name]) for name, value in adapters.state_dict().items())
    assert len(fitted.optimizers[0].param_groups[0]["params"]) == len(list(cnn().parameters())) + 2
    for weights_only in (False, True):
        path = tmp_path / f"{weights_only}.ckpt"
        fitted.save_checkpoint(path, weights_only=weights_only)
        checkpoint = torch.load(path, weights_only=True)
        assert ("lightning_kd" in checkpoint) == (not weights_only)
        own = {key.removeprefix("peers.cnn."): value for key, value in checkpoint["state_dict"].items() if "cnn" in key}
        classifier().load_state_dict(own, strict=True)
        assert all(key.startswith(("peers.cnn.", "peers.vit.")) for key in checkpoint["state_dict"])
    bare = cnn()
    load_weights(bare, path, prefix="peers.cnn.net.")
    assert torch.equal(bare.head.weight, mutual.peers["cnn"].net.head.weight)


def test_a_resumed_run_equals_an_unbroken_one(students, loader, trainer, tmp_path):
    def start():
        modules = students()
        return MutualLearning(modules, student="net", objectives=features, example_inputs=torch.zeros(2, 3, 8, 8))

    whole = start()
    trainer(max_epochs=3).fit(whole, loader())
    first = trainer(max_epochs=1)
    first.fit(start(), loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    torch.manual_seed(99)
    resumed = start()
    trainer(max_epochs=3).fit(resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    ours, theirs = (m._distillers["vit"]["cnn"].state_dict()["adapters"] for m in (whole, resumed))
    assert ours
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_checkpoint_of_other_students_is_refused(students, loader, trainer, tmp_path):
    first = trainer()
    first.fit(MutualLearning(students(), student="net"), loader())
    first.save_checkpoint(tmp_path / "two.ckpt")
    renamed = MutualLearning({"one": students()["cnn"], "two": students()["vit"]}, student="net")
    with pytest.raises(SetupError, match=r"of other students: it has \['cnn_from_vit', 'vit_from_cnn'\]"):
        renamed.on_load_checkpoint(torch.load(tmp_path / "two.ckpt", weights_only=True))


def test_nothing_is_left_behind(students, loader, trainer):
    mutual = MutualLearning(students(), student="net", objectives=features, example_inputs=torch.zeros(2, 3, 8, 8))
    names = [name for name, _ in mutual.named_modules()]
    for _ in range(2):
        trainer().fit(mutual, loader(samples=8))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in mutual.modules())
        assert [name for name, _ in mutual.named_modules()] == names
        assert all("log" not in vars(peer) and peer._trainer is None for peer in mutual.peers.values())


def test_students_validate_and_log_under_their_names(classifier, cnn, loader, trainer):
    class Validated(classifier):
        def validation_step(self, batch):
            self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log_dict({"loss": loss, "epoch_seen": float(self.current_epoch)})
            return {"loss": loss}

    mutual = MutualLearning({"one": Validated(cnn()), "two": classifier(cnn())}, student="net")
    fitted = trainer()
    fitted.fit(mutual, loader(), loader())
    assert {"one/accuracy", "one/loss", "one/epoch_seen"} <= set(fitted.callback_metrics)
    assert "two/accuracy" not in fitted.callback_metrics


def test_schedules_count_each_students_steps(classifier, cnn, loader, trainer):
    seen = []

    def weight(progress):
        seen.append((progress.step, progress.total_steps))
        return 1.0

    mutual = MutualLearning(
        {"one": classifier(cnn()), "two": classifier(cnn(5))},
        student="net",
        objectives=lambda learner, other: [LogitKD(weight=weight if learner == "one" else 1.0)],
    )
    trainer(max_epochs=2).fit(mutual, loader())
    assert sorted(set(seen)) == [(step, 12) for step in range(12)]


def test_a_direction_may_rest(students, loader, trainer):
    def objectives(learner, other):
        return [LogitKD(weight=Window(1.0, begin=1) if learner == "cnn" else 1.0)]

    fitted = trainer()
    fitted.fit(MutualLearning(students(), student="net", objectives=objectives), loader())
    assert "cnn_from_vit/logit" not in fitted.callback_metrics
    assert "vit_from_cnn/logit" in fitted.callback_metrics


def test_equal_students_are_noticed_on_the_first_step(classifier, loader, trainer):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    modules = {"one": classifier(net), "two": classifier(copy.deepcopy(net))}
    with pytest.raises(TermError, match="'logit' is exactly 0 on the first step"):
        trainer().fit(MutualLearning(modules, student="net"), loader())


def test_what_cannot_work_is_named(classifier, cnn, loader, trainer):
    class Hooked(classifier):
        def on_train_epoch_end(self):
            return

    class Manual(classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    class TwoOptimizers(classifier):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.net.body.parameters(), 0.1), torch.optim.SGD(self.net.head.parameters(), 0.1)]

    class Plateau(classifier):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss"}}

    shared = cnn()
    for modules, message in [
        ({"one": classifier()}, r"at least two students by name, got \['one'\]"),
        ({"one": classifier(), "two": cnn()}, "must be LightningModules by name, got 'two': TinyCNN"),
        ({"one": classifier(), "two": Manual()}, "'two' optimises manually"),
        ({"one": classifier(), "two": Hooked()}, r"'two' \(Hooked\) overrides on_train_epoch_end, which nobody"),
        ({"one": classifier(shared), "two": classifier(shared)}, "'two' shares parameters"),
    ]:
        with pytest.raises(SetupError, match=message):
            MutualLearning(modules, student="net")
    with pytest.raises(SetupError, match=r"a path of each of \['one', 'two'\], got \['one'\]"):
        MutualLearning({"one": classifier(), "two": classifier()}, student={"one": "net"})
    with pytest.raises(SetupError, match="`example_inputs` is needed"):
        MutualLearning({"cnn": classifier(), "vit": classifier()}, student="net", objectives=features)
    with pytest.raises(ValueError, match="`order` must be one of 'together', 'in_turn', got 'random'"):
        MutualLearning({"one": classifier(), "two": classifier()}, order="random")
    for module, message in [(TwoOptimizers(), "one optimiser and at most"), (Plateau(), "follows a metric")]:
        with pytest.raises(SetupError, match=f"'two' .*{message}"):
            trainer().fit(MutualLearning({"one": classifier(), "two": module}, student="net"), loader())
