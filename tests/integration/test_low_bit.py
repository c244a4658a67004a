"""Weights of few bits beside distillation in real Trainers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import WeightAveraging

from lightning_kd import FeatureKD, KnowledgeDistillation, LogitKD, LowBitTraining
from lightning_kd.compression import LearnedLevels, TernaryWeights, UniformWeights
from lightning_kd.compression.quantizers import quantize_to_levels, ternarize
from lightning_kd.errors import SetupError


def distilled(teacher, quantizer=None, **options):
    objectives = [LogitKD(temperature=2.0, weight=0.7, class_mean=True), FeatureKD("body", "block")]
    kd = KnowledgeDistillation(teacher, student="net", objectives=objectives, task_weight=0.3)
    return [kd, LowBitTraining(quantizer or TernaryWeights(), student="net", **options)]


def test_steps_are_those_of_polino_written_out(classifier, teacher, loader, trainer):
    """Quantise, step with the gradient of the quantised weights, restore the full precision."""
    start = classifier()
    module = copy.deepcopy(start)
    kd = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(weight=0.7)], task_weight=0.3)
    callback = LowBitTraining(UniformWeights(levels=4, bucket_size=None), student="net")
    trainer(callbacks=[kd, callback], max_steps=3, max_epochs=-1).fit(module, loader())

    network, teacher = start.net, teacher.eval()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    weights = [network.body[0].weight, network.head.weight]
    for (x, y), _ in zip(loader(), range(3), strict=False):
        full = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                low, span = weight.min(), weight.max() - weight.min()
                weight.copy_(((weight - low) / span * 3).round() / 3 * span + low)
        z, t = network(x), teacher(x).detach()
        kl = F.kl_div((z / 4).log_softmax(-1), (t / 4).softmax(-1), reduction="batchmean") * 16
        (0.3 * F.cross_entropy(z, y) + 0.7 * kl).backward()
        with torch.no_grad():
            for weight, value in zip(weights, full, strict=True):
                weight.copy_(value)
        optimizer.step()
        optimizer.zero_grad()
    trained = callback.state_dict()["weights"]
    for name, weight in zip(("body.0.weight", "head.weight"), weights, strict=True):
        torch.testing.assert_close(trained[name], weight.detach(), rtol=1e-5, atol=1e-6)


def test_the_student_ends_with_quantised_weights_and_plain_checkpoints(classifier, teacher, loader, trainer, tmp_path):
    module, callbacks = classifier(), distilled(teacher, skip=["head"])
    keys, head = list(module.state_dict()), module.net.head.weight.clone()
    fitted = trainer(callbacks=callbacks, max_steps=3, max_epochs=-1)
    fitted.fit(module, loader())
    weight = module.net.body[0].weight
    magnitudes = [row.abs().unique() for row in weight.detach()]
    assert all(len(values) <= 2 for values in magnitudes)
    assert torch.equal(weight.detach(), ternarize(callbacks[1].state_dict()["weights"]["body.0.weight"]))
    assert len(module.net.head.weight.unique()) == head.numel()
    assert not torch.equal(module.net.head.weight, head)
    fitted.save_checkpoint(tmp_path / "low.ckpt")
    state = torch.load(tmp_path / "low.ckpt", weights_only=True)["state_dict"]
    assert list(state) == list(module.state_dict()) == keys
    classifier().load_state_dict(state, strict=True)
    assert torch.equal(state["net.body.0.weight"], weight)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


@pytest.mark.parametrize(
    "make",
    [TernaryWeights, lambda: UniformWeights(levels=4), lambda: LearnedLevels(levels=4)],
    ids=["ternary", "uniform", "learned"],
)
def test_resumed_run_equals_an_unbroken_one(make, classifier, teacher, loader, trainer, tmp_path):
    def start(seed):
        torch.manual_seed(seed)
        return classifier(), distilled(teacher, make(), activation_bits=8)

    whole, whole_callbacks = start(5)
    trainer(max_epochs=2, callbacks=whole_callbacks).fit(whole, loader())
    broken, callbacks = start(5)
    first = trainer(max_epochs=1, callbacks=callbacks)
    first.fit(broken, loader())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    resumed, callbacks = start(99)
    trainer(max_epochs=2, callbacks=callbacks).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for name, value in whole_callbacks[1].state_dict()["weights"].items():
        assert torch.equal(value, callbacks[1].state_dict()["weights"][name]), name


def test_learned_levels_move_and_the_weights_do_not(classifier, teacher, loader, trainer):
    module, quantizer = classifier(), LearnedLevels(levels=4)
    before = module.net.head.weight.detach().clone()
    bias = module.net.head.bias.detach().clone()
    callbacks = distilled(teacher, quantizer)
    trainer(callbacks=callbacks, max_steps=3, max_epochs=-1).fit(module, loader())
    assert torch.equal(callbacks[1].state_dict()["weights"]["head.weight"], before)
    assert torch.equal(module.net.head.bias, bias)
    fresh = LearnedLevels(levels=4)
    fresh.build({"head.weight": before})
    learnt = quantizer.positions[1].detach()
    assert not torch.equal(learnt, fresh.positions[0])
    assert torch.equal(module.net.head.weight.detach(), quantize_to_levels(before, learnt))
    assert all(parameter.requires_grad for parameter in module.net.parameters())


def test_a_second_fit_goes_on_from_full_precision(classifier, teacher, loader, trainer):
    whole, callbacks = classifier(), distilled(teacher)
    torch.manual_seed(1)
    trainer(max_epochs=1, callbacks=callbacks).fit(whole, loader())
    between = callbacks[1].state_dict()["weights"]["head.weight"].clone()
    trainer(max_epochs=0, callbacks=callbacks).fit(whole, loader())
    assert torch.equal(callbacks[1].state_dict()["weights"]["head.weight"], between)
    with torch.no_grad():
        whole.net.head.weight.fill_(0.5)
    trainer(max_epochs=0, callbacks=callbacks).fit(whole, loader())
    assert callbacks[1].state_dict()["weights"]["head.weight"].unique().tolist() == [0.5]


def test_what_would_not_be_what_it_seems_is_refused(classifier, teacher, loader, trainer):
    averaging = [*distilled(teacher), WeightAveraging()]
    with pytest.raises(SetupError, match="WeightAveraging, which averages full-precision weights"):
        trainer(callbacks=averaging).fit(classifier(), loader())

    class Decaying(classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1, weight_decay=0.1)

    with pytest.raises(SetupError, match=r"without weight decay, .* weight_decay=0.1"):
        trainer(callbacks=distilled(teacher, LearnedLevels(levels=4))).fit(Decaying(), loader())
    with pytest.raises(SetupError, match="`quantizer` must be a quantiser such as"):
        LowBitTraining("ternary")


def test_a_layer_that_is_not_called_is_named(classifier, cnn, teacher, loader, trainer):
    net = cnn()
    net.spare = torch.nn.Linear(2, 2)
    with pytest.raises(SetupError, match=r"\['spare.weight'\] were not used by calls"):
        trainer(callbacks=distilled(teacher)).fit(classifier(net), loader())
