"""``lightning-kd methods``: what can be distilled, what it needs, what it costs and who published it."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from lightning_kd.cli._console import show
from lightning_kd.cli._parsing import CommandParser, add_json_option
from lightning_kd.methods import METHODS, Method, markdown_table, methods_matching


def run(command: str, arguments: Sequence[str]) -> None:
    """Print the methods as a table, as JSON or as Markdown."""
    parser = CommandParser(command, "List the methods of distillation: what each moves, needs and costs, its source.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="show only methods whose row has all of these words")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/methods.md")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    methods = methods_matching(options.words)
    if options.markdown:
        sys.stdout.write(markdown_table(methods))
        return
    remarks = [f"{len(methods)} of {len(METHODS)} methods. N: samples, K: classes, L: tokens, C, D: widths, HW: cells."]
    document = {"methods": [asdict(method) for method in methods]}
    show(document, [_table(methods), *remarks], as_json=options.json)


def _table(methods: Sequence[Method]) -> Table:
    table = Table(title="Methods")
    for column in ("method", "recipe", "moves", "needs", "cost of the loss", "source"):
        table.add_column(column, overflow="fold")
    for method in methods:
        recipe = f"recipes.{method.recipe}" if method.recipe else method.objective
        table.add_row(method.name, recipe, method.moves, method.needs, method.cost, method.source)
    return table
