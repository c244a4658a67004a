"""However a frozen network is run, it shows the same."""

import copy

import pytest
import timm
import torch
from torch import nn

from lightning_kd import Distiller, FeatureKD, FrozenTeacher, LogitKD, Tap
from lightning_kd.errors import SetupError
from lightning_kd.taps import Inputs
from lightning_kd.teachers import Execution
from lightning_kd.teachers.execution import over_tensors, split

IMAGES = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
TAPS = [Tap("layer1"), Tap("layer3", at="input")]


@pytest.fixture(scope="module")
def network():
    """A small residual network whose BatchNorm is not the identity."""
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net


def shown(network, execution=None, **options):
    teacher = FrozenTeacher(copy.deepcopy(network), execution=execution)
    teacher.tap(TAPS)
    seen = teacher.observe(Inputs.of(IMAGES), **options)
    teacher.untap()
    return seen


@pytest.mark.parametrize("samples", [1, 2, 5, 64])
def test_a_microbatch_shows_the_same_as_the_whole_batch(samples, network):
    whole, parts = shown(network), shown(network, Execution(microbatch=samples))
    torch.testing.assert_close(parts.output, whole.output, rtol=1e-5, atol=1e-5)
    for tap in TAPS:
        torch.testing.assert_close(parts.features[tap], whole.features[tap], rtol=1e-5, atol=1e-5)
    assert parts.inputs.args[0].shape == IMAGES.shape


def test_a_microbatch_stops_at_the_last_tap_too(network):
    parts, whole = shown(network, Execution(microbatch=2), stop=True), shown(network)
    assert parts.output is None
    for tap in TAPS:
        torch.testing.assert_close(parts.features[tap], whole.features[tap], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.05), ("float16", 0.01), ("float32", 1e-6)])
def test_a_network_in_half_precision_shows_nearly_the_same_in_float32(dtype, error, network):
    whole, half = shown(network), shown(network, Execution(dtype=dtype))
    assert half.inputs.args[0].dtype == getattr(torch, dtype)
    for ours, theirs in [(half.output, whole.output), *((half.features[tap], whole.features[tap]) for tap in TAPS)]:
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() <= error


def test_a_compiled_network_shows_the_same(network):
    whole, compiled = shown(network), shown(network, Execution(compiler="eager"))
    torch.testing.assert_close(compiled.output, whole.output, rtol=1e-6, atol=1e-6)
    for tap in TAPS:
        torch.testing.assert_close(compiled.features[tap], whole.features[tap], rtol=1e-6, atol=1e-6)


def test_a_pinned_network_returns_to_the_students_device(network):
    seen = shown(network, Execution(device="cpu"))
    assert seen.output.device == IMAGES.device
    assert torch.equal(seen.output, shown(network).output)


def test_without_options_the_output_is_what_the_network_returned():
    output = object()

    class Odd(nn.Module):
        def forward(self, x):
            return output

    assert FrozenTeacher(Odd()).observe(Inputs.of(torch.zeros(1))).output is output


def test_only_tensors_with_a_row_per_sample_are_split():
    mask, scale = torch.ones(3, 4), torch.ones(2)
    parts = split(Inputs((torch.zeros(3, 4), scale), {"mask": mask, "flag": True}), 2)
    assert [[len(part.args[0]), len(part.kwargs["mask"])] for part in parts] == [[2, 2], [1, 1]]
    assert all(part.args[1] is scale and part.kwargs["flag"] for part in parts)


def test_outputs_of_any_form_are_joined():
    one, two = ({"logits": torch.zeros(n), "states": (torch.ones(n), None), "name": "a"} for n in (1, 2))
    joined = over_tensors(torch.cat, [one, two])
    assert joined["logits"].shape == joined["states"][0].shape == (3,)
    assert (joined["states"][1], joined["name"]) == (None, "a")


def test_a_scalar_output_cannot_be_split():
    class Loss(nn.Module):
        def forward(self, x):
            return x, x.sum()

    teacher = FrozenTeacher(Loss(), execution=Execution(microbatch=1))
    with pytest.raises(
        SetupError, match="`microbatch` needs a network whose outputs have a row per sample, got a scalar"
    ):
        teacher.observe(Inputs.of(torch.zeros(2)))


def test_batch_statistics_need_the_whole_batch():
    with pytest.raises(SetupError, match=r"those of the whole batch: leave out execution\.microbatch"):
        FrozenTeacher(nn.BatchNorm1d(2), batch_statistics=True, execution=Execution(microbatch=1))


def test_a_stream_needs_a_gpu_when_training_starts():
    student = nn.Linear(4, 3)
    distiller = Distiller(student, FrozenTeacher(nn.Linear(4, 3), execution=Execution(stream=True)))
    with pytest.raises(SetupError, match=r"`execution\.stream` needs a student on a CUDA device"):
        distiller.start()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "int8"}, "`dtype` must be one of .* got 'int8'"), ({"microbatch": 0}, "`microbatch` .* got 0")],
)
def test_wrong_values_name_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        Execution(**options)


def test_distillation_with_all_options_trains_as_without(network):
    def losses(execution):
        torch.manual_seed(1)
        student = timm.create_model("test_resnet", num_classes=10)
        teacher = FrozenTeacher(copy.deepcopy(network), execution=execution)
        terms = [LogitKD(), FeatureKD("layer2", "layer2")]
        distiller = Distiller(student, teacher, terms).build([IMAGES])
        with distiller.watch() as calls:
            task = student(IMAGES).sum() * 0
        return distiller.losses(task, calls).total

    plain, optimised = losses(None), losses(Execution(device="cpu", compiler="eager", microbatch=2))
    torch.testing.assert_close(plain, optimised, rtol=1e-5, atol=1e-5)
