import json

import pytest

from exporters.errors import ArtifactError
from exporters.metadata import KEY, InputDescription, ModelMetadata, metadata_from
from exporters.metadata.description import describe, with_preprocessing_in_graph
from exporters.parity import TOLERANCES, OutputParity
from exporters.preprocessing import ImagePreprocessing, LogMelPreprocessing
from exporters.quantization.report import CalibrationRecord
from exporters.signature import DimensionRange, Signature, TensorSpec

FIGURES = OutputParity(
    name="output",
    max_abs=1e-6,
    max_abs_of_range=1e-7,
    relative_l2=1e-7,
    cosine=1.0,
    nonfinite=0,
    argmax_agreement=1.0,
)
FULL = ModelMetadata(
    name="student",
    task="image-classification",
    labels=("cat", "chien d'été"),
    inputs=(InputDescription(name="image", shape=("batch", 3, 8, 8), dtype="uint8", value_range=(0.0, 255.0)),),
    preprocessing=ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, resize=(9, 8), crop=(8, 8)),
    preprocessing_in_graph=True,
    teacher="convnext_tiny",
    recipe="dkd",
    checkpoint_sha256="0" * 64,
    licences={"weights": "Apache-2.0"},
    extra={"author": "me"},
    precision="int8",
    calibration=CalibrationRecord(count=10, seed=1, sha256="ab"),
    tolerance=TOLERANCES["int8"],
    parity=(FIGURES,),
    versions={"torch": "2.0"},
)


@pytest.mark.parametrize("metadata", [FULL, ModelMetadata(), ModelMetadata(preprocessing=LogMelPreprocessing())])
def test_reading_gives_back_what_was_written(metadata):
    assert ModelMetadata.from_text(metadata.to_text()) == metadata


def test_text_by_name_lies_beside_the_schema():
    texts = metadata_from({"author": "me"}).texts()
    assert texts["author"] == "me"
    assert json.loads(texts[KEY])["schema_version"] == 1


def test_the_preprocessing_says_what_is_left_to_the_caller():
    assert json.loads(FULL.to_text())["preprocessing"]["caller_steps"] == [
        "decode the image",
        "resize to 9 x 8 (height x width)",
        "crop 8 x 8 (height x width) at the centre",
        "pass NHWC of uint8 from 0 to 255, channels in the order RGB",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema and version must be 'lightning-kd/model-metadata' and 1, got .*2"),
        ({"schema": "other"}, "got .*other"),
        ({"surprise": 1}, "surprise"),
        ({"labels": [1]}, r"`labels\[0\]` must be text, got 1"),
        ({"checkpoint_sha256": "xyz"}, "`checkpoint_sha256` must be None or 64 hexadecimal digits, got 'xyz'"),
        ({"preprocessing": {"kind": "smell"}}, "must be one of 'image', 'logmel', got 'smell'"),
        ({"inputs": [{"name": "x"}]}, "value_range"),
        ({"tolerance": {}}, "at least one bound"),
        ({"precision": "int4"}, "`precision` must be None or one of .*, got 'int4'"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_on_reading(change, message):
    text = json.dumps(json.loads(FULL.to_text()) | change)
    with pytest.raises(ArtifactError, match=message):
        ModelMetadata.from_text(text)


@pytest.mark.parametrize("field", ["labels", "schema", "parity", "licences"])
def test_a_field_that_lacks_is_named(field):
    content = json.loads(FULL.to_text())
    del content[field]
    with pytest.raises(ArtifactError, match=field):
        ModelMetadata.from_text(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_what_is_no_metadata_is_refused(text):
    with pytest.raises(ArtifactError, match=r"text that exporters\.export wrote"):
        ModelMetadata.from_text(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": 1}, "`name` must be text, got 1"),
        ({"labels": ("cat", 2)}, r"`labels\[1\]` must be text, got 2"),
        ({"extra": {"size": 3}}, "`extra` must be text, got 3"),
        ({"extra": {KEY: "{}"}}, "`extra` must not have the name 'model_metadata'"),
        ({"teacher": 4}, "`teacher` must be text, got 4"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_on_writing(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelMetadata(**fields)


SIGNATURE = Signature(
    inputs=(TensorSpec("image", ("batch", 8, 8, 3), "uint8"), TensorSpec("mask", (1,), "bool")),
    outputs=(),
    dimensions={"batch": DimensionRange(1, 4)},
)


def _described(metadata):
    return describe(
        metadata, SIGNATURE, precision="fp32", tolerance=TOLERANCES["fp32"], calibration=None, versions={"torch": "2"}
    )


def test_an_export_adds_what_it_knows_and_keeps_what_was_said():
    said = ModelMetadata(inputs=(InputDescription(name="mask", unit="1 where the image is"),))
    described = _described(said)
    assert described.inputs == (
        InputDescription(name="image", shape=("batch", 8, 8, 3), dtype="uint8"),
        InputDescription(name="mask", shape=(1,), dtype="bool", unit="1 where the image is"),
    )
    assert (described.precision, described.tolerance, described.versions) == (
        "fp32",
        TOLERANCES["fp32"],
        {"torch": "2"},
    )


def test_an_input_that_the_network_lacks_is_named():
    with pytest.raises(ValueError, match=r"must be among \['image', 'mask'\], got \['tokens'\]"):
        _described(ModelMetadata(inputs=(InputDescription(name="tokens"),)))


def test_preprocessing_in_the_graph_describes_the_input():
    metadata = with_preprocessing_in_graph(ModelMetadata(), ImagePreprocessing())
    image = _described(metadata).inputs[0]
    assert (image.layout, image.unit, image.value_range) == ("NHWC", "pixel value", (0.0, 255.0))


def test_two_different_preprocessings_are_refused():
    with pytest.raises(ValueError, match=r"must be that of the export, got .*NCHW"):
        with_preprocessing_in_graph(
            ModelMetadata(preprocessing=ImagePreprocessing(layout="NCHW")), ImagePreprocessing()
        )
