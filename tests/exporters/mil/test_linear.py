"""Against PyTorch's layers, whose padding and strides are counted differently."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(shape, generator=GENERATOR)


SIGNAL, IMAGE, VOLUME = randn(2, 4, 9), randn(1, 4, 7, 8), randn(1, 2, 4, 5, 3)
KERNEL_1D, KERNEL, GROUPED, KERNEL_3D = randn(6, 4, 3), randn(6, 4, 3, 2), randn(8, 2, 3, 3), randn(3, 2, 2, 2, 2)
BIAS, WEIGHT = randn(6), randn(6, 4)
ROWS, COLUMNS = randn(2, 3, 4), randn(2, 4, 5)
QUERY, KEY, VALUE, MASK = randn(1, 2, 5, 4), randn(1, 2, 6, 4), randn(1, 2, 6, 3), randn(5, 6)


def case(name, x, expected, **options):
    given = {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    return (lambda mb, x: getattr(mb, name)(x=x, **given)), {"x": x.numpy()}, (expected.numpy(),)


def attention(mask):
    weights = QUERY.double() @ KEY.double().transpose(-1, -2) / 2
    return (torch.softmax(weights if mask is None else weights + mask, -1) @ VALUE.double()).float()


CASES = {
    "conv__1d": case(
        "conv", SIGNAL, F.conv1d(SIGNAL, KERNEL_1D, BIAS, stride=2), weight=KERNEL_1D, bias=BIAS, strides=[2]
    ),
    "conv": case(
        "conv",
        IMAGE,
        F.conv2d(F.pad(IMAGE, (3, 0, 1, 2)), KERNEL, BIAS, stride=(2, 1), dilation=(1, 2)),
        weight=KERNEL,
        bias=BIAS,
        strides=[2, 1],
        pad_type="custom",
        pad=[1, 2, 3, 0],
        dilations=[1, 2],
    ),
    "conv__grouped": case("conv", IMAGE, F.conv2d(IMAGE, GROUPED, groups=2), weight=GROUPED, groups=2),
    # A size of 7 and 8 at stride 2 gives 4; kernels of 3 and 2 then need 2 and 0 more elements.
    "conv__same": case(
        "conv",
        IMAGE,
        F.conv2d(F.pad(IMAGE, (0, 0, 1, 1)), KERNEL, stride=2),
        weight=KERNEL,
        strides=[2, 2],
        pad_type="same",
    ),
    # At stride 1 a kernel of 2 needs one element: at the end, or with same_lower at the beginning.
    "conv__same_end": case("conv", IMAGE, F.conv2d(F.pad(IMAGE, (0, 1, 1, 1)), KERNEL), weight=KERNEL, pad_type="same"),
    "conv__same_lower": case(
        "conv", IMAGE, F.conv2d(F.pad(IMAGE, (1, 0, 1, 1)), KERNEL), weight=KERNEL, pad_type="same_lower"
    ),
    "conv__3d": case("conv", VOLUME, F.conv3d(VOLUME, KERNEL_3D), weight=KERNEL_3D),
    "conv_transpose": case(
        "conv_transpose",
        IMAGE,
        F.conv_transpose2d(IMAGE, KERNEL.transpose(0, 1).contiguous(), BIAS, stride=2)[..., 1:-2, 2:],
        weight=KERNEL.transpose(0, 1).contiguous(),
        bias=BIAS,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 2, 2, 0],
    ),
    "conv_transpose__1d": case(
        "conv_transpose",
        SIGNAL,
        F.conv_transpose1d(SIGNAL, KERNEL_1D.transpose(0, 1).contiguous(), stride=3, padding=1),
        weight=KERNEL_1D.transpose(0, 1).contiguous(),
        strides=[3],
        pad_type="custom",
        pad=[1, 1],
    ),
    # output_padding adds elements at the end only.
    "conv_transpose__output_shape": case(
        "conv_transpose",
        IMAGE,
        F.conv_transpose2d(IMAGE, KERNEL.transpose(0, 1).contiguous(), stride=2, padding=(1, 0), output_padding=(1, 0)),
        weight=KERNEL.transpose(0, 1).contiguous(),
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 0, 0],
        output_shape=[1, 6, 14, 16],
    ),
    "linear": case("linear", ROWS, ROWS @ WEIGHT.T + BIAS, weight=WEIGHT, bias=BIAS),
    "matmul": (
        lambda mb, x, y: mb.matmul(x=x, y=y),
        {"x": ROWS.numpy(), "y": COLUMNS.numpy()},
        (np.einsum("bij,bjk->bik", ROWS, COLUMNS),),
    ),
    "matmul__transposed": (
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        {"x": COLUMNS.numpy(), "y": ROWS.numpy()},
        (np.einsum("bji,bkj->bik", COLUMNS, ROWS),),
    ),
    "einsum": (
        lambda mb, x, y: mb.einsum(values=[x, y], equation="nchw,nwhu->nchu"),
        {"x": QUERY.numpy(), "y": (KEY[:, :, :5].permute(0, 3, 2, 1).contiguous()).numpy()},
        (np.einsum("nchw,nwhu->nchu", QUERY, KEY[:, :, :5].permute(0, 3, 2, 1)),),
    ),
    "scaled_dot_product_attention": (
        lambda mb, q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        {"q": QUERY.numpy(), "k": KEY.numpy(), "v": VALUE.numpy()},
        (attention(None).numpy(),),
    ),
    "scaled_dot_product_attention__masked": (
        lambda mb, q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
        {"q": QUERY.numpy(), "k": KEY.numpy(), "v": VALUE.numpy(), "m": MASK.numpy()},
        (attention(MASK).numpy(),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_pytorch_gives(check, name):
    check(name)
