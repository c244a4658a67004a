"""The CIFAR-100 benchmark keeps to the published protocol: networks, weights, schedule, augmentation, report."""

import importlib
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_kd.schedules import Progress

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# Millions of parameters as printed by the protocol.
PARAMETERS = {
    "resnet8x4": 1.234,
    "resnet32x4": 7.434,
    "resnet20": 0.278,
    "resnet56": 0.862,
    "resnet32": 0.473,
    "resnet110": 1.737,
    "wrn_16_2": 0.703,
    "wrn_40_1": 0.570,
    "wrn_40_2": 2.255,
    "vgg8": 3.965,
    "vgg13": 9.462,
    "MobileNetV2": 0.813,
    "ShuffleV1": 0.949,
    "ShuffleV2": 1.356,
    "ResNet50": 23.705,
}
GRIDS = {
    "resnet20": [32, 16, 8],
    "resnet8x4": [32, 16, 8],
    "wrn_40_2": [32, 16, 8],
    "vgg8": [16, 8, 4, 4],
    "ResNet50": [32, 16, 8, 4],
    "MobileNetV2": [16, 8, 4, 2],
    "ShuffleV1": [16, 8, 4],
    "ShuffleV2": [16, 8, 4],
}
BETAS = {
    "resnet56-resnet20": 2,
    "resnet110-resnet32": 2,
    "resnet32x4-resnet8x4": 8,
    "wrn_40_2-wrn_16_2": 6,
    "wrn_40_2-wrn_40_1": 6,
    "vgg13-vgg8": 6,
    "resnet32x4-ShuffleV1": 8,
    "resnet32x4-ShuffleV2": 8,
    "wrn_40_2-ShuffleV1": 8,
    "vgg13-MobileNetV2": 6,
    "ResNet50-MobileNetV2": 8,
}
METHODS = ["alone", "KD", "FitNet", "AT", "SP", "VID", "RKD", "PKT", "CRD", "ReviewKD", "DKD"]
METHODS += ["LSKD", "DIST", "NKD", "CTKD"]


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_are_importable():
    """Scripts find the files beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture(scope="module")
def networks():
    return importlib.import_module("_cifar_networks")


@pytest.fixture(scope="module")
def data():
    return importlib.import_module("_cifar_data")


@pytest.fixture(scope="module")
def methods():
    return importlib.import_module("_cifar_methods")


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("cifar100")


def read_taps(network, taps, images):
    """Tensors at the taps, copied when they are read: later layers may work in place."""
    read, handles = {}, []
    for tap in taps:
        module = network.get_submodule(tap.path)
        if tap.at == "input":
            handles.append(
                module.register_forward_pre_hook(lambda _, args, tap=tap: read.update({tap: args[0].clone()}))
            )
        else:
            handles.append(module.register_forward_hook(lambda _, __, out, tap=tap: read.update({tap: out.clone()})))
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()
    return [read[tap] for tap in taps]


@pytest.fixture
def arrays(tmp_path):
    """Folder of random images in the form of CIFAR-100."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 10)):
        np.save(tmp_path / f"{name}_images.npy", generator.integers(256, size=(count, 32, 32, 3), dtype=np.uint8))
        np.save(tmp_path / f"{name}_labels.npy", np.arange(count, dtype=np.int32) % 100)
    return tmp_path


