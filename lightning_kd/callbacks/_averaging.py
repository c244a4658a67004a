"""Averages of weights beside callbacks that decide what weights may be."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from lightning_kd.errors import SetupError


def refuse_averaging(trainer: pl.Trainer, what: str) -> None:
    """Raise `SetupError` if a callback averages weights; ``what`` says what the averages would be."""
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(other, WeightAveraging | StochasticWeightAveraging):
            raise SetupError(f"`callbacks` lists {type(other).__name__}, {what}: remove it.")
