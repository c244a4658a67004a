"""Against NumPy."""

import numpy as np
import pytest
from scipy.special import logsumexp

X = np.array([[[1.0, 5.0, 2.0], [4.0, 3.0, 6.0]], [[0.5, 0.25, 3.0], [2.0, 7.0, 1.5]]], np.float32)


def case(name, expected, **options):
    expected = expected if isinstance(expected, tuple) else (expected,)
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": X}, expected


CASES = {
    **{
        name: case(name, function(X), axes=[0, 2], keep_dims=False)
        for name, function in (
            ("reduce_l1_norm", lambda x: np.abs(x).sum((0, 2))),
            ("reduce_l2_norm", lambda x: np.sqrt((x**2).sum((0, 2)))),
            ("reduce_log_sum", lambda x: np.log(x.sum((0, 2)))),
            ("reduce_log_sum_exp", lambda x: logsumexp(x, (0, 2))),
            ("reduce_max", lambda x: x.max((0, 2))),
            ("reduce_mean", lambda x: x.mean((0, 2))),
            ("reduce_min", lambda x: x.min((0, 2))),
            ("reduce_prod", lambda x: x.prod((0, 2))),
            ("reduce_sum", lambda x: x.sum((0, 2))),
            ("reduce_sum_square", lambda x: (x**2).sum((0, 2))),
        )
    },
    "reduce_mean__kept": case("reduce_mean", X.mean((1, 2), keepdims=True), axes=[-1, 1], keep_dims=True),
    "reduce_sum__all": case("reduce_sum", X.sum(keepdims=True), keep_dims=True),
    "reduce_argmax": case("reduce_argmax", X.argmax(1), axis=1, keep_dims=False),
    "reduce_argmin": case("reduce_argmin", X.argmin(-1, keepdims=True), axis=-1, keep_dims=True),
    "cumsum": case("cumsum", X.cumsum(2), axis=2),
    # Each element is the sum of those after it, or of those before it.
    "cumsum__reverse": case("cumsum", X[..., ::-1].cumsum(2)[..., ::-1] - X, axis=2, reverse=True, exclusive=True),
    "cumsum__exclusive": case("cumsum", X.cumsum(2) - X, axis=2, exclusive=True),
    "topk": case("topk", (np.sort(X, 2)[..., :0:-1], np.argsort(X, 2)[..., :0:-1]), k=2, axis=2),
    "topk__ascending": case("topk", (np.sort(X, 2)[..., :2], np.argsort(X, 2)[..., :2]), k=2, axis=2, ascending=True),
    "argsort": case("argsort", np.argsort(-X, 1), axis=1),
    "argsort__ascending": case("argsort", np.argsort(X, 2), axis=2, ascending=True),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_numpy_gives(check, name):
    check(name)
