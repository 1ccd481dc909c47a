"""The files of a run, and the sections of docs/benchmarks.md."""

import json

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.report import files
from benchmarks.runs import DOCS_PAGE


def test_report_files_are_complete_and_the_json_is_valid(tmp_path):
    data = {"systems": [{"p50": None, "rates": (1.0, 2.0)}]}
    files.write_report(tmp_path / "out", data, "a table", "On a machine.", {"A": "text", "B": ""})
    content = (tmp_path / "out" / "results.json").read_text()
    assert json.loads(content, parse_constant=pytest.fail) == {"systems": [{"p50": None, "rates": [1, 2]}]}
    assert (tmp_path / "out" / "table.md").read_text() == "a table\n\nOn a machine.\n"
    assert (tmp_path / "out" / "report.md").read_text() == "# Benchmark\n\nOn a machine.\n\n## A\n\ntext\n"


def test_section_is_replaced_and_the_rest_of_the_page_is_kept():
    page = "before\n<!-- a -->\nold\n<!-- /a -->\n<!-- a-b -->\né\n<!-- /a-b -->\nafter\n"
    assert files.replace_section(page, "a", "new \\1\n") == page.replace("old", "new \\1")
    assert files.replace_section(page, "a-b", "new\n") == page.replace("é", "new")


@pytest.mark.parametrize("markers", ["", "{0}", "{1}{0}", "{0}{0}{1}", "text {0}{1}"])
def test_page_without_the_markers_of_a_section_is_an_error(markers):
    with pytest.raises(BenchmarkError, match="once, in this order"):
        files.replace_section(markers.format("<!-- a -->\n", "<!-- /a -->\n"), "a", "new")


@pytest.mark.parametrize("section", ["bench", "bench-avx2", "bench-texts", "bench-texts-avx2"])
def test_docs_page_has_the_section(section):
    assert "new" in files.replace_section(DOCS_PAGE.read_text("utf-8"), section, "new")
