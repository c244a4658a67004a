"""Records: bytes as published, and the same values by NumPy and by PyTorch."""

import numpy as np
import pytest
import torch

from lightning_kd.teachers.cache.record import RecordFormat, confidence, fill, most_likely


def test_a_record_has_the_bytes_of_the_published_layout():
    form = RecordFormat(replay=(("seed", "<u4", ()),), class_count=6, top_k=2)
    records = np.zeros(1, form.dtype)
    fill(records, "seed", [7])
    fill(records, "classes", [[3, 0]])
    fill(records, "probabilities", [[0.6, 0.2]])
    assert records.tobytes().hex() == "0700000003000000cd386632"
    assert records["probabilities"][0].tolist() == [0.60009765625, 0.199951171875]
    # The rest of C = 6 classes has (1 - 0.80004883) / 4.
    assert (1 - records["probabilities"][0].astype(float).sum()) / 4 == pytest.approx(0.04998779, abs=1e-8)


@pytest.mark.parametrize(
    ("options", "size_bytes"),
    [
        # TinyViT: 4 bytes of seed, and K classes and probabilities of 2 bytes each.
        ({"replay": (("seed", "<u4", ()),), "class_count": 21841, "top_k": 100}, 4 + 4 * 100),
        # FKD in half precision: 4 coordinates of 2 bytes, a flip, K = 5.
        ({"replay": (("crop", "<u2", (4,)), ("flip", "|u1", ())), "class_count": 1000, "top_k": 5}, 29),
        # Above 65536 classes an index needs 4 bytes.
        ({"class_count": 70_000, "top_k": 3, "precision": "float32"}, 3 * (4 + 4)),
        ({"class_count": 10, "logits_shape": (10,), "precision": "float32"}, 40),
        ({"features": {"layer": (4, 2, 2)}}, 32),
    ],
)
def test_the_size_is_the_sum_of_the_fields(options, size_bytes):
    assert RecordFormat(**options).size_bytes == size_bytes


def test_pytorch_reads_what_numpy_wrote_from_any_offset():
    form = RecordFormat(
        replay=(("crop", "<u2", (4,)), ("flip", "|u1", ())),
        class_count=70_000,
        top_k=3,
        features={"a.b": (2, 3)},
        precision="float32",
    )
    generator = np.random.default_rng(0)
    records = np.zeros(5, form.dtype)
    fill(records, "crop", generator.integers(2**16, size=(5, 4)))
    fill(records, "flip", [0, 1, 1, 0, 1])
    fill(records, "classes", generator.integers(2**32, size=(5, 3)))
    fill(records, "probabilities", generator.random((5, 3), dtype=np.float32))
    fill(records, "feature:a.b", torch.randn(5, 2, 3))
    rows = torch.from_numpy(records.view(np.uint8).reshape(5, -1).copy())
    for name in form.dtype.names:
        found = form.read(rows, name)
        assert found.tolist() == records[name].tolist(), name
    assert form.read(rows, "classes").dtype == torch.int64


def test_json_gives_the_format_back():
    form = RecordFormat(replay=(("seed", "<u4", ()),), class_count=9, top_k=2, features={"x": (3,)})
    assert RecordFormat.from_json(form.to_json()) == form
    assert form.to_json()["size_bytes"] == 4 + 8 + 6


@pytest.mark.parametrize("top_k", [0, 7])
def test_top_k_must_be_a_number_of_classes(top_k):
    with pytest.raises(ValueError, match=f"between 1 and the 6 classes, got {top_k}"):
        RecordFormat(class_count=6, top_k=top_k)


def test_the_most_likely_classes_come_in_descending_order():
    probabilities, classes = most_likely(torch.tensor([[1.0, 3.0, 2.0]]).log(), 2)
    torch.testing.assert_close(probabilities, torch.tensor([[1 / 2, 1 / 3]]), rtol=1e-6, atol=0)
    assert classes.tolist() == [[1, 2]]


def test_confidence_is_the_largest_probability_of_either_form():
    sparse, full = RecordFormat(class_count=4, top_k=2), RecordFormat(class_count=2, logits_shape=(2,))
    records = np.zeros(1, sparse.dtype)
    records["probabilities"] = [[0.75, 0.25]]
    assert confidence(records[0]) == 0.75
    records = np.zeros(1, full.dtype)
    records["logits"] = [[0.0, 0.0]]
    assert confidence(records[0]) == 0.5
