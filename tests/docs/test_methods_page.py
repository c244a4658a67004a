"""The pages with tables show the rows of the methods and the figures of the result files, and nothing else."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def document(monkeypatch):
    """The script that writes the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("_document")


def test_the_tables_are_those_of_the_rows_and_the_result_files(document):
    names = ("methods.md", "coverage.md", "latency_results.md")
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in names]
    assert [document.with_tables(page) for page in pages] == pages, "run: make docs"
    assert all(f"<!-- table: {name} -->" in "".join(pages) for name in document.tables())


def test_a_method_that_does_not_apply_says_why(document):
    row = {"method": "deit", "obstacle": "needs a student that reads a class token"}
    alone = {"method": "alone", "accuracy_last": [49.0, 50.0, 51.0], "mean_best": 51.0}
    result = {"pairs": {"one": {"student": "CNN", "rows": [alone, row]}}}
    assert document.accuracy_table(result).splitlines()[2:] == [
        "| `alone` | 50.0 ± 1.0 | 51.0 |  |",
        "| `deit` | needs a student that reads a class token |  |  |",
    ]
