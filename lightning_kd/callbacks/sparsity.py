"""The callback that prunes the student to 2:4 sparsity and keeps it so."""

from collections.abc import Sequence

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.callbacks._masking import MaskingCallback
from lightning_kd.compression.masks import can_be_two_four, named_parameters, two_four_mask
from lightning_kd.compression.weights import layer_weights
from lightning_kd.errors import SetupError


class TwoFourSparsity(MaskingCallback):
    """Prunes linear layers and convolutions to 2:4 when training starts, and trains what is left.

    Of every four consecutive weights along the input dimension the two largest stay, chosen once from the weights that
    training starts with. The others are exactly zero after every step, also under momentum and weight decay, so that
    every checkpoint is sparse. A student that is sparse already keeps its zeros: a second ``fit``, such as
    quantisation-aware training, may follow. List it before callbacks that trace or rebuild the student.

    Layers whose number of inputs four does not divide, and grouped convolutions, stay dense; their names are logged.

    Args:
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        skip: Paths of modules in the student to leave dense, with everything below; ``*`` stands for any characters.

    Attributes:
        dense: Names of the weights that cannot be 2:4; known after setup.
        masks: True where a weight is kept, by the parameter's name; known when training has started.

    Raises:
        SetupError: At setup, if no layer can be 2:4, ``skip`` names no module, or the strategy shards the student.

    Source:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[TwoFourSparsity(student="net", skip=["head"])], logger=False)
    """

    def __init__(self, *, student: str = "", skip: Sequence[str] = ()) -> None:
        super().__init__(student)
        self.skip = tuple(skip)
        self.dense: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()

    @override
    def prepare(self, student: nn.Module) -> None:
        weights = layer_weights(student, skip=self.skip)
        self._names = tuple(name for name, weight in weights.items() if can_be_two_four(weight))
        self.dense = tuple(name for name in weights if name not in self._names)
        if not self._names:
            raise SetupError(
                f"no layer of the student can be 2:4 sparse: four divides the inputs of none of {list(self.dense)}."
            )

    @override
    def choose(self, student: nn.Module) -> dict[str, Tensor]:
        parameters = named_parameters(student)
        missing = [name for name in self._names if name not in parameters]
        if missing:
            raise SetupError(
                f"the student lost its weights {missing} after setup: a callback rebuilt it under other names."
            )
        if self.dense:
            rank_zero_info(f"2:4 sparsity leaves dense, for their numbers of inputs: {', '.join(self.dense)}.")
        return {name: two_four_mask(parameters[name]) for name in self._names}
