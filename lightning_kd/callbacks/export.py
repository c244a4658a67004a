"""The callback that exports the student when training ends."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from typing_extensions import override

import exporters
from exporters.artifact import sha256_of
from exporters.example import ExampleInputs
from exporters.parity import Precision
from exporters.quantization import QuantizationOptions
from exporters.quantization.fake import quantization_of
from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd._checks import check_choice
from lightning_kd.callbacks._student import find_student, student_example, training_inputs
from lightning_kd.callbacks.quantization import load_ranges
from lightning_kd.checkpoints import load_weights
from lightning_kd.errors import SetupError


class ExportStudent(pl.Callback):
    """Exports the student when ``fit`` ends, to one runtime or several, each checked against PyTorch number by number.

    A failed check raises: the run ends with an error and no file. What is missing (a runtime, a checkpoint callback, a
    folder that can be written) raises before training starts. Under DDP the first process exports.

    Args:
        to: Format or formats: ``"coreai"``, ``"coreml"``, ``"executorch"``, ``"onnx"``, ``"openvino"``, ``"tensorrt"``.
        folder: Where the files go; ``None`` is ``export`` below the Trainer's log folder.
        student: Path of the student inside the LightningModule; ``""`` is the module itself, through its ``forward``.
        weights: ``"best"`` exports the checkpoint that the Trainer's checkpoint callback calls best, ``"last"`` the
            weights at the end of training.
        precision: As for `exporters.export`. ``"int8"`` calibrates on the Trainer's training data, unless
            `QuantizationAwareTraining` trained the student.
        dynamic_batch: Batch sizes to accept, both ends included; ``True`` is ``(1, 32)``, ``False`` only 1.
        example_inputs: Input of the student; ``None`` takes real ones from the training data.
        calibration: As for `exporters.export`; ``None`` takes training data for ``"int8"``, followed to the student.
        quantization: As for `exporters.export`.
        evaluation: Whether to report the loss of top-1 accuracy on the Trainer's validation data, whose batches must be
            the student's input and a label.
        max_drop: Largest loss of accuracy, as a fraction, that is accepted; needs ``evaluation``.

    Raises:
        ValueError: If ``to``, ``weights`` or ``precision`` is unknown, or ``max_drop`` is given without ``evaluation``.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[ExportStudent(to=["onnx", "openvino"], student="net")], logger=False)
    """

    def __init__(
        self,
        to: str | Sequence[str] = "onnx",
        *,
        folder: str | None = None,
        student: str = "",
        weights: Literal["best", "last"] = "best",
        precision: Precision = "fp32",
        dynamic_batch: bool | tuple[int, int] = False,
        example_inputs: Any = None,
        calibration: Any = None,
        quantization: QuantizationOptions | None = None,
        evaluation: bool = False,
        max_drop: float | None = None,
    ) -> None:
        self.to = (to,) if isinstance(to, str) else tuple(to)
        for target in self.to:
            check_choice("to", target, tuple(EXPORTERS))
        check_choice("weights", weights, ("best", "last"))
        check_choice("precision", precision, get_args(Precision))
        if max_drop is not None and not evaluation:
            raise ValueError(f"`evaluation` must be True beside `max_drop`, got False beside {max_drop!r}.")
        self.folder = folder
        self.student = student
        self.weights = weights
        self.precision: Precision = precision
        self.dynamic_batch = dynamic_batch
        self.example_inputs = example_inputs
        self.calibration = calibration
        self.quantization = quantization or QuantizationOptions()
        self.evaluation = evaluation
        self.max_drop = max_drop
        self.artifacts: dict[str, exporters.Artifact] = {}

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        for target in self.to:
            import_runtime(EXPORTERS, target)
        if self.weights == "best" and trainer.checkpoint_callback is None:
            raise SetupError(
                "`weights='best'` needs a checkpoint callback that knows the best checkpoint, the Trainer has none: "
                "add ModelCheckpoint(monitor=...), or pass weights='last'."
            )
        self._example = self._read_example(trainer, pl_module)
        self._calibration = self._read_calibration(trainer, pl_module)
        self._target = self._make_folder(trainer)

    def _read_example(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> ExampleInputs:
        if self.example_inputs is not None:
            example: ExampleInputs = self.example_inputs
            return example
        student = find_student(pl_module, self.student)
        return student_example(trainer, pl_module, student, batch_size=2 if self.dynamic_batch else 1)

    def _read_calibration(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        if self.precision != "int8" or self.calibration is not None:
            return self.calibration
        student = find_student(pl_module, self.student)
        with isolate_rng():
            found = training_inputs(trainer, pl_module, student, self.quantization.samples)
        return [inputs.kwargs or inputs.args for inputs in found]

    def _make_folder(self, trainer: pl.Trainer) -> Path:
        base = trainer.log_dir or trainer.default_root_dir
        folder = Path(base) / "export" if self.folder is None else Path(self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"`folder` must be a folder that can be written, got {folder}: {error.strerror}."
            ) from error
        return folder

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        student = copy.deepcopy(find_student(pl_module, self.student))
        metadata = self._load_best(trainer, student) if self.weights == "best" else {}
        quantised = quantization_of(student) is not None
        for target in self.to:
            path = self._target / f"student{_suffix(target)}"
            artifact = exporters.export(
                student,
                self._example,
                to=target,  # type: ignore[arg-type]
                path=path,
                precision=self.precision,
                dynamic_batch=self.dynamic_batch,
                calibration=None if quantised else self._calibration,
                quantization=self.quantization,
                evaluation=trainer.val_dataloaders if self.evaluation else None,
                max_drop=self.max_drop,
                metadata=metadata,
            )
            self.artifacts[target] = artifact
            rank_zero_info(f"Exported the student to {artifact.path} ({artifact.size_bytes} bytes).")

    def _load_best(self, trainer: pl.Trainer, student: nn.Module) -> Mapping[str, str]:
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if not path:
            raise SetupError(
                "`weights='best'`: the checkpoint callback saved nothing in this run, so there is no best checkpoint: "
                "train until it saves one, or pass weights='last'."
            )
        load_weights(student, path, prefix=f"{self.student}." if self.student else "")
        if quantization_of(student) is not None:
            load_ranges(student, path)
        return {"checkpoint": Path(path).name, "checkpoint_sha256": sha256_of(Path(path))}


def _suffix(target: str) -> str:
    suffix: str = import_runtime(EXPORTERS, target)().suffix
    return suffix
