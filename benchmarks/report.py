"""What a run found, for people: Markdown tables, the section of docs/benchmarks.md, images; and as JSON."""

import json
import math
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.agreement import Agreement
from benchmarks.bars import Bar
from benchmarks.errors import BenchError, Unavailable, last_line
from benchmarks.results import Results, Row
from benchmarks.systems.catalog import REST
from torchserve_models.loadgen import Summary

SECTION, TEXTS_SECTION = "bench", "bench-texts"
"""Of docs/benchmarks.md: what stands between `<!-- bench -->` and `<!-- /bench -->`, for images and for texts."""
_HERE = Path(__file__).resolve().parent


def table(results: Results) -> str:
    """One line a system: requests/s at each concurrency, latency at the least and the most, memory, our factor."""
    low, high = min(results.concurrency), max(results.concurrency)
    rates = [f"{concurrency}" for concurrency in results.concurrency]
    head = [
        "requests/s at",
        *rates,
        f"p50 at {low}, ms",
        f"p50 at {high}",
        f"p99 at {high}",
        "errors",
        "memory, MB",
    ]
    ours = results.at(REST, high)
    head += [f"our factor at {high}"] if ours else []
    lines = [line(head), line(["---"] + ["---:"] * (len(head) - 1))]
    for row in results.rows.values():
        if row.problem:
            lines.append(line([row.title, f"left out: {told(row.problem)}", *[""] * (len(head) - 2)]))
        else:
            lines.append(line(_cells(row, results.concurrency, ours)))
    return "\n".join(lines)


def _cells(row: Row, concurrency: Sequence[int], ours: Summary | None) -> list[str]:
    low, high = row.at(min(concurrency)), row.at(max(concurrency))
    served = row.name not in ("ceiling", "ceiling-int8")
    errors = sum(summary.error_count for summary in row.closed.values())
    cells = [
        title_of(row),
        *(_rate(row.at(each)) for each in concurrency),
        in_ms(low.p50 if low else math.nan),
    ]
    cells += [in_ms(high.p50 if high else math.nan), in_ms(high.p99 if high else math.nan)]
    cells += [str(errors) if served else "", f"{row.memory.get('pss', math.nan):,.0f}" if row.memory else ""]
    if ours is not None:
        factor = (
            ours.requests_per_second / high.requests_per_second if high and high.requests_per_second else None
        )
        cells.append(f"{factor:.1f}×" if factor and row.peer else "")
    return cells


def title_of(row: Row) -> str:
    """With the engine and the precision, where they are known."""
    facts = [str(row.facts[key]) for key in ("engine", "precision") if row.facts.get(key)]
    return f"{row.title} ({', '.join(facts)})" if facts else row.title


def told(problem: str) -> str:
    """Its first line, and of a path only the last part: the rest is about this machine."""
    return re.sub(r"(?<![\w:/.])/(?:[^\s/]+/)+", "", (problem.strip().splitlines() or [""])[0])


def open_table(results: Results) -> str:
    """One line a system and offered rate: one pass each, no medians."""
    head = ["offered requests/s", "", "of its capacity", "good answers/s", "p50, ms", "p90", "p99", "samples"]
    head += ["errors"]
    lines = [line(head), line(["---"] + ["---:"] * (len(head) - 1))]
    for row in results.rows.values():
        for rate, share, summary in row.open:
            numbers = [f"{rate:.0f}", f"{share:.0%}", f"{summary.requests_per_second:.0f}"]
            latencies = [in_ms(summary.p50), in_ms(summary.p90), in_ms(summary.p99)]
            errors = ", ".join(f"{count} × {kind}" for kind, count in summary.errors.items()) or "0"
            lines.append(line([row.title, *numbers, *latencies, str(summary.samples), errors]))
    return "\n".join(lines)


def bars_table(bars: Sequence[Bar]) -> str:
    words = {True: "yes", False: "**no**", None: "not known"}
    lines = [line(["promise", "measured", "bar", "met"]), line(["---"] * 4)]
    return "\n".join([*lines, *(line([bar.what, bar.measured, bar.bar, words[bar.met]]) for bar in bars)])


def agreement_table(agreements: Sequence[Agreement]) -> str:
    lines = [
        line(["first label, in process", "precision", "as in fp32 eager", "as drawn"]),
        line(["---", "---", "---:", "---:"]),
    ]
    for each in agreements:
        shares = f"{each.share:.1%} of {each.images}", f"{each.right / each.images:.1%}"
        lines.append(line([each.name, each.precision, *shares]))
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def _rate(summary: Summary | None) -> str:
    return f"{summary.requests_per_second:.1f}" if summary else ""


def in_ms(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def write(
    folder: Path, results: Results, sentence: str, extra: dict[str, Any], blocks: dict[str, str]
) -> None:
    """The files of `write_files`, of one comparison."""
    rows = [row.as_json() for row in results.rows.values()]
    everything = {**extra, "concurrency": results.concurrency, "systems": rows}
    write_files(folder, everything, table(results), sentence, blocks)


def write_files(
    folder: Path, everything: dict[str, Any], short: str, sentence: str, blocks: dict[str, str]
) -> None:
    """Writes results.json, table.md (`short`) and report.md, whose sections `blocks` has by their headings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(_without_nan(everything), indent=2) + "\n")
    (folder / "table.md").write_text(f"{short}\n\n{sentence}\n")
    sections = "".join(f"\n## {heading}\n\n{text}\n" for heading, text in blocks.items() if text)
    (folder / "report.md").write_text(f"# Benchmark\n\n{sentence}\n{sections}")


def draw(folder: Path, venvs: Path) -> None:
    """Draws the images of `folder`/results.json there. Raises Unavailable where matplotlib cannot be had."""
    python = environments.ready("charts", venvs, _HERE / "requirements-charts.txt") / "python"
    command = [python, _HERE / "charts.py", folder / "results.json", folder]
    drawn = subprocess.run(command, capture_output=True, text=True)
    if drawn.returncode:
        raise Unavailable(f"not drawn: {last_line(drawn.stderr)}")


def into_page(page: Path, content: str, section: str = SECTION) -> None:
    """Replaces what stands between the two markers. Raises BenchError unless each is there once."""
    before, after = around_markers(page, section)
    begin, end = _markers(section)
    page.write_text(f"{before}{begin}\n{content.strip()}\n{end}{after}", encoding="utf-8")


def around_markers(page: Path, section: str = SECTION) -> tuple[str, str]:
    """What stands before and after the section of the markers. Raises BenchError unless each is there once."""
    begin, end = _markers(section)
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in rest or end in after:
        raise BenchError(f"{page.name} needs the markers {begin} and {end}, once each")
    return before, after


def _markers(section: str) -> tuple[str, str]:
    return f"<!-- {section} -->", f"<!-- /{section} -->"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return value
