import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from exporters.errors import InputError
from exporters.network import prepare
from exporters.pipeline import Order, build_request
from exporters.quantization.calibration import Calibration
from exporters.signature import DimensionRange, Signature, TensorSpec

X = TensorSpec("x", ("batch", 2), "float32")
SIGNATURE = Signature(inputs=(X,), outputs=(), dimensions={"batch": DimensionRange(1, 8)})
IMAGES = torch.arange(40.0).reshape(20, 2)
LABELS = torch.arange(20)


class Module:
    """What a LightningDataModule is to an exporter."""

    ready = False

    def setup(self, stage):
        self.ready = stage == "fit"

    def train_dataloader(self):
        assert self.ready
        return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)


SOURCES = {
    "a loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8),
    "a data set": lambda: TensorDataset(IMAGES, LABELS),
    "a DataModule": Module,
    "a tensor": lambda: IMAGES,
    "an array": IMAGES.numpy,
    "a mapping": lambda: {"x": IMAGES, "label": LABELS},
    "a list of mappings": lambda: [{"x": image} for image in IMAGES],
    "a generator": lambda: (image for image in IMAGES.numpy()),
}


@pytest.mark.parametrize("source", SOURCES)
def test_samples_come_from_whatever_holds_them(source):
    calibration = Calibration.from_data(SOURCES[source](), SIGNATURE)
    every = [batch["x"] for batch in (*calibration.batches, *calibration.held_out)]
    assert {array.shape for array in every} == {(1, 2)}
    assert (len(calibration.batches), len(calibration.held_out)) == (16, 4)  # a fifth is held out
    np.testing.assert_array_equal(np.sort(np.concatenate(every), axis=0), IMAGES.numpy())
    assert calibration.record == Calibration.from_data(IMAGES, SIGNATURE).record


def test_a_static_batch_is_filled_and_the_rest_left_out():
    signature = Signature(inputs=(TensorSpec("x", (3, 2), "float32"),), outputs=())
    calibration = Calibration.from_data(IMAGES, signature)
    assert {batch["x"].shape for batch in calibration.batches} == {(3, 2)}
    assert calibration.record.count == 18


def test_the_seed_decides_which_samples_and_the_hash_tells():
    one, same, other = (Calibration.from_data(IMAGES, SIGNATURE, samples=5, seed=seed).record for seed in (1, 1, 2))
    assert one == same
    assert one.count == 5
    assert one.sha256 != other.sha256


def test_several_inputs_are_taken_in_their_order():
    signature = Signature(inputs=(TensorSpec("x", (1, 2), "float32"), TensorSpec("mask", (1,), "bool")), outputs=())
    mask = LABELS > 3
    calibration = Calibration.from_data([(IMAGES, mask, LABELS)], signature)
    for batch in calibration.batches:
        assert batch["mask"][0] == (batch["x"][0, 0] > 7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(20, 3), r"must have shape \('batch', 2\), got \(1, 3\)"),
        (torch.zeros(20, 2, 2), r"samples of shape .*'x': \('batch', 2\).*, got .*\(20, 2, 2\)"),
        (torch.zeros(20, 2, dtype=torch.int64), "must hold float32 for input `x`, got int64"),
        (torch.full((20, 2), torch.nan), "must hold finite values for input `x`"),
        ({"image": IMAGES}, r"must hold the inputs \['x'\], got \['image'\]"),
        (torch.zeros(1, 2), "must hold at least 2 samples, got 1"),
        ([], "must hold at least 2 samples, got 0"),
        (["a.png", "b.png"], r"must hold float32 for input `x`, got <U1"),
        (3, "must be a loader, .*, got int"),
    ],
)
def test_data_that_does_not_fit_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        Calibration.from_data(data, SIGNATURE)


@pytest.mark.parametrize(
    ("precision", "given", "message"),
    [
        ("int8", False, "must be given for precision='int8', got None"),
        ("fp16", True, "left out .*, got it with 'fp16'"),
    ],
)
def test_calibration_goes_with_int8_and_with_nothing_else(small_net, image, precision, given, message):
    order = Order(precision=precision, calibration=image if given else None)
    with pytest.raises(InputError, match=message):
        build_request(order, prepare(small_net, image))