class TestNetworks:
    def test_all_of_the_protocol_are_there(self, networks):
        assert set(networks.ARCHITECTURES) == set(PARAMETERS)

    @pytest.mark.parametrize(("name", "millions"), PARAMETERS.items())
    def test_has_the_published_number_of_parameters(self, networks, name, millions):
        network = networks.ARCHITECTURES[name].make(100)
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions

    def test_mobilenet_begins_every_block_with_a_1x1_convolution_and_has_relu(self, networks):
        network = networks.ARCHITECTURES["MobileNetV2"].make(100)
        first = network.features[1].conv[0][0]
        assert (first.in_channels, first.out_channels, first.kernel_size) == (16, 16, (1, 1))
        assert not [module for module in network.modules() if isinstance(module, torch.nn.ReLU6)]
        assert sum(p.numel() for p in network.features[1].parameters()) == 16 * 16 + 32 + 9 * 16 + 32 + 16 * 8 + 16

    def test_shufflenet_activates_what_its_last_convolutions_read(self, networks):
        network = networks.ARCHITECTURES["ShuffleV1"].make(100)
        units = [module for module in network.modules() if isinstance(module, networks.ShuffleUnit)]
        for unit in units:
            assert [type(layer).__name__ for layer in unit.branch][4:7] == ["Conv2d", "BatchNorm2d", "ReLU"]

    def test_classifiers_start_as_published(self, networks):
        vgg, wide = (networks.ARCHITECTURES[name].make(100).classifier for name in ("vgg8", "wrn_16_2"))
        assert not vgg.bias.any()
        assert not wide.bias.any()
        assert vgg.weight.std().item() == pytest.approx(0.01, rel=0.05)  # of 51200 values

    @pytest.mark.parametrize(("name", "grids"), GRIDS.items())
    def test_stages_have_the_published_grids_and_the_output_is_logits(self, networks, name, grids):
        architecture = networks.ARCHITECTURES[name]
        network = architecture.make(7)
        taps = [networks.Tap(path) for path in architecture.stages]

        *stages, pooled = read_taps(network, [*taps, architecture.pooled], torch.randn(2, 3, 32, 32))

        assert [tuple(stage.shape[2:]) for stage in stages] == [(grid, grid) for grid in grids]
        assert pooled.ndim == 2
        assert torch.equal(network(torch.randn(2, 3, 32, 32)).isfinite().sum(), torch.tensor(14))

    @pytest.mark.parametrize("name", ["resnet56", "resnet32x4", "vgg13", "ResNet50"])
    def test_a_stage_is_what_the_activation_makes_of_the_place_before_it(self, networks, name):
        architecture = networks.ARCHITECTURES[name]
        taps = [networks.Tap(path) for path in architecture.stages]

        read = read_taps(architecture.make(10), [*taps, *architecture.before_activation], torch.randn(2, 3, 32, 32))

        for after, before in zip(read[: len(taps)], read[len(taps) :], strict=True):
            torch.testing.assert_close(after, before.relu(), rtol=0, atol=0)

    def test_a_wide_residual_network_is_read_after_the_norm_that_precedes_the_next_activation(self, networks):
        architecture = networks.ARCHITECTURES["wrn_40_2"]
        network = architecture.make(10)
        taps = [networks.Tap(path) for path in architecture.stages]

        read = read_taps(network, [*taps, *architecture.before_activation], torch.randn(2, 3, 32, 32))

        for tap, after, before in zip(architecture.before_activation, read[:3], read[3:], strict=True):
            torch.testing.assert_close(network.get_submodule(tap.path)(after), before)

    def test_only_students_of_mobile_families_train_with_the_smaller_step(self, networks):
        small = {name for name, entry in networks.ARCHITECTURES.items() if entry.learning_rate == 0.01}
        assert small == {"MobileNetV2", "ShuffleV1", "ShuffleV2"}
        assert {entry.learning_rate for entry in networks.ARCHITECTURES.values()} == {0.01, 0.05}


class TestMethods:
    def test_every_pair_has_its_published_beta_and_levels_that_fit(self, methods):
        assert {name: pair.beta for name, pair in methods.PAIRS.items()} == BETAS
        for pair in methods.PAIRS.values():
            student, teacher = pair.networks
            assert len(student.stages) == len(teacher.stages) == len(teacher.before_activation)

    def test_weights_are_the_published_ones(self, methods):
        chosen = methods.methods(methods.PAIRS["resnet32x4-resnet8x4"], torch.arange(100))
        plain = {name: way.objectives[0].weight for name, way in chosen.items() if way.objectives}
        scheduled = {name: plain.pop(name) for name in ("ReviewKD", "DKD")}

        assert list(chosen) == METHODS
        weights = [0.9, 100.0, 1000.0, 3000.0, 1.0, 1.0, 30000.0, 0.8, 9.0, 2.0, 1.0, 0.9]
        assert list(plain.values()) == weights
        assert {name: weight.end for name, weight in scheduled.items()} == {"ReviewKD": 5.0, "DKD": 1.0}
        assert {name for name, way in chosen.items() if way.task_weight == 0.1} == {"KD", "LSKD", "CTKD"}

    def test_the_contrastive_method_has_its_published_number_of_negatives_on_the_real_labels(self, methods):
        labels = torch.arange(50_000) % 100
        crd = methods.methods(methods.PAIRS["resnet32x4-resnet8x4"], labels)["CRD"].objectives[0]
        assert crd.negatives == 16384

    @pytest.mark.parametrize("weight", [0.6, 1.0, 8.0])
    def test_warm_up_is_a_twentieth_more_with_every_epoch_from_the_first(self, methods, weight):
        ramp = methods.warm_up(weight)
        for epoch in range(1, 241):
            assert ramp(Progress(epoch=epoch - 1)) == pytest.approx(weight * min(epoch / 20, 1), rel=1e-12)

    def test_published_accuracies_belong_to_their_pairs(self, methods):
        assert methods.PUBLISHED["resnet32x4-resnet8x4"]["DKD"] == 76.32
        assert methods.PUBLISHED["wrn_40_2-ShuffleV1"]["KD"] == 74.83
        assert methods.PUBLISHED["ResNet50-MobileNetV2"]["AT"] == 58.58
        assert "LSKD" not in methods.PUBLISHED["resnet32x4-ShuffleV1"]


