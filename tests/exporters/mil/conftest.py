"""Programs of single operators, saved as packages and evaluated as they lie on disk.

A case is a function that makes the outputs of one operator from the Builder and one variable per input, the arrays that
the program is run on, and the expected outputs. Its name is that of the operator, with ``__`` and a word for a variant.
"""

import numpy as np
import pytest
import torch

from exporters.mil.evaluator import Evaluator
from exporters.mil.package import read_package
from exporters.mil.toolkit import coremltools, types
from exporters.quiet import errors_only, no_progress_bars


def _saved(cases, path, target):
    """Save one program with the outputs of every case, named by case and index."""
    from coremltools.converters.mil.mil import Builder, Function, Placeholder, Program

    placeholders = {
        f"{name}_{key}": Placeholder(array.shape, dtype=types.fp32 if array.dtype.kind == "f" else types.int32)
        for name, (_, inputs, _) in cases.items()
        for key, array in inputs.items()
    }
    program = Program()
    with Function(placeholders, opset_version=target) as function:
        outputs = []
        for name, (build, inputs, _) in cases.items():
            made = build(Builder, **{key: function.inputs[f"{name}_{key}"] for key in inputs})
            for index, variable in enumerate(made if isinstance(made, list | tuple) else [made]):
                is_flag = variable.dtype == types.bool
                plain = Builder.cast(x=variable, dtype="int32") if is_flag else variable
                outputs.append(Builder.identity(x=plain, name=f"{name}_{index}"))
        function.set_outputs(outputs)
    program.add_function("main", function)
    model = coremltools.convert(
        program,
        convert_to="mlprogram",
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=target,
        skip_model_load=True,
    )
    model.save(str(path))


def _evaluate(cases, folder, target="iOS18"):
    with errors_only("coremltools"), no_progress_bars():
        _saved(cases, folder / "cases.mlpackage", getattr(coremltools.target, target))
    evaluator = Evaluator(read_package(folder / "cases.mlpackage").main)
    outputs = evaluator.run(
        {
            f"{name}_{key}": torch.from_numpy(array)
            for name, (_, inputs, _) in cases.items()
            for key, array in inputs.items()
        }
    )
    return {
        name: [outputs[f"{name}_{index}"].numpy() for index in range(len(expected))]
        for name, (_, _, expected) in cases.items()
    }


@pytest.fixture(scope="session")
def evaluate():
    """Outputs of the cases of a table, by name."""
    return _evaluate


@pytest.fixture(scope="module")
def evaluated(request, tmp_path_factory):
    """Outputs of the module's table ``CASES``, whose program is saved and run once."""
    return _evaluate(request.module.CASES, tmp_path_factory.mktemp("cases"))


@pytest.fixture
def check(request, evaluated):
    """Compare one case of the module's table with what is expected."""

    def check_case(name):
        for actual, expected in zip(evaluated[name], request.module.CASES[name][2], strict=True):
            assert actual.shape == np.shape(expected)
            np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)

    return check_case
