"""Whether two recognisers speak of the same labels."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_kd.errors import SetupError


def configured(model: nn.Module, name: str) -> int | None:
    """What the configuration of a transformers model says, or that of one inside ``model``; ``None`` if nothing does.

    Args:
        model: Any module.
        name: Attribute of its ``config``.

    Returns:
        The number.
    """
    for module in model.modules():
        value = getattr(getattr(module, "config", None), name, None)
        if isinstance(value, int):
            return value
    return None


def blank_of(student: nn.Module, teacher: nn.Module) -> int:
    """Index of the blank, which transformers' CTC models have as ``config.pad_token_id``.

    Args:
        student: The student.
        teacher: The teacher.

    Returns:
        The index.

    Raises:
        SetupError: If neither says so, or both say different things.
    """
    blanks = {"student": configured(student, "pad_token_id"), "teacher": configured(teacher, "pad_token_id")}
    found = {index for index in blanks.values() if index is not None}
    if len(found) > 1:
        raise SetupError(
            f"the blank is class {blanks['student']} of the student and {blanks['teacher']} of the teacher: they have "
            "different label sets. Give both the same tokenizer."
        )
    if not found:
        raise SetupError(
            "`blank` must be given, got None: no config.pad_token_id of a CTC model says which class it is."
        )
    return found.pop()


def check_same_vocabulary(student: Mapping[str, int], teacher: Mapping[str, int]) -> None:
    """Raise `SetupError` unless both tokenizers give every token the same index.

    Networks with as many classes can still mean different things by them, which no shape shows.

    Args:
        student: The student's vocabulary, token to index: ``tokenizer.get_vocab()``.
        teacher: The teacher's.

    Raises:
        SetupError: If they differ; the message names the first tokens that do.

    Example:
        >>> check_same_vocabulary({"a": 0, "b": 1}, {"a": 1, "b": 0})
        Traceback (most recent call last):
        lightning_kd.errors.SetupError: the tokenizers of student and teacher differ in 2 of 2 tokens, first 'a': ...
    """
    names = sorted(student.keys() | teacher.keys())
    wrong = [name for name in names if student.get(name) != teacher.get(name)]
    if wrong:
        first = wrong[0]
        raise SetupError(
            f"the tokenizers of student and teacher differ in {len(wrong)} of {len(names)} tokens, first {first!r}: "
            f"{student.get(first)} of the student, {teacher.get(first)} of the teacher. Distillation of class scores "
            "needs one tokenizer for both: make the student with the teacher's."
        )


def check_same_tokenizer(student: Any, teacher: Any) -> None:
    """`check_same_vocabulary` of two tokenizers of transformers.

    Args:
        student: The student's tokenizer.
        teacher: The teacher's.

    Raises:
        SetupError: If they differ.
    """
    check_same_vocabulary(student.get_vocab(), teacher.get_vocab())
