"""Against NumPy, or PyTorch where it has the same operator."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
Y = X + 100
IMAGE = np.arange(2 * 8 * 4 * 6, dtype=np.float32).reshape(2, 8, 4, 6)
INDICES = np.array([[0, 2], [1, 0]], np.int32)


def case(name, expected, x=X, **options):
    expected = expected if isinstance(expected, tuple) else (expected,)
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": x}, expected


def joined(name, expected, **options):
    return (lambda mb, x, y: getattr(mb, name)(values=[x, y], **options)), {"x": X, "y": Y}, (expected,)


def depth_to_space(x, block):
    """Channel ``(i * block + j) * C + c`` goes to row ``i`` and column ``j`` of the block of channel ``c``."""
    batch, channels, height, width = x.shape
    kept = channels // block**2
    result = np.zeros((batch, kept, height * block, width * block), x.dtype)
    for i in range(block):
        for j in range(block):
            first = (i * block + j) * kept
            result[:, :, i::block, j::block] = x[:, first : first + kept]
    return result


def space_to_batch(x, rows, columns):
    """Samples of the block's first row and column come first."""
    return np.concatenate([x[:, :, i::rows, j::columns] for i in range(rows) for j in range(columns)])


PADDED = np.pad(IMAGE, ((0, 0), (0, 0), (1, 1), (0, 3)))

CASES = {
    "reshape": case("reshape", X.reshape(4, 6), shape=[4, -1]),
    "reshape__zeros": case("reshape", X.reshape(2, 1, 3, 4), shape=[2, -1, 3, 0]),
    # The second size of y, then its first.
    "reshape_like": (
        lambda mb, x, y: mb.reshape_like(x=x, ref_tensors=(y, y), begins=(1, 0), ends=(2, 1), end_masks=(False, False)),
        {"x": np.arange(12, dtype=np.float32), "y": np.zeros((4, 3), np.float32)},
        (np.arange(12, dtype=np.float32).reshape(3, 4),),
    ),
    "expand_dims": case("expand_dims", X[None, :, :, None], axes=[0, -2]),
    "squeeze": case("squeeze", X[:, 0], x=X[:, :1], axes=[1]),
    "squeeze__all": case("squeeze", X[0, 0], x=X[:1, :1]),
    "transpose": case("transpose", X.transpose(2, 0, 1), perm=[2, 0, 1]),
    "flatten2d": case("flatten2d", X.reshape(6, 4), axis=2),
    "depth_to_space": case("depth_to_space", depth_to_space(IMAGE, 2), x=IMAGE, block_size=2),
    "space_to_depth": case("space_to_depth", IMAGE, x=depth_to_space(IMAGE, 2), block_size=2),
    "pixel_shuffle": case(
        "pixel_shuffle", F.pixel_shuffle(torch.from_numpy(IMAGE), 2).numpy(), x=IMAGE, upscale_factor=2
    ),
    "pixel_unshuffle": case(
        "pixel_unshuffle",
        F.pixel_unshuffle(torch.from_numpy(IMAGE), 2).numpy(),
        x=IMAGE,
        downscale_factor=np.uint32(2),
    ),
    "space_to_batch": case(
        "space_to_batch", space_to_batch(PADDED, 2, 3), x=IMAGE, block_shape=[2, 3], paddings=[[1, 1], [0, 3]]
    ),
    "batch_to_space": case(
        "batch_to_space", IMAGE, x=space_to_batch(PADDED, 2, 3), block_shape=[2, 3], crops=[[1, 1], [0, 3]]
    ),
    "tile": case("tile", np.tile(X, (1, 2, 3)), reps=[1, 2, 3]),
    "reverse": case("reverse", X[:, ::-1], axes=[1]),
    "reverse__all": case("reverse", X[::-1, ::-1, ::-1]),
    "reverse_sequence": case(
        "reverse_sequence",
        np.stack([X[0][[1, 0, 2]], X[1][[2, 1, 0]]]),
        lengths=[2, 3],
        seq_axis=1,
        batch_axis=0,
    ),
    "sliding_windows": case("sliding_windows", np.stack([X[:, 0:2], X[:, 1:3]], 1), axis=1, size=2, stride=1),
    "concat": joined("concat", np.concatenate([X, Y], 1), axis=1),
    "concat__interleaved": joined("concat", np.stack([X, Y], 2).reshape(2, 6, 4), axis=1, interleave=True),
    "stack": joined("stack", np.stack([X, Y], 1), axis=1),
    "split": case("split", (X[..., :1], X[..., 1:]), split_sizes=[1, 3], axis=2),
    "split__even": case("split", (X[..., :2], X[..., 2:]), num_splits=2, axis=2),
    "shape": case("shape", np.array([2, 3, 4])),
    "fill": (
        lambda mb, x: mb.fill(shape=mb.shape(x=x), value=2.5),
        {"x": X},
        (np.full((2, 3, 4), 2.5),),
    ),
    "fill_like": (lambda mb, x: mb.fill_like(ref_tensor=x, value=2.5), {"x": X}, (np.full((2, 3, 4), 2.5),)),
    "range_1d": (
        lambda mb, x: mb.range_1d(start=1, end=mb.squeeze(x=x), step=3),
        {"x": np.array([11], np.int32)},
        (np.array([1, 4, 7, 10]),),
    ),
    "one_hot": (
        lambda mb, x: mb.one_hot(indices=x, one_hot_vector_size=3, axis=-1, on_value=2.0, off_value=-1.0),
        {"x": INDICES},
        (np.eye(3)[INDICES] * 3 - 1,),
    ),
    "one_hot__axis": (
        lambda mb, x: mb.one_hot(indices=x, one_hot_vector_size=3, axis=1),
        {"x": INDICES},
        (np.eye(3)[INDICES].transpose(0, 2, 1),),
    ),
    "band_part": case("band_part", np.tril(np.triu(X, -1), 2), lower=1, upper=2),
    "band_part__upper": case("band_part", np.triu(X), lower=0, upper=-1),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_numpy_gives(check, name):
    check(name)
