"""Images of another distribution, made of a batch's own."""

import torch
from torch import Tensor

from lightning_kd.errors import ShapeError

EPSILON = 1e-6


def mix_distribution(images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Give each image a mixture of its own colours' mean and deviation and another image's.

    .. math::
        x'_n = \frac{x_n - \mu_n}{\sigma_n} \bigl( \lambda_n \sigma_n + (1 - \lambda_n) \sigma_m \bigr)
        + \lambda_n \mu_n + (1 - \lambda_n) \mu_m

    with mean and deviation of each channel over the image, :math:`\lambda_n` uniform from 0 to 1, and another image
    :math:`m` of the batch. What is in the image stays, its contrast and colour change.

    Args:
        images: Shape ``(N, C, H, W)`` with at least 2 images, floating point.
        generator: Source of :math:`\lambda` and of the partners, on the CPU; ``None`` is PyTorch's own.

    Returns:
        As many images.

    Raises:
        ShapeError: If ``images`` has not four axes, or there is one image only.

    Source:
        Ours, as the perturbation of Tang et al., arXiv:2307.11469, whose MixDistribution was not at hand; the mixture
        of statistics is that of Zhou et al., "Domain Generalization with MixStyle", arXiv:2104.02008, who mix features.

    Example:
        >>> grey = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 4, 4)
        >>> mixed = mix_distribution(grey, generator=torch.Generator().manual_seed(0))
        >>> bool((mixed > 0).all()), bool((mixed < 1).all())
        (True, True)
    """
    if images.ndim != 4 or len(images) < 2:
        raise ShapeError(f"`images` must have shape (N, C, H, W) with N > 1, got {tuple(images.shape)}.")
    count = len(images)
    shares = torch.rand(count, 1, 1, 1, generator=generator).to(images)
    # Turning the batch by less than its length leaves no image its own partner.
    turn = int(torch.randint(1, count, (), generator=generator))
    deviation, mean = torch.std_mean(images, dim=(2, 3), keepdim=True, correction=0)
    other_mean, other_deviation = mean.roll(turn, 0), deviation.roll(turn, 0)
    standardised = (images - mean) / (deviation + EPSILON)
    return standardised * (shares * deviation + (1 - shares) * other_deviation) + (
        shares * mean + (1 - shares) * other_mean
    )
