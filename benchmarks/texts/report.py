"""The tables of a run with texts: a short one for each model, and every load of every workload."""

import math
from collections.abc import Mapping, Sequence

from benchmarks.report import in_ms, line, title_of, told
from benchmarks.results import Results, Row
from benchmarks.texts.catalog import names
from benchmarks.texts.models import MODELS
from benchmarks.texts.product import NAME
from benchmarks.texts.systems import row_name
from benchmarks.texts.workloads import WORKLOADS
from torchserve_models.loadgen import Summary

AT = 8
"""Where workloads are compared: as many clients as a batch has room for."""


def short(results: Results, workloads: Sequence[str]) -> str:
    """One line a system: new tokens/s, the latency of one request, memory, and our factor at `AT`."""
    loads = [(work, each) for work in workloads for each in results.concurrency if work == "a" or each == AT]
    factors = [work for work in workloads if results.at(row_name(NAME, work), AT)]
    head = ["new tokens/s of (workload) at", *(f"({work}) {each}" for work, each in loads)]
    head += ["p50 at 1, s", "errors", "memory, MB", *(f"our factor, ({work}) {AT}" for work in factors)]
    lines = [line(head), line(["---"] + ["---:"] * (len(head) - 1))]
    for name, rows in by_system(results, workloads).items():
        row = next(iter(rows.values()))
        if row.problem:
            lines.append(line([row.title, f"left out: {told(row.problem)}", *[""] * (len(head) - 2)]))
            continue
        cells = [title_of(row), *(_rate(results.at(row_name(name, work), each)) for work, each in loads)]
        cells += [_alone(rows), _errors(rows), f"{row.memory['pss']:,.0f}" if row.memory else ""]
        cells += [_factor(results, name, work) if row.peer else "" for work in factors]
        lines.append(line(cells))
    return "\n".join(lines)


def whole(results: Results, workload: str) -> str:
    """One line a system and number of clients."""
    head = ["", "at once", "requests/s", "new tokens/s", "ms a new token", "p50, s", "p99, s", "answers"]
    head += ["spread of rounds", "errors"]
    lines = [line(head), line(["---"] + ["---:"] * (len(head) - 1))]
    for rows in by_system(results, [workload]).values():
        [row] = rows.values()
        for concurrency in results.concurrency:
            if summary := row.at(concurrency):
                lines.append(line([title_of(row), str(concurrency), *_cells(row, summary, concurrency)]))
            elif why := _why_not(row, concurrency):
                lines.append(line([title_of(row), str(concurrency), why, *[""] * (len(head) - 3)]))
    return "\n".join(lines)


def by_system(results: Results, workloads: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Rows by system and workload; no system without one."""
    found = {
        name: {w: row for w in workloads if (row := results.rows.get(row_name(name, w)))} for name in names()
    }
    return {name: rows for name, rows in found.items() if rows}


def blocks(found: Mapping[str, Results], workloads: Sequence[str]) -> dict[str, str]:
    """The sections of the report by their headings."""
    sections = {}
    for model, results in found.items():
        title = MODELS[model].title
        sections[title] = short(results, workloads)
        for work in workloads:
            heading = f"{title}, ({work}): {WORKLOADS[work].title}"
            sections[heading] = whole(results, work)
    return sections


def legend(workloads: Sequence[str]) -> str:
    return "; ".join(f"({work}) {WORKLOADS[work].title}" for work in workloads)


def _cells(row: Row, summary: Summary, concurrency: int) -> list[str]:
    errors = ", ".join(f"{count} × {kind}" for kind, count in summary.errors.items()) or "0"
    spread = f"{row.spread.get(concurrency, 0.0):.0%}"
    times = [in_ms(summary.ms_per_token), _seconds(summary.p50), _seconds(summary.p99)]
    return [
        f"{summary.requests_per_second:.2f}", _rate(summary), *times, str(summary.samples), spread, errors,
    ]  # fmt: skip


def _why_not(row: Row, concurrency: int) -> str:
    if row.problem:
        return f"left out: {told(row.problem)}"
    left_out = row.facts.get("left_out", {}).get(str(concurrency))
    return f"left out: {left_out}" if left_out else ""


def _alone(rows: Mapping[str, Row]) -> str:
    """The latency of one request under the first workload that has it."""
    found = [summary.p50 for row in rows.values() if (summary := row.at(1))]
    return _seconds(found[0]) if found else ""


def _errors(rows: Mapping[str, Row]) -> str:
    return str(sum(summary.error_count for row in rows.values() for summary in row.closed.values()))


def _factor(results: Results, name: str, work: str) -> str:
    ours, theirs = results.at(row_name(NAME, work), AT), results.at(row_name(name, work), AT)
    if not ours or not theirs or not theirs.tokens_per_second:
        return ""
    factor = ours.tokens_per_second / theirs.tokens_per_second
    return f"{factor:.1f}×" if factor >= 1 else f"{factor:.2f}×"


def _rate(summary: Summary | None) -> str:
    return f"{summary.tokens_per_second:,.0f}" if summary else ""


def _seconds(milliseconds: float) -> str:
    return "" if math.isnan(milliseconds) else f"{milliseconds / 1000:.2f}"
