"""Programs of single operators, saved as packages and evaluated as they lie on disk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from exporters.mil.evaluator import Evaluator
from exporters.mil.package import read_package
from exporters.mil.toolkit import coremltools
from exporters.quiet import errors_only, no_progress_bars


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator.

    Args:
        build: Makes its outputs: called with the Builder and one variable per input.
        inputs: Arrays that are given when the program runs.
        expected: The outputs, from NumPy or PyTorch.
    """

    build: Callable[..., Any]
    inputs: Mapping[str, np.ndarray]
    expected: tuple[np.ndarray, ...]


def evaluate(cases: Mapping[str, Case], folder, *, target="iOS18") -> dict[str, list[np.ndarray]]:
    """Save one program of all cases and evaluate it; outputs by case."""
    from coremltools.converters.mil.mil import Builder, Function, Program, types

    kinds = {"f": types.fp32, "i": types.int32}
    placeholders = {
        f"{name}_{key}": Builder.placeholder(array.shape, dtype=kinds[array.dtype.kind])
        for name, case in cases.items()
        for key, array in case.inputs.items()
    }
    opset = getattr(coremltools.target, target)
    with errors_only("coremltools"), no_progress_bars():
        program = Program()
        counts = {}
        with Function(placeholders, opset_version=opset) as function:
            outputs = []
            for name, case in cases.items():
                found = case.build(Builder, **{key: function.inputs[f"{name}_{key}"] for key in case.inputs})
                found = list(found) if isinstance(found, list | tuple) else [found]
                counts[name] = len(found)
                outputs += [Builder.identity(x=var, name=f"{name}_{index}") for index, var in enumerate(found)]
            function.set_outputs(outputs)
        program.add_function("main", function)
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=opset,
            skip_model_load=True,
        )
        model.save(str(folder / "cases.mlpackage"))
    arrays = {f"{name}_{key}": array for name, case in cases.items() for key, array in case.inputs.items()}
    evaluator = Evaluator(read_package(folder / "cases.mlpackage").main)
    found = evaluator.run({name: torch.from_numpy(array) for name, array in arrays.items()})
    return {name: [found[f"{name}_{index}"].numpy() for index in range(count)] for name, count in counts.items()}


@pytest.fixture(scope="session")
def check_cases():
    """Compare one case of a table with what is expected; the program of all cases is evaluated once."""

    def check(found, case):
        assert len(found) == len(case.expected)
        for actual, expected in zip(found, case.expected, strict=True):
            assert actual.shape == np.shape(expected)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

    return check
