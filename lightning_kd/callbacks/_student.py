"""Finding a LightningModule's student and the inputs it is trained on, before training starts."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from exporters.example import ExampleInputs
from lightning_kd.errors import KDError, SetupError, TapError
from lightning_kd.taps import Inputs, module_paths, resolve_module

MAX_BATCH = 64


class _InputsSeen(BaseException):
    """Carries a call's arguments out of the user's step, past any ``except Exception`` there."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs


def find_student(pl_module: pl.LightningModule, path: str) -> nn.Module:
    """Find the student inside a LightningModule.

    Args:
        pl_module: The module in training. Its ``configure_model`` is called, which Lightning asks to be idempotent.
        path: Dotted path, ``""`` for the module itself.

    Returns:
        The student.

    Raises:
        SetupError: If ``path`` names no module.
    """
    if is_overridden("configure_model", pl_module):
        pl_module.configure_model()
    try:
        return resolve_module(pl_module, path, "LightningModule")
    except TapError as error:
        raise SetupError(
            f"`student`: {error} Layers made in LightningModule.setup() do not exist yet when callbacks are set up: "
            "make them in __init__() or configure_model()."
        ) from None


def training_inputs(
    trainer: pl.Trainer, pl_module: pl.LightningModule, student: nn.Module, samples: int
) -> list[Inputs]:
    """Inputs that the student gets in training, without training it.

    The module's ``example_input_array`` serves if it holds as many samples as asked for; else batches are drawn from
    the training data and each is followed through ``training_step`` up to the student's first call, where the step is
    abandoned. Data sets with an index are read directly, so that no sampler, worker or generator notices.

    Args:
        trainer: The Trainer.
        pl_module: The module in training.
        student: The student inside it.
        samples: How many samples are wanted, in all batches together; 1 for shapes alone.

    Returns:
        The student's inputs, batch by batch, all of one batch size.

    Raises:
        SetupError: If no batch can be drawn, or the step does not reach the student.
    """
    example = Inputs.of(pl_module.example_input_array)
    if any(tensor.ndim and len(tensor) >= samples for tensor in example.tensors()):
        return [_reach(student, partial(pl_module, *example.args, **example.kwargs))]
    try:
        batches = _batches(trainer, pl_module, samples)
        cpu = torch.device("cpu")
        return [_reach(student, partial(_step, pl_module, batch)).to(cpu) for batch in batches]
    except KDError:
        raise
    except Exception as error:
        raise SetupError(
            f"could not follow a training batch to the student ({type(error).__name__}: {error}): pass "
            "example_inputs=, one input of the student, to the callback."
        ) from error


def student_example(
    trainer: pl.Trainer, pl_module: pl.LightningModule, student: nn.Module, *, batch_size: int
) -> ExampleInputs:
    """Real inputs of the student in the form that exporters take.

    Args:
        trainer: The Trainer.
        pl_module: The module in training.
        student: The student inside it.
        batch_size: Samples to keep.

    Returns:
        A tuple of positional tensors, or a dict of keyword tensors.

    Raises:
        SetupError: If no input can be found, it is smaller, or given partly by position and partly by keyword.
    """
    with isolate_rng():
        inputs = training_inputs(trainer, pl_module, student, batch_size)[0]
    values = [*inputs.args, *inputs.kwargs.values()]
    if (inputs.args and inputs.kwargs) or not all(isinstance(value, torch.Tensor) for value in values):
        raise SetupError(
            f"the student is called with {len(inputs.args)} positional arguments and keywords {list(inputs.kwargs)}; "
            "an export needs tensors, all of one kind: pass example_inputs= to the callback."
        )
    if any(len(value) < batch_size for value in values):
        raise SetupError(
            f"`batch_size` must not exceed the training batch of {min(map(len, values))} samples, got {batch_size}: "
            "train on larger batches, or set the module's example_input_array."
        )
    if inputs.kwargs:
        return {name: value[:batch_size].cpu() for name, value in inputs.kwargs.items()}
    return tuple(value[:batch_size].cpu() for value in inputs.args)


def _reach(student: nn.Module, run: Callable[[], object]) -> Inputs:
    """Run until ``student`` is called, and return the arguments of that call."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _InputsSeen(Inputs(args, kwargs))

    handle = student.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            run()
    except _InputsSeen as seen:
        return seen.inputs
    finally:
        handle.remove()
    raise SetupError("the training step ended without calling the student.")


def _step(pl_module: pl.LightningModule, batch: Any) -> object:
    device = next((parameter.device for parameter in pl_module.parameters()), torch.device("cpu"))
    batch = pl_module.on_before_batch_transfer(batch, 0)
    batch = pl_module.transfer_batch_to_device(batch, device, 0)
    batch = pl_module.on_after_batch_transfer(batch, 0)
    parameters = inspect.signature(pl_module.training_step).parameters
    return pl_module.training_step(batch, 0) if len(parameters) > 1 else pl_module.training_step(batch)


def _batches(trainer: pl.Trainer, pl_module: pl.LightningModule, samples: int) -> Iterator[Any]:
    source = trainer.fit_loop._data_source  # noqa: SLF001 - the only place that knows loaders passed to fit()
    if not source.is_defined():
        raise SetupError(f"`trainer.fit` was given no training data, and {type(pl_module).__name__} has none.")
    loaders = source.dataloader()
    if isinstance(loaders, DataLoader) and not isinstance(loaders.dataset, IterableDataset) and loaders.batch_sampler:
        return _indexed_batches(loaders, samples)
    combined = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders, "max_size_cycle")
    return _streamed_batches(combined, samples)


def _indexed_batches(loader: DataLoader[Any], samples: int) -> Iterator[Any]:
    dataset: Dataset[Any] = loader.dataset
    available = len(dataset)  # type: ignore[arg-type]
    if available == 0:
        raise SetupError("the training data set is empty.")
    size = min(loader.batch_size or MAX_BATCH, MAX_BATCH, available, max(samples, 2))
    count = max(1, min(samples, available) // size)
    order = torch.randperm(available, generator=torch.Generator().manual_seed(0))[: size * count].tolist()
    for start in range(0, size * count, size):
        yield loader.collate_fn([dataset[index] for index in order[start : start + size]])


def _streamed_batches(loader: Iterable[Any], samples: int) -> Iterator[Any]:
    stream = iter(loader)
    first, *_ = next(stream)
    yield first
    size = _batch_size(first)
    for batch, *_ in islice(stream, max(0, samples // size - 1)):
        if _batch_size(batch) == size:
            yield batch


def _batch_size(batch: Any) -> int:
    leaves, _ = torch.utils._pytree.tree_flatten(batch)  # noqa: SLF001
    return next((len(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim), 1)


@contextmanager
def naming_those_that_run(pl_module: nn.Module) -> Iterator[list[str]]:
    """Collect the paths of the submodules that run in this block, outermost and first to run first."""
    ran: list[str] = []
    handles = [
        module.register_forward_pre_hook(partial(_note, ran, path))
        for path, module in module_paths(pl_module).items()
        if path
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()
        ran[:] = [path for path in dict.fromkeys(ran) if not any(path.startswith(other + ".") for other in ran)]


def _note(ran: list[str], path: str, *_: object) -> None:
    ran.append(path)
