"""The page: complete, escaped, without a reference to the outside."""

import re

import pytest

from lightning_kd.errors import SetupError
from lightning_kd.report import Picture, Report, Section, Table, write_report
from lightning_kd.report.page import render

REPORT = Report(
    title="Digits & <letters>",
    summary="What was found.",
    figures=[("96.1 %", "accuracy")],
    sections=[
        Section(
            heading="Latency",
            text="How it was measured.",
            parts=[
                Picture(svg='<svg viewBox="0 0 1 1"><path/></svg>', caption="A drawing."),
                Table(headings=("name", "p50 < 1 ms"), rows=[("a", "1"), ("b", "2")], caption="A table."),
            ],
        )
    ],
)


def test_every_part_is_on_the_page_in_order():
    page = render(REPORT)
    parts = ["Digits &amp; &lt;letters&gt;</h1>", "What was found.", "96.1 %", "accuracy", "<h2>Latency</h2>"]
    parts += [
        "How it was measured.",
        '<svg viewBox="0 0 1 1">',
        "A drawing.",
        "A table.",
        "p50 &lt; 1 ms",
        "<td>2</td>",
    ]
    positions = [page.index(part) for part in parts]
    assert positions == sorted(positions)


def test_the_page_needs_nothing_else():
    page = render(REPORT)
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import|<script|<link", page)


def test_the_page_has_a_dark_form_and_fits_a_phone():
    page = render(REPORT)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport" content="width=device-width' in page


def test_writing_replaces_the_file_and_leaves_no_other(tmp_path):
    (tmp_path / "report.html").write_text("old")
    write_report(REPORT, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(REPORT)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(SetupError, match=r"`path` must be a file that can be written, got .*nowhere.report\.html"):
        write_report(REPORT, tmp_path / "nowhere" / "report.html")
