import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.errors import ArtifactError, ConversionError
from exporters.mil.evaluator import Evaluator
from exporters.mil.operators import OPERATORS
from exporters.mil.package import read_package
from exporters.mil.toolkit import coremltools, types
from exporters.quiet import errors_only, no_progress_bars


def test_every_operator_of_the_table_has_a_case():
    tested = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        specification = importlib.util.spec_from_file_location(f"cases_of_{path.stem}", path)
        module = importlib.util.module_from_spec(specification)
        if path.name != Path(__file__).name:
            specification.loader.exec_module(module)
            tested |= {name.partition("__")[0] for name in (*module.CASES, *getattr(module, "OLD", ()))}
    assert tested == set(OPERATORS)


@pytest.fixture
def saved(tmp_path):
    """A function that saves a program of one vector and returns what evaluates it."""
    from coremltools.converters.mil.mil import Builder

    def save(build, *, size=3, half=False):
        dtype = types.fp16 if half else types.fp32

        @Builder.program(input_specs=[Builder.TensorSpec((size,), dtype=dtype)], opset_version=coremltools.target.iOS18)
        def program(x):
            return build(Builder, x)

        with errors_only("coremltools"), no_progress_bars():
            model = coremltools.convert(
                program,
                convert_to="mlprogram",
                pass_pipeline=coremltools.PassPipeline.EMPTY,
                compute_precision=coremltools.precision.FLOAT32,
                minimum_deployment_target=coremltools.target.iOS18,
                skip_model_load=True,
            )
            model.save(str(tmp_path / "n.mlpackage"))
        return Evaluator(read_package(tmp_path / "n.mlpackage").main)

    return save


def run(evaluator, *values):
    (output,) = evaluator.run({"x": torch.tensor(values)}).values()
    return output.tolist()


def test_every_result_is_rounded_to_float16(saved):
    evaluator = saved(lambda mb, x: mb.sub(x=mb.add(x=x, y=np.float16(2048)), y=np.float16(2048)), half=True)
    # Between 2048 and 4096 float16 has even numbers only; a half goes to the even multiple of two.
    assert run(evaluator, 1.0, 3.0, 4.0) == [0.0, 4.0, 4.0]
    assert evaluator.first_overflow is None


def test_the_first_operator_that_leaves_float16_is_named(saved):
    def build(mb, x):
        squared = mb.square(x=x, name="energy")
        return mb.square(x=mb.sqrt(x=squared, name="root"), name="again")

    evaluator = saved(build, half=True)
    assert run(evaluator, 1.0, 2.0, 300.0) == [1.0, 4.0, float("inf")]
    overflow = evaluator.first_overflow
    assert (overflow.operation, overflow.kind, overflow.dtype, overflow.reader) == ("energy", "square", "fp16", "root")


def test_infinity_that_comes_in_is_no_overflow(saved):
    evaluator = saved(lambda mb, x: mb.add(x=x, y=np.array([0, -np.inf, 0], np.float32)))
    assert run(evaluator, 1.0, 2.0, 3.0) == [1.0, -float("inf"), 3.0]
    assert evaluator.first_overflow is None


def test_an_unknown_operator_is_named(saved):
    with pytest.raises(ConversionError, match=r"one that can be evaluated, got `random_normal` \(noise\)"):
        saved(lambda mb, x: mb.add(x=x, y=mb.random_normal(shape=[3], mean=0.0, stddev=1.0, name="noise")))


@pytest.mark.parametrize(("values", "expected"), [((1.0, 2.0), [2.0, 4.0]), ((-1.0, -2.0), [1.0, 2.0])])
def test_a_condition_takes_one_branch(saved, values, expected):
    def build(mb, x):
        positive = mb.greater(x=mb.reduce_sum(x=x, axes=[0], keep_dims=False), y=0.0)
        return mb.cond(
            pred=positive, _true_fn=lambda: mb.mul(x=x, y=2.0), _false_fn=lambda: mb.mul(x=x, y=-1.0), name="branch"
        )

    assert run(saved(build, size=2), *values) == expected


def test_a_loop_runs_until_its_condition_fails(saved):
    def build(mb, x):
        start = mb.identity(x=x)
        return mb.while_loop(
            _cond=lambda value: mb.less(x=mb.reduce_max(x=value, axes=[0], keep_dims=False), y=20.0),
            _body=lambda value: (mb.mul(x=value, y=2.0),),
            loop_vars=(start,),
        )

    # 3 doubles to 6, 12 and 24.
    assert run(saved(build, size=2), 1.0, 3.0) == [8.0, 24.0]


def test_every_value_can_be_observed(saved):
    evaluator = saved(lambda mb, x: mb.square(x=mb.add(x=x, y=1.0, name="shifted"), name="squared"), size=2)
    values = {}
    evaluator.run({"x": torch.tensor([1.0, 2.0])}, lambda name, value: values.update({name: value.tolist()}))
    assert values == {"shifted": [2.0, 3.0], "squared": [4.0, 9.0]}


def test_a_folder_that_is_no_package_is_refused(tmp_path):
    path = tmp_path / "n.mlpackage"
    path.mkdir()
    with pytest.raises(ArtifactError, match=r"`path` must be a package that coremltools reads, got .*n\.mlpackage"):
        read_package(path)
