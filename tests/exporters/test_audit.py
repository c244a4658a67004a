import pytest

from exporters.audit import PrecisionAudit, check_audit
from exporters.errors import ConversionError


def test_a_share_is_of_operators_where_they_are_known_and_of_bytes_elsewhere():
    weights = {"int8": 300, "float32": 100}
    assert PrecisionAudit(weight_bytes=weights).active("int8") == 0.75
    assert PrecisionAudit(weight_bytes=weights, operators={"int8": 1, "float32": 1}).active("int8") == 0.5
    assert PrecisionAudit(weight_bytes={}).active("fp16") == 1.0


def test_masks_and_indices_are_not_weights():
    check_audit(PrecisionAudit(weight_bytes={"float32": 8, "int32": 96, "bool": 4}), "fp32", file="n.xml")
    with pytest.raises(ConversionError, match="int8"):
        check_audit(PrecisionAudit(weight_bytes={"float32": 8, "int32": 96}), "int8", file="n.xml")


@pytest.mark.parametrize(
    ("precision", "weights", "operators"),
    [
        ("fp16", {"float16": 8, "float32": 4}, {}),
        ("bf16", {"bfloat16": 8}, {"float32": 2}),
        ("int8", {"float32": 8}, {}),
        ("int8", {"int8": 8}, {"float32": 2}),
        ("fp32", {"float16": 8}, {}),
    ],
)
def test_a_precision_that_is_not_active_is_refused(precision, weights, operators):
    audit = PrecisionAudit(weight_bytes=weights, operators=operators, left_in_float=("head",))
    with pytest.raises(ConversionError, match=rf"n.onnx must be in {precision}, but .*: head"):
        check_audit(audit, precision, file="n.onnx")


def test_an_int8_file_may_keep_layers_in_float():
    check_audit(PrecisionAudit(weight_bytes={"int8": 8, "float32": 8}), "int8", file="n.onnx")


def test_json_keeps_an_audit():
    audit = PrecisionAudit(weight_bytes={"int8": 1}, operators={"int8": 2}, left_in_float=("a", "b"))
    content = {"weight_bytes": {"int8": 1}, "operators": {"int8": 2}, "left_in_float": ["a", "b"]}
    assert PrecisionAudit.from_content(content) == audit