class TestProtocol:
    def test_the_learning_rate_falls_after_epochs_150_180_and_210(self, script, networks):
        module = script.CifarClassifier(networks.ARCHITECTURES["resnet20"].make(100), script.Protocol(), 0.05)
        found = module.configure_optimizers()
        rates = []
        for _ in range(240):
            rates.append(found["optimizer"].param_groups[0]["lr"])
            found["optimizer"].step()
            found["lr_scheduler"].step()

        expected = [0.05] * 150 + [0.005] * 30 + [0.0005] * 30 + [0.00005] * 30
        assert rates == pytest.approx(expected, rel=1e-9)

    def test_every_parameter_decays_and_momentum_is_not_nesterovs(self, script, networks):
        network = networks.ARCHITECTURES["vgg8"].make(100)
        group = (
            script.CifarClassifier(network, script.Protocol(), 0.05).configure_optimizers()["optimizer"].param_groups
        )
        assert len(group) == 1
        assert len(group[0]["params"]) == len(list(network.parameters()))
        assert (group[0]["momentum"], group[0]["weight_decay"], group[0]["nesterov"]) == (0.9, 5e-4, False)

    @pytest.mark.parametrize("epochs", [1, 3, 10])
    def test_a_short_training_starts_with_the_whole_learning_rate(self, script, epochs):
        assert min(script.Protocol(epochs=epochs).milestones) >= 1

    def test_a_missing_teacher_is_trained_only_when_asked_for(self, script, data, tmp_path):
        images = data.generated_images(train=4, test=2, classes=2)
        bench = script.Bench(images=images, protocol=script.Protocol(), device=torch.device("cpu"), compiled=False)
        with pytest.raises(FileNotFoundError, match=r"vgg8\.pt.*--train-teacher"):
            script.find_teacher(bench, "vgg8", tmp_path, train=False)


