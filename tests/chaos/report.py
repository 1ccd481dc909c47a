"""Report of a run: counts, failed checks and the overall result, as JSON and as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.faults import Fault
from tests.chaos.outcomes import Category, Record
from tests.chaos.readiness import ProbeVerdict
from tests.chaos.resources import MB, ResourceUsage
from tests.chaos.windows import FaultWindow, explain, near, windows
from torchserve_models.loadgen import percentile

EXAMPLES = 12
READY_P99_MS = 50.0
LAG_S = 0.5
"""Maximum lag of readiness, a few probes, that is neither a false alarm nor a missed outage."""
RESTORE_S = 30.0


@dataclass(frozen=True)
class RunResult:
    """Observations of a run. `structure` lists differences in models, versions and worker counts."""

    seed: int
    seconds: float
    via: str
    records: Sequence[Record]
    faults: Sequence[Fault]
    readiness: Mapping[str, ProbeVerdict]
    before: Mapping[str, ResourceUsage]
    after: Mapping[str, ResourceUsage]
    leaks: Sequence[str] = ()
    structure: Sequence[str] = ()
    left_out: int = 0
    errors: Sequence[str] = ()
    ready_p99_ms: float = READY_P99_MS


@dataclass
class RunSummary:
    """Summary of a run.

    Attributes:
        counts: Number of requests by kind and category.
        lost: Number of lost requests that no kill explains.
        lost_in_kill: Number of lost requests that a kill explains, by kind of kill.
        problems: Failed checks; empty if the run passed.
    """

    counts: dict[str, dict[str, int]]
    labels: dict[str, int]
    lost: int
    lost_in_kill: dict[str, int]
    wrong: int
    latency_ms: dict[str, float]
    examples: list[dict[str, Any]]
    recoveries: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)


def summarize(result: RunResult) -> RunSummary:
    fault_windows = windows(result.faults, result.records)
    counts: dict[str, Counter[str]] = {}
    labels: Counter[str] = Counter()
    for record in result.records:
        counts.setdefault(record.kind, Counter())[record.category] += 1
        if record.category is not Category.RIGHT:
            labels[f"{record.kind} {record.category}: {record.label}"] += 1
    lost = [record for record in result.records if record.category is Category.LOST]
    wrong = [record for record in result.records if record.category is Category.WRONG]
    reasons = [explain(record, fault_windows, result.via) for record in lost]
    unexplained = [record for record, reason in zip(lost, reasons, strict=True) if reason is None]
    excused = [record for record, reason in zip(lost, reasons, strict=True) if reason is not None]
    good = [
        1000 * (record.ended - record.started)
        for record in result.records
        if record.kind == "good" and record.category is Category.RIGHT
    ]
    shown = [*wrong, *unexplained, *excused][:EXAMPLES]
    start = min((record.started for record in result.records), default=0.0)
    summary = RunSummary(
        counts={kind: dict(item) for kind, item in counts.items()},
        labels=dict(labels.most_common()),
        lost=len(unexplained),
        lost_in_kill=dict(Counter(reason for reason in reasons if reason)),
        wrong=len(wrong),
        latency_ms={f"p{share}": round(percentile(good, share / 100), 1) for share in (50, 99)},
        examples=[_example(record, result.faults, start) for record in shown],
        recoveries=[
            _recovery(window) for window in fault_windows if window.fault.kind not in ("scale", "version")
        ],
    )
    summary.problems = problems(result, summary, fault_windows)
    return summary


def problems(result: RunResult, summary: RunSummary, fault_windows: Sequence[FaultWindow]) -> list[str]:
    """Return the failed checks."""
    findings = []
    if not summary.counts.get("good", {}).get(Category.RIGHT):
        findings.append("no good request was answered")
    if summary.wrong:
        findings.append(f"{summary.wrong} wrong answers")
    if summary.lost:
        findings.append(f"{summary.lost} requests lost outside of kills")
    for name, verdict in result.readiness.items():
        what = name or "server"
        if verdict.false_alarm_s > LAG_S:
            findings.append(f"readiness of {what}: {verdict.false_alarm_s:.1f} s false while it answered")
        if verdict.missed_s > LAG_S:
            findings.append(f"readiness of {what}: {verdict.missed_s:.1f} s true while it answered nothing")
    server = result.readiness.get("")
    if server and not server.p99_ms <= result.ready_p99_ms:  # without measurements (NaN), the check fails
        findings.append(f"readiness took {server.p99_ms:.0f} ms (p99; {result.ready_p99_ms:.0f} allowed)")
    for window in fault_windows:
        if window.seconds is None or window.seconds > RESTORE_S:
            took = "never" if window.seconds is None else f"after {window.seconds:.0f} s"
            findings.append(f"service came back {took} from: {window.fault.name}")
    findings += [f"{fault.name} failed: {fault.problem}" for fault in result.faults if fault.problem]
    return [*findings, *result.structure, *result.leaks]


def as_json(result: RunResult, summary: RunSummary) -> dict[str, Any]:
    return {
        "seed": result.seed,
        "seconds": round(result.seconds, 1),
        "via": result.via,
        "passed": not summary.problems,
        **asdict(summary),
        "readiness": {name or "server": asdict(verdict) for name, verdict in result.readiness.items()},
        "faults": [asdict(fault) for fault in result.faults],
        "before": {role: asdict(item) for role, item in result.before.items()},
        "after": {role: asdict(item) for role, item in result.after.items()},
        "abuses_left_out": result.left_out,
        "abuse_errors": list(result.errors),
    }


def table(result: RunResult, summary: RunSummary) -> str:
    """Return the report as a table."""
    lines = [f"{result.seconds:.0f} s, seed {result.seed}, via {result.via}", ""]
    columns = [category.value for category in Category]
    lines.append(f"{'requests':12}" + "".join(f"{name:>11}" for name in columns))
    for kind in ("good", "bad", "hostile", "abandoned"):
        if kind in summary.counts:
            row = summary.counts[kind]
            lines.append(f"{kind:12}" + "".join(f"{row.get(name, 0):>11}" for name in columns))
    excused = sum(summary.lost_in_kill.values())
    if excused:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(summary.lost_in_kill.items()))
        lines.append(f"lost during a kill that no retry could hide: {excused} ({kinds})")
    lines.append(f"latency of right answers: {_milliseconds(summary.latency_ms)}")
    lines += [
        "",
        f"{'readiness':18}{'probes':>8}{'p50 ms':>9}{'p99 ms':>9}{'false alarm s':>15}{'missed s':>10}",
    ]
    for name, verdict in result.readiness.items():
        numbers = f"{verdict.probes:>8}{verdict.p50_ms:>9.1f}{verdict.p99_ms:>9.1f}"
        lines.append(f"{name or 'server':18}{numbers}{verdict.false_alarm_s:>15.1f}{verdict.missed_s:>10.1f}")
    lines += ["", f"{'fault':34}{'service back after':>20}"]
    for item in summary.recoveries:
        seconds = item["seconds"]
        lines.append(f"{item['fault']:34}{'never' if seconds is None else f'{seconds:.1f} s':>20}")
    lines += ["", f"{'processes':12}{'before':>24}{'after':>24}"]
    for role, old in result.before.items():
        lines.append(f"{role:12}{_used(old):>24}{_used(result.after.get(role, ResourceUsage(0, 0, 0))):>24}")
    if summary.labels:
        lines += ["", "failed requests:", *(f"  {n:>6} {label}" for label, n in summary.labels.items())]
    lines += ["", *_examples(summary)]
    verdict_line = "PASSED" if not summary.problems else "FAILED"
    return "\n".join([*lines, verdict_line, *(f"  - {problem}" for problem in summary.problems)])


def _examples(summary: RunSummary) -> list[str]:
    findings = [
        f"  {item['category']} after {item['at']:.1f} s: {item['case']} by {item['protocol']}, {item['took']:.2f} s,"
        f" {item['label']}; {item['near']}; {item['message'][:120]}"
        for item in summary.examples
    ]
    return ["examples:", *findings, ""] if findings else []


def _example(record: Record, faults: Sequence[Fault], start: float) -> dict[str, Any]:
    return {
        "at": round(record.started - start, 2),
        "took": round(record.ended - record.started, 3),
        "category": record.category.value,
        "kind": record.kind,
        "case": record.case,
        "protocol": record.protocol,
        "label": record.label,
        "message": record.message,
        "near": near(record, faults),
    }


def _recovery(window: FaultWindow) -> dict[str, Any]:
    return {"fault": window.fault.name, "seconds": window.seconds}


def _used(usage: ResourceUsage) -> str:
    return f"{usage.count} x, {usage.memory // MB} MB, {usage.fds} fds"


def _milliseconds(latencies: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in latencies.items())
