"""Against NumPy's indexing."""

import numpy as np
import pytest

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ROWS = np.array([[2, 0], [1, -1]], np.int32)
PAIRS = np.array([[0, 2], [1, 0]], np.int32)
UPDATES = np.array([[10.0, 20.0, 30.0, 40.0], [50.0, 60.0, 70.0, 80.0]], np.float32)


def case(name, expected, x=X, **options):
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": x}, (expected,)


def scattered(mode, expected):
    """Rows 0 and 2, and with a sum row 0 twice."""
    return (
        lambda mb, x, u: mb.scatter(data=x, indices=[0, 2], updates=u, axis=0, mode=mode),
        {"x": X[0], "u": UPDATES},
        (expected,),
    )


def with_rows(function):
    result = X[0].copy()
    result[[0, 2]] = function(result[[0, 2]], UPDATES)
    return result


def with_entries(x, places, values, function):
    result = x.copy()
    for place, value in zip(places, values, strict=True):
        result[place] = function(result[place], value)
    return result


ALONG = np.array([[0, 2, 1, 0]], np.int32)
VALUES = np.array([[5.0, 6.0, 7.0, 8.0]], np.float32)

CASES = {
    "slice_by_index": case("slice_by_index", X[0:1, 1:3, 0:4:2], begin=[0, 1, 0], end=[1, 3, 4], stride=[1, 1, 2]),
    "slice_by_index__masks": case(
        "slice_by_index",
        X[:, 1, -2:],
        begin=[1, 1, -2],
        end=[1, 2, 0],
        begin_mask=[True, False, False],
        end_mask=[True, False, True],
        squeeze_mask=[False, True, False],
    ),
    "slice_by_index__backwards": case(
        "slice_by_index",
        X[:, ::-1, 2:0:-1],
        begin=[0, 0, 2],
        end=[2, 0, 0],
        stride=[1, -1, -1],
        begin_mask=[False, True, False],
        end_mask=[False, True, False],
    ),
    "slice_by_size": case("slice_by_size", X[1:, 1:3, 2:], begin=[1, 1, 2], size=[-1, 2, 2]),
    "slice_update": (
        lambda mb, x, u: mb.slice_update(x=x, update=u, begin=[0, 1], end=[2, 4], stride=[1, 2]),
        {"x": X[0], "u": UPDATES[:, :2]},
        (with_entries(X[0], [(0, 1), (0, 3), (1, 1), (1, 3)], UPDATES[:, :2].flatten(), lambda old, new: new),),
    ),
    "crop": case("crop", X[None, :, 1:, 2:3], x=X[None], crop_height=[1, 0], crop_width=[2, 1]),
    "pad": case(
        "pad",
        np.pad(X, ((0, 0), (1, 2), (0, 3)), constant_values=7),
        pad=[1, 2, 0, 3],
        mode="constant",
        constant_val=7.0,
    ),
    "pad__reflect": case("pad", np.pad(X, ((0, 0), (2, 1), (3, 2)), mode="reflect"), pad=[2, 1, 3, 2], mode="reflect"),
    "pad__replicate": case("pad", np.pad(X, ((0, 0), (2, 1), (3, 2)), mode="edge"), pad=[2, 1, 3, 2], mode="replicate"),
    "gather": (
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=1),
        {"x": X, "i": ROWS},
        (np.take(X, ROWS, axis=1),),
    ),
    "gather__scalar": (
        lambda mb, x: mb.expand_dims(x=mb.gather(x=mb.shape(x=x), indices=np.int32(2), axis=0), axes=[0]),
        {"x": X},
        (np.array([4]),),
    ),
    "gather__batched": (
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1),
        {"x": X, "i": PAIRS},
        (np.stack([X[0][PAIRS[0]], X[1][PAIRS[1]]]),),
    ),
    "gather_along_axis": (
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=0),
        {"x": X[0], "i": ALONG},
        (np.take_along_axis(X[0], ALONG, 0),),
    ),
    "gather_nd": (
        lambda mb, x, i: mb.gather_nd(x=x, indices=i),
        {"x": X, "i": PAIRS},
        (np.stack([X[0, 2], X[1, 0]]),),
    ),
    "gather_nd__batched": (
        lambda mb, x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
        {"x": X, "i": PAIRS},
        (np.stack([X[0, 0, 2], X[1, 1, 0]]),),
    ),
    "scatter": scattered("update", with_rows(lambda old, new: new)),
    "scatter__add": scattered("add", with_rows(np.add)),
    "scatter__sub": scattered("sub", with_rows(np.subtract)),
    "scatter__mul": scattered("mul", with_rows(np.multiply)),
    "scatter__div": scattered("div", with_rows(np.divide)),
    "scatter__max": scattered("max", with_rows(np.maximum)),
    "scatter__min": scattered("min", with_rows(np.minimum)),
    "scatter__twice": (
        lambda mb, x, u: mb.scatter(data=x, indices=[1, 1], updates=u, axis=0, mode="add"),
        {"x": X[0], "u": UPDATES},
        (X[0] + np.outer([0, 1, 0], UPDATES.sum(0)),),
    ),
    "scatter_along_axis": (
        lambda mb, x, i, u: mb.scatter_along_axis(data=x, indices=i, updates=u, axis=0, mode="update"),
        {"x": X[0], "i": ALONG, "u": VALUES},
        (with_entries(X[0], [(0, 0), (2, 1), (1, 2), (0, 3)], VALUES[0], lambda old, new: new),),
    ),
    "scatter_nd": (
        lambda mb, x, i, u: mb.scatter_nd(data=x, indices=i, updates=u, mode="add"),
        {"x": X[0], "i": PAIRS, "u": VALUES[0, :2]},
        (with_entries(X[0], [(0, 2), (1, 0)], VALUES[0, :2], np.add),),
    ),
    "non_zero": (
        lambda mb, x: mb.non_zero(x=x),
        {"x": np.array([[0.0, 3.0], [4.0, 0.0]], np.float32)},
        (np.array([[0, 1], [1, 0]]),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_numpy_gives(check, name):
    check(name)
