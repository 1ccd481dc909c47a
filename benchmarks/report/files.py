"""The files of a run: results.json, table.md, report.md and charts; and the tables in docs/benchmarks.md."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.errors import BenchmarkError, SystemUnavailable, last_line

_HERE = Path(__file__).resolve().parent


def write_report(
    folder: Path, data: Mapping[str, Any], table: str, caption: str, sections: Mapping[str, str]
) -> None:
    """Write results.json, table.md and report.md.

    Args:
        folder: The folder of the files.
        data: The content of results.json, without NaN.
        table: The table for docs/benchmarks.md.
        caption: A sentence about the run.
        sections: Tables of the report by heading; empty tables are omitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    (folder / "table.md").write_text(f"{table}\n\n{caption}\n")
    text = "".join(f"\n## {heading}\n\n{content}\n" for heading, content in sections.items() if content)
    (folder / "report.md").write_text(f"# Benchmark\n\n{caption}\n{text}")


def draw_charts(folder: Path, venvs: Path) -> None:
    """Draw the charts of results.json in the same folder. Raises SystemUnavailable without matplotlib."""
    python = environments.install("charts", venvs, _HERE / "requirements-charts.txt") / "python"
    command = [python, _HERE / "charts.py", folder / "results.json", folder]
    drawing = subprocess.run(command, capture_output=True, text=True)
    if drawing.returncode:
        raise SystemUnavailable(f"matplotlib failed: {last_line(drawing.stderr)}")


def replace_section(page: str, section: str, content: str) -> str:
    """Return a page with new text between the lines `<!-- SECTION -->` and `<!-- /SECTION -->`.

    Raises:
        BenchmarkError: The page does not contain each of these lines exactly once and in this order.
    """
    begin, end = f"<!-- {section} -->\n", f"<!-- /{section} -->\n"
    pattern = re.compile(f"^{re.escape(begin)}.*^{re.escape(end)}", re.DOTALL | re.MULTILINE)
    if len(re.findall(f"^{begin}|^{end}", page, re.MULTILINE)) != 2 or not pattern.search(page):
        raise BenchmarkError(f"the page must contain {begin.strip()} and {end.strip()} once, in this order")
    return pattern.sub(lambda _: f"{begin}{content.strip()}\n{end}", page)
