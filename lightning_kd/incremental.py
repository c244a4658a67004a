"""Classifiers that learn new classes after the old ones."""

import torch
from torch import nn

from lightning_kd.errors import SetupError


def extend_classifier(classifier: nn.Linear, classes: int) -> nn.Linear:
    """A classifier of more classes, which says of the old ones what it said before.

    Args:
        classifier: Tells the old classes apart. It is not changed.
        classes: How many classes the new one tells apart, more than the old one.

    Returns:
        A new layer; its first rows are those of ``classifier``, the others start as those of any linear layer.

    Raises:
        SetupError: If there are no new classes.

    Example:
        >>> old = nn.Linear(4, 3)
        >>> new, x = extend_classifier(old, 5), torch.randn(2, 4)
        >>> bool(torch.allclose(new(x)[:, :3], old(x), atol=1e-6)), new.out_features
        (True, 5)
    """
    old = classifier.out_features
    if classes <= old:
        raise SetupError(f"`classes` must be more than the {old} that there are, got {classes}.")
    weight = classifier.weight
    has_bias = classifier.bias is not None
    wider = nn.Linear(classifier.in_features, classes, bias=has_bias, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        wider.weight[:old] = weight
        if has_bias:
            wider.bias[:old] = classifier.bias
    return wider


def align_class_weights(classifier: nn.Linear, old_classes: int) -> float:
    r"""Scale the new classes' weights to the mean length of the old ones' (weight aligning).

    .. math::
        W_\mathrm{new} \leftarrow \gamma W_\mathrm{new}, \qquad
        \gamma = \frac{\mathrm{mean} \lVert w_i \rVert_2 \text{ over old } i}
        {\mathrm{mean} \lVert w_j \rVert_2 \text{ over new } j}

    Trained on many new and few old samples, a classifier has longer weights for the new classes and prefers them;
    scaling makes it fair. It is done after training. Once aligned, doing it again changes nothing. Biases stay.

    Args:
        classifier: Changed in place.
        old_classes: How many of its first classes are old.

    Returns:
        :math:`\gamma`, dimensionless.

    Raises:
        SetupError: If not both kinds of classes are there, or the new ones' weights are all zero.

    Source:
        Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning", arXiv:1911.07053.

    Example:
        >>> classifier = nn.Linear(2, 2, bias=False)
        >>> _ = classifier.weight.data.copy_(torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
        >>> align_class_weights(classifier, old_classes=1), classifier.weight[1].tolist()
        (0.5, [3.0, 4.0])
    """
    if not 0 < old_classes < classifier.out_features:
        raise SetupError(
            f"`old_classes` must leave old and new ones among the {classifier.out_features} classes, got {old_classes}."
        )
    with torch.no_grad():
        lengths = torch.linalg.vector_norm(classifier.weight, dim=1)
        old, new = lengths[:old_classes].mean(), lengths[old_classes:].mean()
        if not bool(new > 0):
            raise SetupError("the new classes' weights are all zero: train them before they are aligned.")
        factor = old / new
        classifier.weight[old_classes:] *= factor
    return float(factor)
