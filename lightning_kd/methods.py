"""What can be distilled: one row per method, with what it moves, needs and costs, and who published it."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Method:
    """A method of distillation.

    Attributes:
        name: As published.
        objective: Class in `lightning_kd.objectives` that computes it.
        recipe: Function in `lightning_kd.recipes` that returns it ready to use; empty if there is none.
        moves: What goes from teacher to student.
        needs: What must be there, beyond a teacher and a student.
        cost: Of the loss and its adapters, beside both networks: N samples, K classes, L tokens, C and D widths, HW
            cells, H heads.
        source: Publication.
    """

    name: str
    objective: str
    recipe: str
    moves: str
    needs: str
    cost: str
    source: str


def _read() -> tuple[Method, ...]:
    text = resources.files(__package__).joinpath("methods.csv").read_text(encoding="utf-8")
    return tuple(Method(**row) for row in csv.DictReader(text.splitlines()))


METHODS = _read()


def methods_matching(words: Sequence[str]) -> list[Method]:
    """Methods whose row has every one of ``words``, in upper or lower case.

    Args:
        words: What to look for; none finds all.

    Returns:
        The methods, in the order of `METHODS`.

    Example:
        >>> [method.name for method in methods_matching(["labels", "apart"])]
        ['DKD', 'NKD']
    """
    rows = [(method, " ".join(astuple(method)).lower()) for method in METHODS]
    return [method for method, row in rows if all(word.lower() in row for word in words)]


def markdown_table(methods: Sequence[Method]) -> str:
    """The methods as a Markdown table.

    Args:
        methods: Rows.

    Returns:
        The table, with a line feed at its end.
    """
    lines = ["| method | objective | recipe | moves | needs | cost of the loss | source |", "|" + "---|" * 7]
    for method in methods:
        recipe = f"`{method.recipe}`" if method.recipe else ""
        cells = (method.name, f"`{method.objective}`", recipe, method.moves, method.needs, method.cost, method.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
