import pytest

from exporters.errors import ConversionError
from exporters.readback import FoundTensor, check_signature
from exporters.signature import DimensionRange, Signature, TensorSpec

DECLARED = Signature(
    inputs=(TensorSpec("x", ("batch", 3), "float32"),),
    outputs=(TensorSpec("y", ("batch", 2), "float32"),),
    dimensions={"batch": DimensionRange(2, 8)},
)
X = FoundTensor("x", "float32", (DimensionRange(1, 8), 3))
Y = FoundTensor("y", "float32", (DimensionRange(0, 2**63 - 1), 2))


def test_accepts_a_wider_range_than_declared():
    check_signature(DECLARED, [X], [Y])


@pytest.mark.parametrize("ends", [(3, 8), (2, 7)])
def test_refuses_a_narrower_range(ends):
    with pytest.raises(ConversionError, match=rf"input `x` .* got .*minimum={ends[0]}, maximum={ends[1]}"):
        check_signature(DECLARED, [FoundTensor("x", "float32", (DimensionRange(*ends), 3))], [Y])


@pytest.mark.parametrize(
    "shape",
    [
        (8, 3),  # a declared range that became one size
        (DimensionRange(1, 8), DimensionRange(1, 9)),  # a size that was forgotten
        (DimensionRange(1, 8), 4),
        (DimensionRange(1, 8),),
    ],
)
def test_refuses_another_input_shape(shape):
    with pytest.raises(ConversionError, match=r"input `x` of the file must be float32 of shape"):
        check_signature(DECLARED, [FoundTensor("x", "float32", shape)], [Y])


def test_refuses_another_dtype():
    with pytest.raises(ConversionError, match=r"must be float32 .* got float16"):
        check_signature(DECLARED, [FoundTensor("x", "float16", X.shape)], [Y])


def test_refuses_another_name():
    with pytest.raises(ConversionError, match=r"outputs of the file must be named \['y'\], got \['linear:0'\]"):
        check_signature(DECLARED, [X], [FoundTensor("linear:0", "float32", Y.shape)])


def test_an_output_may_be_dynamic_where_the_declaration_is_static_but_not_the_reverse():
    free = DimensionRange(0, 100)
    check_signature(DECLARED, [X], [FoundTensor("y", "float32", (free, free))])
    with pytest.raises(ConversionError, match=r"output `y`"):
        check_signature(DECLARED, [X], [FoundTensor("y", "float32", (4, 2))])
