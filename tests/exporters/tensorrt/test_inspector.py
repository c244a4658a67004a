"""Both dialects of the inspector's JSON, with the field names of NVIDIA's documentation and values of our own."""

import pytest

from exporters.tensorrt.inspector import audit_layers, check_precision
from exporters.tensorrt.options import BuildError

LINEAR = {"Float": "Row major linear FP32 format", "Half": "Row major linear FP16 format"}


def tensor_10(name, text):
    return {"Name": name, "Location": "Device", "Dimensions": [1, 4, 8, 8], "Format/Datatype": text}


def tensor_11(name, kind):
    formats = {"Int8": "Thirty-two wide channel vectorized row major Int8 format", **LINEAR}
    return {
        "Name": name,
        "Location": "Device",
        "Dimensions": [1, 4, 8, 8],
        "Format": f"{formats.get(kind, 'Row major linear format')} (kLINEAR)",
        "DataType": kind,
    }


def engine_10(*layers):
    return {"Layers": list(layers), "Bindings": ["image", "output"]}


def engine_11(*layers):
    shapes = {"MinShape": [1, 4, 8, 8], "OptShape": [1, 4, 8, 8], "MaxShape": [1, 4, 8, 8], "Format": "kLINEAR"}
    tensors = [
        {
            "Name": name,
            "IOMode": mode,
            "DataType": "Float",
            "Dimensions": [1, 4, 8, 8],
            "Location": "Device",
            "IsShapeInferenceIO": False,
            "ProfileInfo": [shapes],
        }
        for name, mode in (("image", "Input"), ("output", "Output"))
    ]
    return {"Layers": list(layers), "I/O Tensors": tensors}


def layer(name, kind, inputs, *, parameters=None, weights=None):
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": inputs,
        "Outputs": [],
        "TacticValue": "0x0",
        **({"ParameterType": parameters} if parameters else {}),
        **({"Weights": {"Type": weights[0], "Count": weights[1]}} if weights else {}),
    }


def test_reads_the_dialect_of_tensorrt_10():
    information = engine_10(
        layer("Reformatting CopyNode for Input Tensor 0 to conv", "Reformat", [tensor_10("image", LINEAR["Float"])]),
        layer(
            "conv + relu",
            "CaskConvolution",
            [tensor_10("a", "Channel major FP16 format where channel % 8 == 0")],
            parameters="Convolution",
            weights=("Half", 144),
        ),
        layer("head", "CaskGemmMatrixMultiply", [tensor_10("b", "Half")], parameters="MatrixMultiply"),
    )
    # 144 weights of two bytes; the reformatting layer computes nothing.
    assert audit_layers(information, "fp16") == {
        "weight_bytes": {"float16": 288},
        "operators": {"float16": 2},
        "left_in_float": [],
    }


def test_reads_the_dialect_of_tensorrt_11():
    information = engine_11(
        layer("quantise", "kgen", [tensor_11("image", "Float")]),
        layer("conv", "CaskConvolution", [tensor_11("a", "Int8")], weights=("Int8", 100)),
        layer("attention", "fusedMHA", [tensor_11("b", "Half")]),
    )
    audit = audit_layers(information, "int8")
    assert audit == {
        "weight_bytes": {"int8": 100},
        "operators": {"int8": 1, "float16": 1},
        "left_in_float": ["attention"],
    }
    check_precision(audit, "int8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Row major linear FP32 format", "float32"),
        ("Float", "float32"),
        ("FP32", "float32"),
        ("Row major linear FP16 format", "float16"),
        ("Half", "float16"),
        ("Row major linear BFloat16 format", "bfloat16"),
        ("BF16", "bfloat16"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("FP8", "float8"),
        ("Int64", "unknown"),
        ("N/A due to dynamic shapes", "unknown"),
    ],
)
def test_knows_the_names_of_types(text, expected):
    information = engine_10(layer("conv", "CaskConvolution", [tensor_10("x", text)]))
    assert list(audit_layers(information, "fp32")["operators"]) == [expected]


def test_falls_back_on_the_weights_where_shapes_hide_the_type():
    hidden = tensor_10("x", "N/A due to dynamic shapes")
    information = engine_10(layer("conv", "CaskConvolution", [hidden], weights=("Int8", 8)))
    assert audit_layers(information, "int8")["operators"] == {"int8": 1}


def test_conversions_are_no_convolutions():
    assert audit_layers(engine_10(layer("c", "ConvertLayer", [tensor_10("x", "Half")])), "fp16")["operators"] == {}


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp16", "Float"), ("int8", "Half"), ("bf16", "Half"), ("fp32", "Half")]
)
@pytest.mark.parametrize(("engine", "tensor"), [(engine_10, tensor_10), (engine_11, tensor_11)])
def test_another_precision_than_asked_for_is_an_error(engine, tensor, precision, kind):
    audit = audit_layers(engine(layer("conv", "CaskConvolution", [tensor("x", kind)])), precision)
    assert audit["left_in_float"] == ["conv"]
    found = {"Float": "float32", "Half": "float16"}[kind]
    with pytest.raises(BuildError, match=rf"must compute in {precision}, .*: 1 in {found}"):
        check_precision(audit, precision)


def test_one_layer_in_float32_spoils_fp16():
    layers = [layer(name, "gemm", [tensor_11("x", kind)]) for name, kind in (("a", "Half"), ("b", "Float"))]
    with pytest.raises(BuildError, match=r"1 in float16, 1 in float32"):
        check_precision(audit_layers(engine_11(*layers), "fp16"), "fp16")


def test_an_engine_without_computing_layers_has_no_precision():
    with pytest.raises(BuildError, match=r"must compute in fp32, .*: none"):
        check_precision(audit_layers(engine_11(), "fp32"), "fp32")


def test_names_alone_are_refused():
    with pytest.raises(BuildError, match=r"detailed profiling verbosity"):
        audit_layers({"Layers": ["conv + relu"], "Bindings": []}, "fp16")