class TestData:
    def test_an_epoch_of_the_real_size_has_782_steps(self, data):
        split = data.Split(torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8), torch.zeros(50_000, dtype=torch.long))
        assert len(data.Batches(split, size=64)) == 782

    def test_test_images_are_standardised_in_their_order(self, data):
        split = data.generated_images(train=2, test=5, classes=2).test
        batches = list(data.Batches(split, size=2))

        assert [len(images) for images, _, _ in batches] == [2, 2, 1]
        pixels = split.images.double().numpy() / 255
        means, deviations = (np.array(values)[:, None, None] for values in (data.MEAN, data.DEVIATION))
        expected = (pixels - means) / deviations
        np.testing.assert_allclose(torch.cat([images for images, _, _ in batches]), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(torch.cat([labels for _, labels, _ in batches]), split.labels)

    def test_every_training_image_is_one_of_its_162_crops(self, data):
        split = data.generated_images(train=20, test=1, classes=2).train
        seen = []
        for _ in range(3):
            for images, labels, rows in data.Batches(split, size=7, seed=len(seen)):
                for image, label, row in zip(images, labels, rows, strict=True):
                    assert label == split.labels[row]
                    seen.append(crop_of(data, split.images[row], image))
        assert all(crop is not None for crop in seen)
        assert len({crop[:2] for crop in seen}) > 20
        assert {crop[2] for crop in seen} == {False, True}

    def test_an_epoch_has_every_image_once_and_the_next_another_order(self, data):
        batches = data.Batches(data.generated_images(train=30, test=1, classes=2).train, size=8, seed=0)
        first, second = (torch.cat([rows for _, _, rows in batches]).tolist() for _ in range(2))
        assert sorted(first) == sorted(second) == list(range(30))
        assert first != second

    def test_the_seed_decides_order_crops_and_mirroring(self, data):
        split = data.generated_images(train=12, test=1, classes=2).train
        same, again, other = (next(iter(data.Batches(split, size=12, seed=seed)))[0] for seed in (3, 3, 4))
        assert torch.equal(same, again)
        assert not torch.equal(same, other)

    def test_reads_a_folder_of_arrays(self, data, arrays):
        images = data.read_cifar100(arrays)
        assert images.train.images.shape == (40, 3, 32, 32)
        assert images.train.images.dtype == torch.uint8
        stored = np.load(arrays / "test_images.npy")
        assert torch.equal(images.test.images[3, 1], torch.from_numpy(stored[3, :, :, 1]))
        assert images.test.labels.tolist() == list(range(10))

    @pytest.mark.parametrize("wrong", [np.zeros((40, 3, 32, 32), np.uint8), np.zeros((40, 32, 32, 3), np.float32)])
    def test_arrays_of_another_form_are_refused(self, data, arrays, wrong):
        np.save(arrays / "train_images.npy", wrong)
        with pytest.raises(ValueError, match=r"uint8 of shape \(40, 32, 32, 3\).*got"):
            data.read_cifar100(arrays)

    def test_a_folder_without_images_names_the_option_to_download_them(self, data, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"train_images\.npy.*not found or corrupted.*--download"):
            data.read_cifar100(tmp_path)


def crop_of(data, original, image):
    """Place and mirroring of the crop that ``image`` is, or ``None``."""
    means, deviations = (torch.tensor(values).view(3, 1, 1) for values in (data.MEAN, data.DEVIATION))
    pixels = (image * deviations + means) * 255
    padded = np.pad(original.numpy(), ((0, 0), (4, 4), (4, 4)))
    for down, right, mirrored in product(range(9), range(9), (False, True)):
        crop = padded[:, down : down + 32, right : right + 32]
        if np.allclose(crop[:, :, ::-1] if mirrored else crop, pixels, atol=0.01):
            return down, right, mirrored
    return None


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_across_families(script, methods, data, method):
    images = data.generated_images(train=18, test=4, classes=3)
    bench = script.Bench(
        images=images, protocol=script.Protocol(epochs=2, batch=6), device=torch.device("cpu"), compiled=False
    )
    pair = methods.PAIRS["wrn_40_2-ShuffleV1"]
    run = script.train_student(bench, pair, method, bench.network(pair.teacher), seed=0)
    assert len(run["accuracies"]) == 2


@pytest.mark.slow
def test_the_script_trains_a_teacher_once_and_reports_last_and_best_epoch_of_each_seed(arrays, tmp_path):
    teachers, output = tmp_path / "teachers", tmp_path / "results" / "rows.json"
    common = ("--data", arrays, "--teachers", teachers, "--epochs", "2", "--pair", "vgg13-vgg8", "--json")

    first = run(*common, "--train-teacher", "--methods", "alone", "KD", "--seeds", "0", "1", "--output", output)
    second = run(*common, "--on-device", "--methods", "alone", "--seeds", "0", "--output", output)

    assert (teachers / "vgg13.pt").exists()
    assert len(first["teacher"]["accuracies"]) == 2
    assert "accuracies" not in second["teacher"]
    assert first["teacher"]["accuracy"] == second["teacher"]["accuracy"] == first["teacher"]["accuracies"][-1]
    assert second["runs"][0]["accuracies"] == first["runs"][0]["accuracies"]
    assert json.loads(output.read_text()) == second
    assert first["protocol"]["milestones"] == [2, 2, 2]
    for row, method in zip(first["rows"], ("alone", "KD"), strict=True):
        assert row["method"] == method
        assert row["seeds"] == [0, 1]
        assert all(best >= last for best, last in zip(row["accuracy_best"], row["accuracy_last"], strict=True))
        assert row["published_best"] is None


def run(*arguments):
    """Last line that the script prints, read as JSON."""
    finished = subprocess.run(
        [sys.executable, BENCHMARKS / "cifar100.py", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])
