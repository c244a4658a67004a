"""The callback that trains the student with weights of few bits."""

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.callbacks._averaging import refuse_averaging
from lightning_kd.callbacks._leaving import LeavingCallback
from lightning_kd.callbacks._student import find_student
from lightning_kd.callbacks.distillation import adopt_parameters, check_sharding
from lightning_kd.compression.quantizers import check_bits
from lightning_kd.compression.substitution import WeightSubstitution
from lightning_kd.compression.weight_quantizers import WeightQuantizer
from lightning_kd.compression.weights import layer_weights
from lightning_kd.errors import SetupError
from lightning_kd.hidden import add_hidden_child


class LowBitTraining(LeavingCallback):
    """Trains the student while its linear layers and convolutions compute with quantised weights.

    The full-precision weights stay the parameters that the optimiser moves; every call of the student, in training and
    validation, quantises them anew. The student's part of a checkpoint holds the quantised weights under the plain
    names, so that it loads strictly into the plain network and is what was validated. The full-precision weights, and
    what the quantiser learned, are in the callback's part, for resuming. When training ends the student's parameters
    become the quantised weights; another ``fit`` with the same callback goes on from the full-precision ones.

    A quantiser that trains levels only (`LearnedLevels`) freezes the student's parameters during ``fit``; its levels
    join the optimiser, which must not decay them. Published is ``SGD(lr=1e-5)``.

    Quantised activations are an effect of training only: the network that is left computes with the quantised weights
    in floating point.

    Args:
        quantizer: `UniformWeights`, `TernaryWeights` or `LearnedLevels`.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        skip: Paths of modules in the student to leave in full precision, with everything below; ``*`` stands for any
            characters.
        activation_bits: Bits of the inputs of the same layers, from 2 to 16; ``None`` leaves them.
        activation_clip: Largest magnitude of these inputs; ``None`` limits nothing.
        name: Distinguishes two such callbacks on one Trainer.
        level_group: Index of the optimiser's parameter group that learned levels join.

    Raises:
        SetupError: At setup, if the strategy shards the student, weights are averaged, the student is compiled, a layer
            shares its weight, or learned levels would decay; after the first batch, if a layer was not called.
        ValueError: If ``activation_bits`` or ``activation_clip`` is out of range.

    Example:
        >>> import lightning as L
        >>> from lightning_kd import KnowledgeDistillation
        >>> from lightning_kd.compression import UniformWeights
        >>> low_bit = LowBitTraining(UniformWeights(levels=4), student="net", skip=["head"])
        >>> kd = KnowledgeDistillation(nn.Linear(2, 2), student="net")
        >>> trainer = L.Trainer(callbacks=[kd, low_bit], logger=False)
    """

    def __init__(
        self,
        quantizer: WeightQuantizer,
        *,
        student: str = "",
        skip: Sequence[str] = (),
        activation_bits: int | None = None,
        activation_clip: float | None = None,
        name: str = "low_bit",
        level_group: int = 0,
    ) -> None:
        super().__init__()
        if activation_bits is not None:
            check_bits(activation_bits)
        if activation_clip is not None:
            check_positive("activation_clip", activation_clip)
        if not isinstance(quantizer, WeightQuantizer):
            raise SetupError(f"`quantizer` must be a quantiser such as TernaryWeights(), got {quantizer!r}.")
        self.quantizer = quantizer
        self.student = student
        self.skip = tuple(skip)
        self.activation_bits = activation_bits
        self.activation_clip = activation_clip
        self.name = name
        self.level_group = level_group
        self._substitution: WeightSubstitution | None = None
        self._full_precision: dict[str, Tensor] = {}
        self._ended_with: dict[str, Tensor] = {}
        self._last: weakref.ref[nn.Module] | None = None

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name, student=self.student)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._leave()
        check_sharding(trainer)
        refuse_averaging(trainer, "which averages full-precision weights, not those that the student computes with")
        student = find_student(pl_module, self.student)
        weights = layer_weights(student, skip=self.skip)
        before, self._full_precision = self._full_precision, {}
        parameters = {name: weight.parameter.detach() for name, weight in weights.items()}
        goes_on = self._last is not None and self._last() is student and self._left(parameters)
        self._ended_with = {}
        if not goes_on:
            self.quantizer.build(parameters)
        self._last = weakref.ref(student)
        self._substitution = WeightSubstitution(
            student,
            weights,
            self.quantizer,
            activation_bits=self.activation_bits,
            activation_clip=self.activation_clip,
        )
        self._undo.append(self._substitution.detach)
        if goes_on and before:
            self._substitution.store(before)
        if not self.quantizer.trains_weights:
            self._freeze(student)
        self._undo.append(add_hidden_child(pl_module, f"_{self.name}_quantizer", self.quantizer))

    def _left(self, parameters: Mapping[str, Tensor]) -> bool:
        """Whether the student's weights are those that an earlier ``fit`` ended with."""
        ended_with = self._ended_with.items()
        return all(name in parameters and torch.equal(weight, parameters[name].cpu()) for name, weight in ended_with)

    def _freeze(self, student: nn.Module) -> None:
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self._undo.append(partial(_thaw, parameter))

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        levels = {id(parameter) for parameter in self.quantizer.parameters()}
        adopt_parameters(trainer.optimizers, self.quantizer, self.level_group)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if group.get("weight_decay") and any(id(parameter) in levels for parameter in group["params"]):
                    raise SetupError(
                        f"`level_group` must be a group without weight decay, which would pull levels to 0, got one "
                        f"with weight_decay={group['weight_decay']}: configure weight_decay=0."
                    )

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        unread = self._require_substitution().unread
        if unread:
            raise SetupError(
                f"the weights {sorted(unread)} were not used by calls of their layers in the first step, and would not "
                "be quantised: skip= these layers."
            )

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._finish()  # for a fit of no steps, which has no end of training
        super().teardown(trainer, pl_module, stage)

    def _finish(self) -> None:
        substitution = self._substitution
        if substitution is not None and not self._full_precision:
            self._full_precision = _copies(substitution.stored())
            substitution.store(substitution.quantized())
            self._ended_with = _copies(substitution.stored())
            substitution.detach()

    @override
    def _leave(self) -> None:
        super()._leave()
        self._substitution = None

    def _require_substitution(self) -> WeightSubstitution:
        if self._substitution is None:
            raise SetupError("LowBitTraining works inside Trainer.fit only.")
        return self._substitution

    @override
    def state_dict(self) -> dict[str, Any]:
        full_precision = self._full_precision
        if not full_precision and self._substitution is not None:
            full_precision = self._substitution.stored()
        return {"weights": full_precision, "quantizer": dict(self.quantizer.state_dict())}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._substitution is None:
            return
        if state_dict["weights"].keys() != self._substitution.weights.keys():
            raise SetupError(
                f"the checkpoint was written with other quantised layers than skip={list(self.skip)} leaves."
            )
        self._substitution.store(state_dict["weights"])
        self.quantizer.load_state_dict(state_dict["quantizer"])


def _copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory, which outlive a fit on another device."""
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


def _thaw(parameter: nn.Parameter) -> None:
    parameter.requires_grad_(True)
