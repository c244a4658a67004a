"""What an operator is given, by the names that MIL has for its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Arguments:
    """Inputs of one operator.

    Numbers of every kind are tensors: floating-point ones in float32, integers in int64. Text is ``str``, and a list of
    tensors a list.

    Args:
        values: The inputs by name; absent ones are left out.
    """

    values: Mapping[str, Any]

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name``."""
        return cast(Tensor, self.values[name])

    def optional(self, name: str) -> Tensor | None:
        """The tensor ``name``, or ``None`` where the operator was given none."""
        return self.values.get(name)

    def tensors(self, name: str) -> list[Tensor]:
        """The list of tensors ``name``."""
        return list(self.values[name])

    def integer(self, name: str) -> int:
        """The whole number ``name``."""
        return int(self.tensor(name))

    def integers(self, name: str) -> list[int]:
        """The whole numbers ``name``."""
        return [int(value) for value in self.tensor(name).flatten().tolist()]

    def number(self, name: str) -> float:
        """The number ``name``."""
        return float(self.tensor(name))

    def flag(self, name: str) -> bool:
        """Whether ``name`` is set."""
        return bool(self.tensor(name))

    def flags(self, name: str) -> list[bool]:
        """Whether each of ``name`` is set."""
        return [bool(value) for value in self.tensor(name).flatten().tolist()]

    def text(self, name: str) -> str:
        """The text ``name``."""
        return str(self.values[name])


Operator = Callable[[Arguments], Tensor | Sequence[Tensor]]
"""One operator: its inputs in, its output or outputs out. The evaluator rounds them to the declared types."""
