"""The callback that learns, while a speech encoder is distilled, which of its channels, heads and units to keep."""

import weakref
from collections.abc import Sequence
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.callbacks._averaging import refuse_averaging
from lightning_kd.callbacks._leaving import LeavingCallback
from lightning_kd.callbacks._student import find_student
from lightning_kd.callbacks.distillation import check_sharding, total_steps
from lightning_kd.compression.encoder_gates import UNITS, EncoderGates, Unit
from lightning_kd.compression.encoder_pruning import prune_encoder
from lightning_kd.compression.hard_concrete import SparsityConstraint
from lightning_kd.compression.speech_encoders import find_encoder
from lightning_kd.compression.weights import check_not_compiled
from lightning_kd.errors import SetupError
from lightning_kd.schedules import Progress, Weight, check_weight, weight_at

Model = TypeVar("Model", bound=nn.Module)


class StructuredPruning(LeavingCallback):
    r"""Learns gates on a speech encoder under a constraint on how much of it is to go, DPHuBERT's first stage.

    Beside the loss, the gates minimise and two multipliers maximise

    .. math::
        \lambda_1 (s - \tau_t) + \lambda_2 (s - \tau_t)^2, \qquad \tau_t = \tau \min(t / T, 1)

    with :math:`s` the share of the encoder's parameters expected to be gone. Both have an optimiser of their own, an
    Adam that steps with the module's; the module's optimiser, loss and checkpoints know nothing of them. Gates are in
    the callback's part of a checkpoint. Validation is of the settled gates, and `prune` makes the smaller network that
    computes what was validated; the student itself is the whole network again when ``fit`` ends.

    Logged at each optimizer step: ``pruning/sparsity`` (expected), ``pruning/target`` and ``pruning/penalty``, all
    dimensionless.

    Args:
        sparsity: :math:`\tau`, share of the encoder's parameters to remove, above 0 and below 1.
        sparsity_steps: :math:`T`, optimizer steps until that is asked for.
        learning_rate: Of gates and multipliers: a number, or a schedule.
        units: What is gated, see `EncoderGates`.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.

    Raises:
        SetupError: At setup, if the student holds no encoder that can be gated, has LayerDrop, is compiled or sharded,
            weights are averaged, gradients are scaled (``"16-mixed"``), or there are several optimisers; when training
            starts, if the student is in evaluation mode.
        ValueError: If ``sparsity``, ``sparsity_steps``, ``learning_rate`` or ``units`` is out of range.

    Source:
        Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", arXiv:2305.17651.

    Example:
        >>> StructuredPruning(sparsity=0.75, student="encoder").target_at(2500)
        0.375
    """

    def __init__(
        self,
        *,
        sparsity: float = 0.75,
        sparsity_steps: int = 5000,
        learning_rate: Weight = 0.02,
        units: Sequence[Unit] = UNITS,
        student: str = "",
    ) -> None:
        super().__init__()
        if isinstance(sparsity, bool) or not 0 < sparsity < 1:
            raise ValueError(f"`sparsity` must be above 0 and below 1, got {sparsity!r}.")
        check_positive("sparsity_steps", sparsity_steps)
        if not callable(learning_rate):
            check_weight("learning_rate", learning_rate)
        self.sparsity = sparsity
        self.sparsity_steps = sparsity_steps
        self.learning_rate = learning_rate
        self.units = tuple(units)
        self.student = student
        self.gates: EncoderGates | None = None
        self.constraint = SparsityConstraint(initial=0.0, two_sided=True)
        self._optimizer: torch.optim.Optimizer | None = None
        self._resumed: dict[str, Any] = {}
        self._total_steps: int | None = None
        self._last: weakref.ref[nn.Module] | None = None

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(student=self.student)

    def target_at(self, step: int) -> float:
        """The share that is asked for after a number of optimizer steps."""
        return self.sparsity * min(1.0, step / self.sparsity_steps)

    def prune(self, model: Model) -> Model:
        """Make the smaller network that computes what the student with settled gates computes, see `prune_encoder`.

        Args:
            model: The student, a model of transformers; it is not changed.

        Returns:
            The smaller one.

        Raises:
            SetupError: If no gates have been trained or loaded.
        """
        if self.gates is None:
            raise SetupError("StructuredPruning has no gates yet: call prune() after Trainer.fit.")
        return prune_encoder(model, self.gates)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._leave()
        check_sharding(trainer)
        refuse_averaging(trainer, "which averages weights that were trained for other gates")
        if isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler is not None:
            raise SetupError(
                "`precision='16-mixed'` scales gradients, which the gates' own optimiser does not know: use "
                "'bf16-mixed' or '32-true'."
            )
        student = find_student(pl_module, self.student)
        check_not_compiled(student)
        _, encoder = find_encoder(student)
        if encoder.config.layerdrop > 0:
            raise SetupError(
                f"`layerdrop` of the student must be 0, got {encoder.config.layerdrop}: it leaves out layers that are "
                "gated; set student.config.layerdrop = 0."
            )
        if self.gates is None or self._last is None or self._last() is not student:
            with isolate_rng():
                self.gates = EncoderGates(encoder, units=self.units)
            self.constraint = SparsityConstraint(initial=0.0, two_sided=True)
            self._optimizer = None
        self._last = weakref.ref(student)
        self._undo.append(self.gates.attach(encoder))

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise SetupError(f"StructuredPruning steps with the only optimiser, got {len(trainer.optimizers)}.")
        gates = self._require_gates().to(pl_module.device)
        self.constraint.to(pl_module.device)
        gates.load_state_dict(trainer.strategy.broadcast(gates.state_dict()))
        if self._optimizer is None or self._resumed:
            groups: list[dict[str, Any]] = [
                {"params": list(gates.parameters())},
                {"params": list(self.constraint.parameters()), "maximize": True},
            ]
            self._optimizer = torch.optim.Adam(groups, lr=0.0)  # the rate is set at each step
        if self._resumed:
            self._optimizer.load_state_dict(self._resumed)
            self._resumed = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._total_steps = total_steps(trainer)
        if not find_student(pl_module, self.student).training:
            raise SetupError("the student is in evaluation mode, where gates are not drawn: call student.train().")

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gates, own = self._require_gates(), self._optimizer
        if own is None:
            raise SetupError("StructuredPruning works inside Trainer.fit only.")
        progress = Progress(trainer.global_step, trainer.current_epoch, self._total_steps)
        _average_gradients(trainer, gates)
        sparsity, target = gates.expected_sparsity(), self.target_at(trainer.global_step)
        penalty = self.constraint(sparsity, target)
        penalty.backward()
        for group in own.param_groups:
            group["lr"] = weight_at(self.learning_rate, progress)
        own.step()
        own.zero_grad()
        values = {"sparsity": sparsity.detach(), "target": target, "penalty": penalty.detach()}
        pl_module.log_dict({f"pruning/{name}": value for name, value in values.items()})

    def _require_gates(self) -> EncoderGates:
        if self.gates is None:
            raise SetupError("StructuredPruning works inside Trainer.fit only.")
        return self.gates

    @override
    def state_dict(self) -> dict[str, Any]:
        if self.gates is None or self._optimizer is None:
            return {}
        return {
            "gates": self.gates.state_dict(),
            "constraint": self.constraint.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._undo or not state_dict:
            return
        try:
            self._require_gates().load_state_dict(state_dict["gates"])
        except RuntimeError as error:
            raise SetupError(f"the checkpoint's gates are of another student or other `units`: {error}") from error
        self.constraint.load_state_dict(state_dict["constraint"])
        self._resumed = state_dict["optimizer"]


def _average_gradients(trainer: pl.Trainer, gates: EncoderGates) -> None:
    """Average the gates' gradients over the ranks: they are no part of the module, whose gradients DDP averages."""
    parameters = [parameter for parameter in gates.parameters() if parameter.grad is not None]
    if not parameters:
        raise SetupError(
            "the gates got no gradient: training_step must call the student in training mode, with gradients."
        )
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joint: Tensor = torch.cat([gradient.flatten() for gradient in gradients])
    averaged = trainer.strategy.reduce(joint, reduce_op="mean")
    for gradient, part in zip(gradients, averaged.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
