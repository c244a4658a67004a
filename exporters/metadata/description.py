"""Metadata completed by what an export knows."""

from collections.abc import Mapping
from dataclasses import replace

from exporters.metadata.schema import InputDescription, ModelMetadata, with_inputs
from exporters.parity import Precision, Tolerance
from exporters.preprocessing import ImagePreprocessing, Preprocessing
from exporters.quantization.report import CalibrationRecord
from exporters.signature import Signature, TensorSpec


def describe(
    metadata: ModelMetadata,
    signature: Signature,
    *,
    precision: Precision,
    tolerance: Tolerance,
    calibration: CalibrationRecord | None,
    versions: Mapping[str, str],
) -> ModelMetadata:
    """The metadata of a file that is about to be written.

    Args:
        metadata: What the user said; its preprocessing counts as part of the graph if ``preprocessing_in_graph``.
        signature: Inputs of the file.
        precision: Precision of the file.
        tolerance: Largest errors that it is allowed.
        calibration: The inputs that set its ranges; ``None`` without.
        versions: Versions of the packages that write it.

    Returns:
        The metadata, without parity.

    Raises:
        ValueError: If an input is described that the network does not have.
    """
    baked = metadata.preprocessing if metadata.preprocessing_in_graph else None
    return replace(
        with_inputs(metadata, tuple(_input(spec, baked) for spec in signature.inputs)),
        precision=precision,
        tolerance=tolerance,
        calibration=calibration,
        versions=dict(versions),
    )


def _input(spec: TensorSpec, preprocessing: Preprocessing | None) -> InputDescription:
    found = InputDescription(name=spec.name, shape=spec.shape, dtype=spec.dtype, value_range=spec.value_range)
    if preprocessing is None:
        return found
    image = isinstance(preprocessing, ImagePreprocessing)
    return replace(
        found,
        layout=preprocessing.layout if isinstance(preprocessing, ImagePreprocessing) else "N, samples",
        unit="pixel value" if image else "amplitude as a fraction of full scale",
        value_range=preprocessing.value_range,
    )


def with_preprocessing_in_graph(metadata: ModelMetadata, preprocessing: Preprocessing) -> ModelMetadata:
    """The metadata of a file that does its part of ``preprocessing`` itself.

    Raises:
        ValueError: If the metadata describes another preprocessing.
    """
    if metadata.preprocessing not in (None, preprocessing):
        raise ValueError(
            f"`preprocessing` of the metadata must be that of the export, got {metadata.preprocessing} and "
            f"{preprocessing}; leave it out of the metadata."
        )
    return replace(metadata, preprocessing=preprocessing, preprocessing_in_graph=True)
