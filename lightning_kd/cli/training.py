"""``lightning-kd fit``, ``validate``, ``test`` and ``predict``: Lightning's own command line.

Every class is named in YAML by its path; the callback is ``lightning_kd.KnowledgeDistillation``.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from lightning_kd.cli._parsing import BriefErrors


class TrainingParser(BriefErrors, LightningArgumentParser):
    """Lightning's parser with brief errors."""


class TrainingCLI(LightningCLI):
    """Lightning's command line, run from `lightning_kd.cli.main`."""

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        # The base warns of arguments in sys.argv, which here are the same ones.
        self.config = parser.parse_args(args)


def run(command: str, arguments: Sequence[str]) -> None:
    """Hand the command to LightningCLI."""
    settings = {"prog": "lightning-kd", command: {"allow_abbrev": False}}
    TrainingCLI(args=[command, *arguments], parser_class=TrainingParser, parser_kwargs=settings)
