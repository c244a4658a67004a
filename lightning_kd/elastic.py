"""Networks that hold many networks: what they share, for the callback that draws one at each step."""

from abc import ABC, abstractmethod

import torch
from torch import nn


class Elastic(nn.Module, ABC):
    """A network that can compute as one of many smaller ones, drawn by `lightning_kd.callbacks.ElasticSampling`."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> None:
        """Compute as one of the smaller networks from now on.

        Args:
            generator: Decides which, equally on all ranks.
        """

    @abstractmethod
    def restore(self) -> None:
        """Compute as the whole network from now on."""
