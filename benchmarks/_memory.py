"""What a training step keeps in memory for its backward pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_kd import Distiller, KnowledgeDistillation, Progress

STEPS = 1_000


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a step needs.

    Attributes:
        saved: Tensors saved for the backward pass, each storage once, without parameters and buffers.
        parameters: Those of the network that is trained, and of the adapters.
        buffers: What objectives remember beside them, such as memory banks.
        peak: Most that the step allocated on the GPU, above what was there; ``None`` without a GPU.
    """

    saved: int
    parameters: int
    buffers: int
    peak: int | None


def plain_memory(student: nn.Module, batch: tuple[Tensor, ...], loss: Callable[[Tensor, Tensor], Tensor]) -> Memory:
    """Memory of the student's own step.

    Args:
        student: The network.
        batch: Images, labels and what else a batch holds.
        loss: The task loss, of the student's output and the labels.
    """
    images, labels, *_ = _moved(batch)
    student = student.to(images.device).train()

    def step() -> Tensor:
        return loss(student(images), labels)

    return Memory(_saved_bytes(step, _held(student)), _bytes(student.parameters()), 0, _peak_bytes(step))


def distilled_memory(
    student: nn.Module,
    kd: KnowledgeDistillation,
    batch: tuple[Tensor, ...],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Memory:
    """Memory of a distilled step, and what the objectives hold all the time.

    Args:
        student: The network.
        kd: What distils it.
        batch: Images, labels and what else a batch holds.
        loss: The task loss, of the student's output and the labels.
    """
    moved = _moved(batch)
    images, labels, *_ = moved
    student = student.to(images.device).train()
    distiller = Distiller(student, kd.teacher, kd.objectives, task_weight=kd.task_weight)
    distiller.build([images] * max(1, -(-distiller.wanted_samples // len(images))))

    def step() -> Tensor:
        with distiller.watch() as calls:
            task = loss(student(images), labels)
        return distiller.losses(task, calls, Progress(total_steps=STEPS), batch=moved).total

    step()  # The first one allocates what stays, and is checked.
    adapters = distiller.adapters
    parameters, buffers = _bytes((*student.parameters(), *adapters.parameters())), _bytes(adapters.buffers())
    saved = _saved_bytes(step, _held(student) | _held(adapters) | _held(kd.teacher))
    memory = Memory(saved, parameters, buffers, _peak_bytes(step))
    distiller.detach()
    return memory


def _moved(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return tuple(tensor.to(device) for tensor in batch)


def _saved_bytes(step: Callable[[], Tensor], held: set[int]) -> int:
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = step()  # While it lives, no storage is freed and its address used again.
    saved = sum(size for address, size in storages.items() if address not in held)
    del graph
    return saved


def _peak_bytes(step: Callable[[], Tensor]) -> int | None:
    if not torch.cuda.is_available():
        return None
    step().backward()  # Gradients stay.
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step().backward()
    return torch.cuda.max_memory_allocated() - before


def _held(module: nn.Module) -> set[int]:
    """Addresses of what the module holds all the time."""
    return {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
