"""Against the formulas, in NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(2, 3, (2, 4, 3, 5)).astype(np.float32)
MEAN, GAMMA, BETA = GENERATOR.normal(size=(3, 4)).astype(np.float32)
VARIANCE = GENERATOR.uniform(0.5, 2, 4).astype(np.float32)
LAST = {"gamma": GENERATOR.normal(size=5).astype(np.float32), "beta": GENERATOR.normal(size=5).astype(np.float32)}


def along_channels(values):
    return values.reshape(1, 4, 1, 1)


def standardised(axes):
    centred = X - X.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 0.1)


def case(name, expected, **options):
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": X}, (expected,)


CASES = {
    "batch_norm": case(
        "batch_norm",
        (X - along_channels(MEAN)) / np.sqrt(along_channels(VARIANCE) + 0.1) * along_channels(GAMMA)
        + along_channels(BETA),
        mean=MEAN,
        variance=VARIANCE,
        gamma=GAMMA,
        beta=BETA,
        epsilon=0.1,
    ),
    "instance_norm": case(
        "instance_norm",
        standardised((2, 3)) * along_channels(GAMMA) + along_channels(BETA),
        gamma=GAMMA,
        beta=BETA,
        epsilon=0.1,
    ),
    "layer_norm": case("layer_norm", standardised(-1) * LAST["gamma"] + LAST["beta"], axes=[-1], epsilon=0.1, **LAST),
    "layer_norm__two_axes": case("layer_norm", standardised((2, 3)), axes=[2, 3], epsilon=0.1),
    "l2_norm": case("l2_norm", X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True) + 0.1), epsilon=0.1),
    "local_response_norm": case(
        "local_response_norm",
        F.local_response_norm(torch.from_numpy(X), 3, alpha=0.3, beta=0.6, k=1.5).numpy(),
        size=3,
        alpha=0.3,
        beta=0.6,
        k=1.5,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_its_formula_gives(check, name):
    check(name)
