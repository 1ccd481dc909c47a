"""Markdown tables of a run."""

import math
import re
from collections.abc import Mapping, Sequence

from benchmarks.report.results import Results, Row
from benchmarks.systems.catalog import PRODUCT, REST
from torchserve_models.loadgen import LoadStatistics

COMPARED_CONNECTIONS = 8
"""The number of clients at which systems are compared, which is also the batch size."""


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Return a Markdown table. Only the first `text_columns` columns are left-aligned; missing cells are empty."""
    alignment = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    padded = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join(_format_row(cells) for cells in (header, alignment, *padded))


def _format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def image_table(results: Results) -> str:
    """Return a table with one line per system: requests/s, latencies, memory, and this repository's speedup."""
    low, high = min(results.concurrency), max(results.concurrency)
    product = results.get(REST, high)
    header = ["requests/s at", *map(str, results.concurrency)]
    header += [f"p50 at {low}, ms", f"p50 at {high}", f"p99 at {high}", "errors", "memory, MB"]
    header += [f"our factor at {high}"] if product else []
    return format_table(
        header, [_image_cells(row, results.concurrency, product) for row in results.rows.values()]
    )


def _image_cells(row: Row, concurrency: Sequence[int], product: LoadStatistics | None) -> list[str]:
    if row.problem:
        return [row.title, _format_problem(row.problem)]
    low, high = row.closed.get(min(concurrency)), row.closed.get(max(concurrency))
    rates = [row.closed.get(connections) for connections in concurrency]
    is_server = not row.name.startswith("ceiling")
    cells = [row.full_title]
    cells += [f"{summary.requests_per_second:.1f}" if summary else "" for summary in rates]
    cells += [_format_ms(low.p50 if low else math.nan)]
    cells += [_format_ms(high.p50 if high else math.nan), _format_ms(high.p99 if high else math.nan)]
    cells += [str(row.error_count) if is_server else "", _format_memory(row)]
    if product and row.is_peer and high and high.requests_per_second:
        cells.append(f"{product.requests_per_second / high.requests_per_second:.1f}×")
    return cells


def open_loop_table(results: Results) -> str:
    """Return a table with one line per system and offered rate."""
    header = ["offered requests/s", "", "of its capacity", "good answers/s"]
    header += ["p50, ms", "p90", "p99", "samples", "errors"]
    rows = []
    for row in results.rows.values():
        for rate, share, summary in row.open:
            cells = [row.title, f"{rate:.0f}", f"{share:.0%}", f"{summary.requests_per_second:.0f}"]
            cells += [_format_ms(summary.p50), _format_ms(summary.p90), _format_ms(summary.p99)]
            rows.append([*cells, str(summary.samples), _format_errors(summary)])
    return format_table(header, rows)


def agreement_table(results: Results) -> str:
    """Return a table of the first labels without a server, compared with transformers in fp32."""
    header = ["first label, in process", "as in fp32 eager", "as drawn", "as drawn in fp32 eager"]
    rows = []
    for row in results.rows.values():
        if agreement := row.facts.get("agreement"):
            shares = [
                agreement[key] / agreement["images"] for key in ("same", "correct", "reference_correct")
            ]
            cells = [f"{share:.1%}" for share in shares]
            rows.append([row.full_title, f"{cells[0]} of {agreement['images']}", *cells[1:]])
    return format_table(header, rows) if rows else ""


