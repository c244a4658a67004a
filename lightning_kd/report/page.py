"""What a report is made of, and how it becomes a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lightning_kd.errors import SetupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawing with its caption.

    Args:
        svg: The drawing, an ``<svg>`` element as text; it is put into the page as it is.
        caption: What it shows.
        half: Whether it takes half of a wide page, beside the next one.
    """

    svg: str
    caption: str
    half: bool = False

    kind = "picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under headings; the first column names the row, the others are set flush right.

    Args:
        headings: One per column.
        rows: One entry per column each.
        caption: What it shows.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str

    kind = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page.

    Args:
        heading: Its title.
        text: One paragraph that says what is seen and how it was measured.
        parts: Tables and pictures, in order.
    """

    heading: str
    text: str
    parts: Sequence[Table | Picture] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole page.

    Args:
        title: Its title.
        summary: What was found, in a sentence or two.
        figures: The few numbers that matter, as pairs of value and label.
        sections: The parts, in order.
    """

    title: str
    summary: str
    figures: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()


def render(report: Report) -> str:
    """The page as HTML, without a reference to anything outside it.

    Args:
        report: What to say.

    Returns:
        The document.

    Example:
        >>> "<h1>Digits &amp; more</h1>" in render(Report(title="Digits & more", summary="..."))
        True
    """
    environment = Environment(
        loader=PackageLoader("lightning_kd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=report)


def write_report(report: Report, path: Path | str) -> None:
    """Write the page; a file that is there is replaced once the new one is whole.

    Args:
        report: What to say.
        path: File to write, in an existing folder.

    Raises:
        SetupError: If ``path`` cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".partial")
    try:
        unfinished.write_text(render(report), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise SetupError(f"`path` must be a file that can be written, got {path}: {error.strerror}.") from error
