"""Against NumPy and SciPy."""

import numpy as np
import pytest
from scipy.special import erf

X = np.array([[-1.5, -0.5, 0.0], [0.25, 0.5, 2.5]], np.float32)
Y = np.array([[2.0, -0.5, 1.0], [-0.75, 0.5, 2.0]], np.float32)
UNIT = np.array([-0.9, -0.3, 0.0, 0.4, 0.8], np.float32)
POSITIVE = np.array([0.25, 1.0, 2.0, 9.0], np.float32)
M, N = np.array([-7, -1, 0, 5, 8], np.int32), np.array([2, -3, 4, 3, -8], np.int32)


def unary(name, x, expected, **options):
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": x}, (expected,)


def binary(name, x, y, expected):
    return (lambda mb, x, y: getattr(mb, name)(x=x, y=y)), {"x": x, "y": y}, (expected,)


CASES = {
    **{
        name: unary(name, x, function(x))
        for name, x, function in (
            ("abs", X, np.abs),
            ("acos", UNIT, np.arccos),
            ("asin", UNIT, np.arcsin),
            ("atan", X, np.arctan),
            ("atanh", UNIT, np.arctanh),
            ("ceil", X, np.ceil),
            ("cos", X, np.cos),
            ("cosh", X, np.cosh),
            ("erf", X, erf),
            ("exp", X, np.exp),
            ("exp2", X, np.exp2),
            ("floor", X, np.floor),
            ("identity", X, np.asarray),
            ("round", X, np.round),  # halves to the even neighbour
            ("sign", X, np.sign),
            ("sin", X, np.sin),
            ("sinh", X, np.sinh),
            ("sqrt", POSITIVE, np.sqrt),
            ("square", X, np.square),
            ("tan", X, np.tan),
            ("tanh", X, np.tanh),
        )
    },
    **{
        name: binary(name, X, Y, function(X, Y))
        for name, function in (
            ("add", np.add),
            ("equal", np.equal),
            ("floor_div", np.floor_divide),
            ("greater", np.greater),
            ("greater_equal", np.greater_equal),
            ("less", np.less),
            ("less_equal", np.less_equal),
            ("maximum", np.maximum),
            ("minimum", np.minimum),
            ("mod", np.mod),
            ("mul", np.multiply),
            ("not_equal", np.not_equal),
            ("real_div", np.true_divide),
            ("sub", np.subtract),
        )
    },
    "pow": binary("pow", POSITIVE, POSITIVE, POSITIVE**POSITIVE),
    "floor_div__int": binary("floor_div", M, N, M // N),
    "mod__int": binary("mod", M, N, M % N),
    "mul__broadcast": binary("mul", X, Y[:, :1], X * Y[:, :1]),
    "clip": unary("clip", X, X.clip(-0.75, 1.0), alpha=-0.75, beta=1.0),
    "threshold": unary("threshold", X, np.maximum(X, 0.3), alpha=0.3),
    "inverse": unary("inverse", POSITIVE, 1 / (POSITIVE + 0.5), epsilon=0.5),
    "log": unary("log", POSITIVE, np.log(POSITIVE + 0.5), epsilon=0.5),
    "rsqrt": unary("rsqrt", POSITIVE, (POSITIVE + 0.5) ** -0.5, epsilon=0.5),
    "cast": unary("cast", X, [[-1, 0, 0], [0, 0, 2]], dtype="int32"),  # towards zero
    "cast__bool": unary("cast", X, X != 0, dtype="bool"),
    "select": (
        lambda mb, x, y: mb.select(cond=mb.greater(x=x, y=0.0), a=x, b=y),
        {"x": X, "y": Y},
        (np.where(X > 0, X, Y),),
    ),
    "logical_not": (lambda mb, x: mb.logical_not(x=mb.greater(x=x, y=0.0)), {"x": X}, (X <= 0,)),
    **{
        name: (
            lambda mb, x, y, name=name: getattr(mb, name)(x=mb.greater(x=x, y=0.0), y=mb.greater(x=y, y=0.0)),
            {"x": X, "y": Y},
            (function(X > 0, Y > 0),),
        )
        for name, function in (
            ("logical_and", np.logical_and),
            ("logical_or", np.logical_or),
            ("logical_xor", np.logical_xor),
        )
    },
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_numpy_gives(check, name):
    check(name)