def short_table(results: Results, workloads: Sequence[str]) -> str:
    """Return a table with one line per system: new tokens/s, latency with one client, memory, and speedups."""
    compared, systems = COMPARED_CONNECTIONS, group_by_system(results)
    loads = [
        (workload, connections)
        for workload in workloads
        for connections in results.concurrency
        if any(results.get(f"{system} {workload}", connections) for system in systems)
    ]
    factors = [w for w in workloads if w != "d" and results.get(f"{PRODUCT} {w}", compared)]
    header = ["new tokens/s of (workload) at", *(f"({workload}) {n}" for workload, n in loads)]
    header += ["p50 at 1, s", "errors", "memory, MB", *(f"our factor, ({w}) {compared}" for w in factors)]
    rows = []
    for name, by_workload in systems.items():
        row = next(iter(by_workload.values()))
        if row.problem:
            rows.append([row.title, _format_problem(row.problem)])
            continue
        cells = [row.full_title, *(_format_rate(results.get(f"{name} {w}", n)) for w, n in loads)]
        cells += [_format_seconds(row.closed[1].p50) if 1 in row.closed else ""]
        cells += [str(sum(row.error_count for row in by_workload.values())), _format_memory(row)]
        cells += [_format_factor(results, name, workload) if row.is_peer else "" for workload in factors]
        rows.append(cells)
    return format_table(header, rows)


def workload_table(results: Results, workload: str) -> str:
    """Return a table with one line per system and number of clients."""
    header = ["", "at once", "requests/s", "new tokens/s", "ms a new token", "p50, s", "p99, s", "answers"]
    header += ["spread of rounds", "errors", "tokens per step", "accepted drafts"]
    rows = []
    for by_workload in group_by_system(results).values():
        if not (row := by_workload.get(workload)):
            continue
        for connections in results.concurrency:
            first_cells = [row.full_title, str(connections)]
            if row.problem:
                rows.append([*first_cells, _format_problem(row.problem)])
            elif summary := row.closed.get(connections):
                drafts = row.facts.get("drafts", {}).get(str(connections), {})
                rows.append([*first_cells, *_format_summary(summary, row.spread[connections], drafts)])
            elif reason := row.skipped.get(connections):
                rows.append([*first_cells, f"skipped: {reason}"])
    return format_table(header, rows)


def group_by_system(results: Results) -> dict[str, dict[str, Row]]:
    """Return the rows by system and workload."""
    groups: dict[str, dict[str, Row]] = {}
    for row in results.rows.values():
        groups.setdefault(row.name.split()[0], {})[row.variant] = row
    return groups


def _format_problem(problem: str) -> str:
    """Return the first line of a problem, with file names in place of absolute paths."""
    line = (problem.strip().splitlines() or [""])[0]
    return "skipped: " + re.sub(r"(?<![\w:/.])/(?:[^\s/]+/)+", "", line)


def _format_errors(summary: LoadStatistics) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in summary.errors.items()) or "0"


def _format_ms(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _format_memory(row: Row) -> str:
    return f"{row.memory['pss']:,.0f}" if row.memory else ""


def _format_summary(summary: LoadStatistics, spread: float, drafts: Mapping[str, float]) -> list[str]:
    cells = [f"{summary.requests_per_second:.2f}", _format_rate(summary), _format_ms(summary.ms_per_token)]
    cells += [_format_seconds(summary.p50), _format_seconds(summary.p99), str(summary.samples)]
    cells += [f"{spread:.0%}", _format_errors(summary)]
    return cells + [f"{drafts['tokens_per_step']:.2f}", f"{drafts['accepted']:.0%}"] if drafts else cells


def _format_factor(results: Results, name: str, workload: str) -> str:
    product = results.get(f"{PRODUCT} {workload}", COMPARED_CONNECTIONS)
    system = results.get(f"{name} {workload}", COMPARED_CONNECTIONS)
    if not product or not system or not system.tokens_per_second:
        return ""
    factor = product.tokens_per_second / system.tokens_per_second
    return f"{factor:.1f}×" if factor >= 1 else f"{factor:.2f}×"


def _format_rate(summary: LoadStatistics | None) -> str:
    return f"{summary.tokens_per_second:,.0f}" if summary else ""


def _format_seconds(milliseconds: float) -> str:
    return "" if math.isnan(milliseconds) else f"{milliseconds / 1000:.2f}"
