"""``lightning-kd demo``: the whole path on handwritten digits."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd.cli._console import show, working
from lightning_kd.cli._parsing import CommandParser, add_json_option
from lightning_kd.extras import import_extra


def run(command: str, arguments: Sequence[str]) -> None:
    """Run the demo and print one table."""
    parser = CommandParser(
        command, "Distil, export, verify and profile on handwritten digits that ship with scikit-learn; no download."
    )
    parser.add_argument("--output", metavar="DIR", default="lightning-kd-demo", help="folder of files (%(default)s)")
    parser.add_argument("--fast", action="store_true", help="train and measure too little to mean anything, in seconds")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    demo = import_extra("lightning_kd.demo.run", "report")
    for runtime in EXPORTERS:
        import_runtime(EXPORTERS, runtime)
    programme = demo.FAST if options.fast else demo.FULL
    folder = Path(options.output)
    with working() as progress:
        training = progress.add_task("training the teacher and the students", total=programme.lesson.epochs)
        deployment = progress.add_task("exporting, verifying, profiling", total=programme.deployments)
        result = demo.run_demo(
            programme,
            folder,
            on_epoch=lambda: progress.advance(training),
            on_deployment=lambda: progress.advance(deployment),
        )
    table = Table(title="Handwritten digits: one image on one thread, accuracy on 500 test images")
    for heading in result.headings:
        table.add_column(heading, justify="left" if heading in ("network", "runtime") else "right")
    for row in result.rows:
        table.add_row(*row)
    where = f"The report is in {folder / 'report.html'} ({result.seconds:.0f} s)."
    document = {**result.document(), "report": str(folder / "report.html")}
    show(document, [table, result.verdict, where], as_json=options.json)
