"""What callbacks share that change something for the time of a fit."""

from collections.abc import Callable

import lightning.pytorch as pl
from typing_extensions import override


class LeavingCallback(pl.Callback):
    """Undoes what it did when a fit ends, or an exception ends it."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._leave()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._undo:
            self._undo.pop()()
