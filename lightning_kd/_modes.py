"""Running a model for its shapes or its similarities without leaving a trace on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def looking_only(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients and no compilation in this block; every submodule's mode is restored.

    Args:
        models: Modules that run in the block.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
