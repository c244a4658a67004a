import shlex

import pytest

from exporters.signature import DimensionRange, Signature, TensorSpec
from exporters.tensorrt.options import BuildOptions
from exporters.tensorrt.specification import profiles_of, trtexec

AUDIO = Signature(
    inputs=(TensorSpec("wave", ("batch", "samples"), "float32"), TensorSpec("gain", (1,), "float32")),
    outputs=(),
    dimensions={"batch": DimensionRange(1, 8, optimum=2), "samples": DimensionRange(800, 16000, multiple=320)},
)


def flags(options, *, version="11", signature=AUDIO):
    program, *words = shlex.split(trtexec(profiles_of(signature), options, version=version))
    assert program == "trtexec"
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def test_profiles_hold_the_sizes_that_are_really_accepted():
    # Multiples of 320 from 800 to 16000 start at 960; the nearest to the middle, 8400, is 8320.
    assert profiles_of(AUDIO) == {
        "wave": {"min": [1, 960], "opt": [2, 8320], "max": [8, 16000]},
        "gain": {"min": [1], "opt": [1], "max": [1]},
    }


def test_the_command_has_the_same_shapes():
    found = flags(BuildOptions())
    assert found["minShapes"] == "wave:1x960,gain:1"
    assert found["optShapes"] == "wave:2x8320,gain:1"
    assert found["maxShapes"] == "wave:8x16000,gain:1"
    assert (found["onnx"], found["saveEngine"]) == ("model.onnx", "model.engine")
    assert "skipInference" in found


def test_strong_typing_is_asked_for_where_it_has_to_be():
    assert "stronglyTyped" in flags(BuildOptions(), version="10")
    assert "stronglyTyped" not in flags(BuildOptions(), version="11")


def test_no_flag_for_precision_is_ever_given():
    for version in ("10", "11"):
        assert not {"fp16", "int8", "bf16", "best", "calib"} & flags(BuildOptions(), version=version).keys()


@pytest.mark.parametrize(
    ("options", "flag", "value"),
    [
        ({}, "noTF32", ""),
        ({"workspace_bytes": 2**20}, "memPoolSize", "workspace:1048576B"),
        ({"optimization_level": 5}, "builderOptimizationLevel", "5"),
        ({"version_compatible": True}, "versionCompatible", ""),
        ({"hardware": "ampere_plus"}, "hardwareCompatibilityLevel", "ampere+"),
        ({"hardware": "same_compute_capability"}, "hardwareCompatibilityLevel", "sameComputeCapability"),
        ({"weights": "refittable"}, "refit", ""),
        ({"weights": "stripped"}, "stripWeights", ""),
        ({"sparse_weights": True}, "sparsity", "enable"),
        ({"dla_core": 1}, "useDLACore", "1"),
        ({"dla_core": 1}, "allowGPUFallback", ""),
        ({"timing_cache": "/caches/a b"}, "timingCacheFile", "/caches/a b"),
    ],
)
def test_every_option_has_its_flag(options, flag, value):
    assert flags(BuildOptions(**options))[flag] == value


def test_flags_that_were_not_asked_for_are_not_there():
    found = flags(BuildOptions(tf32=True, dla_core=0, gpu_fallback=False))
    absent = {"noTF32", "allowGPUFallback", "refit", "stripWeights", "sparsity", "versionCompatible", "memPoolSize"}
    assert not absent & found.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hardware": "all"}, r"`hardware` must be one of .*got 'all'"),
        ({"weights": "none"}, r"`weights` must be one of .*got 'none'"),
        ({"optimization_level": 6}, r"`optimization_level` must be one of .*got 6"),
        ({"workspace_bytes": 0}, r"`workspace_bytes` must be None or above 0, got 0"),
        ({"dla_core": -1}, r"`dla_core` must be None or a whole number of at least 0, got -1"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BuildOptions(**options)
