"""Against the formulas of each function, in NumPy."""

import numpy as np
import pytest
from scipy.special import erf

X = np.linspace(-4, 4, 12, dtype=np.float32).reshape(1, 3, 2, 2)
CHANNELS = np.array([0.1, 0.5, 2.0], np.float32)
PER_CHANNEL = CHANNELS.reshape(1, 3, 1, 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis):
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def case(name, expected, **options):
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": X}, (expected,)


CASES = {
    "clamped_relu": case("clamped_relu", np.where(X >= 0, X, 0.2 * X).clip(max=1.5), alpha=0.2, beta=1.5),
    "elu": case("elu", np.where(X > 0, X, 0.7 * (np.exp(X) - 1)), alpha=0.7),
    "gelu": case("gelu", 0.5 * X * (1 + erf(X / np.sqrt(2)))),
    "gelu__tanh": case(
        "gelu", 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))), mode="TANH_APPROXIMATION"
    ),
    "gelu__sigmoid": case("gelu", X * sigmoid(1.702 * X), mode="SIGMOID_APPROXIMATION"),
    "leaky_relu": case("leaky_relu", np.where(X > 0, X, 0.3 * X), alpha=0.3),
    "linear_activation": case("linear_activation", 0.3 * X + 2, alpha=0.3, beta=2.0),
    "prelu": case("prelu", np.where(X > 0, X, PER_CHANNEL * X), alpha=CHANNELS),
    "relu": case("relu", np.maximum(X, 0)),
    "relu6": case("relu6", X.clip(0, 6)),
    "scaled_tanh": case("scaled_tanh", 1.7 * np.tanh(0.6 * X), alpha=1.7, beta=0.6),
    "sigmoid": case("sigmoid", sigmoid(X)),
    "sigmoid_hard": case("sigmoid_hard", (0.2 * X + 0.5).clip(0, 1), alpha=0.2, beta=0.5),
    "silu": case("silu", X * sigmoid(X)),
    "softmax": case("softmax", softmax(X, 1), axis=1),
    "softmax__last": case("softmax", softmax(X, -1)),
    "softplus": case("softplus", np.log1p(np.exp(X))),
    "softplus_parametric": case(
        "softplus_parametric", PER_CHANNEL * np.log1p(np.exp(PER_CHANNEL * X)), alpha=CHANNELS, beta=CHANNELS
    ),
    "softsign": case("softsign", X / (1 + np.abs(X))),
    "thresholded_relu": case("thresholded_relu", np.where(X >= -1, X, 0), alpha=-1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_its_formula_gives(check, name):
    check(name)
