"""Born-again networks: generations of one architecture, each taught by the one before."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_same_shape
from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.objectives import LogitKD, Objective
from lightning_kd.taps import pick_tensor, resolve_module


def born_again(
    make_module: Callable[[], pl.LightningModule],
    make_trainer: Callable[[list[pl.Callback]], pl.Trainer],
    data: Any,
    *,
    generations: int = 3,
    student: str = "",
    teacher: nn.Module | None = None,
    make_objectives: Callable[[], Sequence[Objective]] | None = None,
) -> list[pl.LightningModule]:
    """Train a network, then train it anew with its former self as the teacher, again and again.

    Every generation starts from a module and a Trainer of its own. Each loss is the module's own plus the distillation
    terms. `LogitEnsemble` joins the generations into one network.

    Args:
        make_module: Makes a LightningModule with new weights.
        make_trainer: Makes a Trainer with these callbacks, and with those that it needs besides.
        data: What ``Trainer.fit`` takes second: data loaders or a LightningDataModule.
        generations: How many networks learn from another one, at least 1.
        student: Path of the network inside the LightningModule; ``""`` is the module itself.
        teacher: Teacher of the first generation; ``None`` trains one first, like the others but without a teacher.
        make_objectives: Makes the terms of one generation; ``None`` stands for `LogitKD` at temperature 1, weight 1.

    Returns:
        The trained modules from the first to the last; with ``teacher=None`` the one trained alone comes before them.

    Raises:
        SetupError: If a factory gives something else or the same thing twice.
        TapError: If ``student`` names no module.
        ValueError: If ``generations`` is below 1.

    Source:
        Furlanello et al., "Born-Again Neural Networks", arXiv:1805.04770; temperature and weight from memory, checked
        against no code.

    Example:
        >>> import lightning as L
        >>> class Module(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Linear(4, 3)
        ...
        ...     def training_step(self, batch):
        ...         return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.net.parameters(), lr=0.1)
        >>> def make_trainer(callbacks):
        ...     quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        ...     return L.Trainer(
        ...         max_epochs=1, accelerator="cpu", callbacks=callbacks, enable_model_summary=False, **quiet
        ...     )
        >>> data = torch.utils.data.DataLoader([(torch.randn(4), 1), (torch.randn(4), 2)], batch_size=2)
        >>> modules = born_again(Module, make_trainer, data, generations=2, student="net")
        >>> len(modules), LogitEnsemble([module.net for module in modules])(torch.zeros(2, 4)).shape
        (3, torch.Size([2, 3]))
    """
    if generations < 1:
        raise ValueError(f"`generations` must be at least 1, got {generations}.")
    modules: list[pl.LightningModule] = []
    first = 1 if teacher is None else 0
    for generation in range(first + generations):
        module = _new(make_module(), modules)
        callbacks: list[pl.Callback] = []
        if teacher is not None:
            objectives = [LogitKD(temperature=1.0)] if make_objectives is None else list(make_objectives())
            callbacks = [KnowledgeDistillation(teacher, student=student, objectives=objectives)]
        trainer = make_trainer(callbacks)
        if not isinstance(trainer, pl.Trainer):
            raise SetupError(f"`make_trainer` must return a Trainer, got {trainer!r}.")
        trainer.fit(module, data)
        modules.append(module)
        if generation < first + generations - 1:
            # A copy, because a teacher is frozen and the generations are the caller's.
            teacher = copy.deepcopy(resolve_module(module, student, "LightningModule"))
    return modules


class LogitEnsemble(nn.Module):
    """Several networks as one: the mean of their logits.

    Args:
        networks: At least one, all with the same inputs and classes.

    Raises:
        SetupError: If there is none.

    Source:
        Ours; born-again networks are published with ensembles of their generations, whose form we did not check.

    Example:
        >>> LogitEnsemble([nn.Identity(), nn.Flatten()])(torch.ones(1, 2))
        tensor([[1., 1.]])
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise SetupError("`networks` must hold at least one network, got none.")
        self.networks = nn.ModuleList(networks)

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean logits.

        Args:
            args: Of every network.
            kwargs: Of every network.

        Returns:
            What one network returns; of several outputs, the mean of the first or of ``"logits"``.
        """
        outputs = [pick_tensor(network(*args, **kwargs), None, "a network's output") for network in self.networks]
        return torch.stack(outputs).mean(dim=0)


def _new(module: pl.LightningModule, earlier: Sequence[pl.LightningModule]) -> pl.LightningModule:
    if not isinstance(module, pl.LightningModule):
        raise SetupError(f"`make_module` must return a LightningModule, got {module!r}.")
    known = {id(parameter) for other in earlier for parameter in other.parameters()}
    if any(id(parameter) in known for parameter in module.parameters()):
        raise SetupError("`make_module` must make new weights for every generation, got those of an earlier one.")
    return module


def ground_truth_weight(target: Tensor, from_labels: Tensor, from_teacher: Tensor) -> float:
    r"""Share of the ground truth in the target of the next generation that is best on samples held out.

    A generation that learns :math:`\alpha y + (1 - \alpha) f` of labels :math:`y` and its teacher :math:`f` predicts,
    where learning is linear in the target, :math:`\alpha a + (1 - \alpha) b`, with :math:`a` the predictions of a
    network that learnt from the labels alone and :math:`b` of one that learnt from the teacher alone. The squared error
    is smallest at

    .. math::
        \alpha = \frac{\langle y - b, a - b \rangle}{\lVert a - b \rVert^2}, \quad \text{kept between 0 and 1.}

    Use it as ``task_weight``, and the rest as the weight of `LogitKD` at temperature 1.

    Args:
        target: :math:`y`, one-hot labels of samples held out, shape ``(N, C)``, floating point.
        from_labels: :math:`a`, probabilities from 0 to 1, same shape.
        from_teacher: :math:`b`, likewise.

    Returns:
        :math:`\alpha` from 0 to 1; 1 where both predict the same.

    Raises:
        ShapeError: If the shapes differ.

    Source:
        Borup and Andersen, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
        Self-Distillation", arXiv:2102.13088, where the optimum is derived for kernel ridge regression; this form, from
        the same linearity, is ours.

    Example:
        >>> labels, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
        >>> ground_truth_weight(torch.tensor([[0.75, 0.25]]), labels, teacher)
        0.5
    """
    check_same_shape(from_labels, from_teacher, "Predictions")
    check_same_shape(from_labels, target, "Predictions and target")
    y, a, b = (values.double() for values in (target, from_labels, from_teacher))
    difference = (a - b).square().sum()
    if difference == 0:
        return 1.0
    return float((((y - b) * (a - b)).sum() / difference).clamp(0.0, 1.0))
