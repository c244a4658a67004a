"""The callback that prunes whole channels, more with every epoch."""

from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.callbacks._averaging import refuse_averaging
from lightning_kd.callbacks._masking import MaskingCallback
from lightning_kd.callbacks._student import find_student, training_inputs
from lightning_kd.compression.channels import channel_masks
from lightning_kd.extras import import_extra
from lightning_kd.taps import Inputs


class GradualChannelPruning(MaskingCallback):
    r"""Keeps more and more of the student's channels at zero, so that they can be removed after training.

    At the start of each epoch the least important channels of every group of layers are set to zero, with all that
    depends on them, and stay zero:

    .. math::
        r_e = r \left( 1 - \left( 1 - \min\left(\tfrac{e + 1}{E}, 1\right) \right)^3 \right), \quad e = 0, 1, \ldots

    Parameters keep their shapes during ``fit``: optimisers, schedulers, adapters, DDP and checkpoints notice nothing.
    After it, `lightning_kd.compression.remove_zero_channels` makes the smaller network, which computes the same.
    Removing channels within a fit would lose the optimiser's state and the adapters, and is not offered.

    Args:
        ratio: Part of each group's channels to remove in the end, above 0 and below 1.
        epochs: :math:`E`, epochs until that is reached; train on after that.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        importance: ``"magnitude"`` or ``"batch_norm"``, see `lightning_kd.compression.prune_channels`.
        skip: Paths of layers whose output channels stay, with everything below; ``*`` stands for any characters.
        example_inputs: One input of the student; ``None`` takes one from the training data.

    Raises:
        ValueError: If ``ratio``, ``epochs`` or ``importance`` is out of range.
        SetupError: At setup, if no channel can be removed, weights are averaged, or the strategy shards the student.
        MissingExtraError: At setup, if torch-pruning is not installed.

    Source:
        The schedule is that of Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878; channels instead of single
        weights are ours.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[GradualChannelPruning(ratio=0.5, epochs=10, student="net")], logger=False)
    """

    def __init__(
        self,
        *,
        ratio: float,
        epochs: int,
        student: str = "",
        importance: Literal["magnitude", "batch_norm"] = "magnitude",
        skip: Sequence[str] = (),
        example_inputs: Any = None,
    ) -> None:
        super().__init__(student)
        if isinstance(ratio, bool) or not 0 < ratio < 1:
            raise ValueError(f"`ratio` must be above 0 and below 1, got {ratio!r}.")
        check_positive("epochs", epochs)
        check_choice("importance", importance, ("magnitude", "batch_norm"))
        self.ratio = ratio
        self.epochs = epochs
        self.importance: Literal["magnitude", "batch_norm"] = importance
        self.skip = tuple(skip)
        self.example_inputs = example_inputs
        self._example = Inputs()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            refuse_averaging(trainer, "which averages weights from before they were zero")
            import_extra("torch_pruning", "pruning")
            student = find_student(pl_module, self.student)
            with isolate_rng():
                self._example = (
                    training_inputs(trainer, pl_module, student, 1)[0]
                    if self.example_inputs is None
                    else Inputs.of(self.example_inputs)
                )
        super().setup(trainer, pl_module, stage)

    @override
    def prepare(self, student: nn.Module) -> None:
        self._masks_at(student, epoch=0)

    @override
    def choose(self, student: nn.Module) -> dict[str, Tensor]:
        return {}  # each epoch chooses when it starts

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        student = find_student(pl_module, self.student)
        self.mask(trainer, student, self._masks_at(student, trainer.current_epoch))

    def _masks_at(self, student: nn.Module, epoch: int) -> dict[str, Tensor]:
        ratio = ratio_at(epoch, ratio=self.ratio, epochs=self.epochs)
        device = next(student.parameters()).device
        with isolate_rng():
            return channel_masks(
                student, self._example.to(device), ratio=ratio, importance=self.importance, skip=self.skip
            )


def ratio_at(epoch: int, *, ratio: float, epochs: int) -> float:
    """Part of the channels that are zero in an epoch.

    Args:
        epoch: Counted from 0.
        ratio: The part in the end.
        epochs: When that is reached.

    Returns:
        The part, from 0 to ``ratio``.

    Example:
        >>> [ratio_at(epoch, ratio=0.5, epochs=2) for epoch in range(3)]
        [0.4375, 0.5, 0.5]
    """
    return float(ratio * (1 - (1 - min((epoch + 1) / epochs, 1.0)) ** 3))
