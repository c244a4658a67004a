"""The callback that makes a classifier fair to its old classes when training ends."""

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from typing_extensions import override

from lightning_kd.callbacks.distillation import check_sharding
from lightning_kd.errors import SetupError
from lightning_kd.incremental import align_class_weights
from lightning_kd.taps import resolve_module


class WeightAligning(pl.Callback):
    """Scales the weights of new classes to the length of the old ones' at the end of ``fit``.

    Checkpoints written during ``fit`` hold the weights as trained; ``trainer.save_checkpoint`` behind it writes the
    aligned ones. Aligning twice is aligning once.

    Args:
        classifier: Path of the linear classifier inside the LightningModule.
        old_classes: How many of its first classes are old.

    Attributes:
        factor: What the new classes' weights were multiplied by, dimensionless; ``None`` before the end.

    Raises:
        SetupError: At setup, if the path names no linear layer, it has no new classes, or the strategy shards it.

    Source:
        Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning", arXiv:1911.07053.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[WeightAligning("net.fc", old_classes=50)], logger=False)
    """

    def __init__(self, classifier: str, *, old_classes: int) -> None:
        self.classifier = classifier
        self.old_classes = old_classes
        self.factor: float | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        check_sharding(trainer)
        layer = self._layer(pl_module)
        if not 0 < self.old_classes < layer.out_features:
            raise SetupError(
                f"`old_classes` must leave old and new ones among the {layer.out_features} classes of "
                f"{self.classifier!r}, got {self.old_classes}."
            )

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.factor = align_class_weights(self._layer(pl_module), self.old_classes)
        rank_zero_info(f"weights of the new classes of {self.classifier!r} multiplied by {self.factor:.4f}.")

    def _layer(self, pl_module: pl.LightningModule) -> nn.Linear:
        layer = resolve_module(pl_module, self.classifier, "LightningModule")
        if not isinstance(layer, nn.Linear):
            raise SetupError(
                f"`classifier` must be the path of a linear layer, got {type(layer).__name__} at {self.classifier!r}."
            )
        return layer
