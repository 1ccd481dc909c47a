"""Compare readiness probes with the answers at that time, to find false alarms and missed outages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.outcomes import Category, Record
from tests.chaos.probes import ProbeSample
from torchserve_models.loadgen import percentile

Interval = tuple[float, float]

GAP_S = 1.0
"""Maximum time between right answers of a model that is answering."""
SETTLE_S = 2.0
"""Maximum time between the first answer after an outage and the change of readiness, in either order."""
SILENT_S = 10.0
"""Minimum time without an answer, while requests are pending, after which a model is silent."""
SILENT_TIMES = 3.0
"""Factor: a model is silent only after this many times the p90 latency of its right answers."""


@dataclass(frozen=True)
class ProbeVerdict:
    """Evaluation of the probes of one model or of the server.

    Latencies exclude the periods in which a component was down.

    Attributes:
        false_alarm_s: Seconds in which probes reported not ready while the model answered requests.
        missed_s: Seconds in which probes reported ready while the model answered no request.
    """

    probes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    false_alarm_s: float
    missed_s: float


def judge(
    samples: Mapping[str, Sequence[ProbeSample]],
    records: Sequence[Record],
    gap: float = GAP_S,
    down: Sequence[Interval] = (),
) -> dict[str, ProbeVerdict]:
    """Return the verdict for each model; the key "" is the server, which answers while all models answer.

    Args:
        samples: Results of the probes by model.
        records: Records of the requests.
        gap: Maximum time between right answers of a model that is answering.
        down: Periods in which a process was killed, stopped or starting again, which delays or prevents answers to
            probes.
    """
    good = [record for record in records if record.kind == "good"]
    models = sorted({record.model for record in good})
    answering = {model: answering_intervals(_of(good, model), gap) for model in models}
    silent = {model: silent_intervals(_of(good, model)) for model in models}
    answering[""] = _intersection(list(answering.values()))
    silent[""] = sorted(interval for intervals in silent.values() for interval in intervals)
    return {
        name: _verdict(several, answering.get(name, []), silent.get(name, []), down)
        for name, several in samples.items()
    }


def answering_intervals(records: Sequence[Record], gap: float = GAP_S) -> list[Interval]:
    """Return the periods with right answers in short intervals and without lost or refused requests."""
    ends = sorted(record.ended for record in records if record.category is Category.RIGHT)
    failed = [(record.started, record.ended) for record in records if record.category is not Category.RIGHT]
    intervals: list[Interval] = []
    for before, after in pairwise(ends):
        if after - before > gap or any(start < after and end > before for start, end in failed):
            continue
        if intervals and intervals[-1][1] == before:
            intervals[-1] = (intervals[-1][0], after)
        else:
            intervals.append((before, after))
    return [(start + SETTLE_S, end) for start, end in intervals if end - start > SETTLE_S]


def silent_intervals(records: Sequence[Record]) -> list[Interval]:
    """Return the periods in which requests were pending and the model had not answered for longer than its limit."""
    took = [record.ended - record.started for record in records if record.category is Category.RIGHT]
    limit = max(SILENT_S, SILENT_TIMES * percentile(took, 0.9)) if took else SILENT_S
    ends = sorted(record.ended for record in records if record.category is Category.RIGHT)
    starts = sorted(record.started for record in records)
    last = max((record.ended for record in records), default=0.0)
    intervals = []
    for before, after in pairwise([float("-inf"), *ends, last]):
        pending_since = next((start for start in starts if before <= start < after), None)
        end = after - SETTLE_S if after in ends else after
        if pending_since is not None and end - pending_since > limit:
            intervals.append((pending_since + limit, end))
    return intervals


def _of(records: Sequence[Record], model: str) -> list[Record]:
    return [record for record in records if record.model == model]


def _verdict(
    samples: Sequence[ProbeSample],
    answering: Sequence[Interval],
    silent: Sequence[Interval],
    down: Sequence[Interval],
) -> ProbeVerdict:
    false_alarm = missed = 0.0
    times = [
        sample.milliseconds
        for sample in samples
        if not any(start < sample.at + sample.milliseconds / 1000 and sample.at < end for start, end in down)
    ]
    for sample, after in pairwise(samples):
        lasts = min(after.at - sample.at, 1.0)
        # A probe reports the state at some moment before its answer: it is wrong only if wrong at every moment.
        end = sample.at + sample.milliseconds / 1000
        is_answer = sample.status in (200, 503) or not _overlaps(down, sample.at, end)
        if is_answer and not sample.ready and _holds(answering, sample.at, end):
            false_alarm += lasts
        if sample.ready and _holds(silent, sample.at, end):
            missed += lasts
    return ProbeVerdict(
        len(samples),
        percentile(times, 0.5),
        percentile(times, 0.99),
        max(times, default=float("nan")),
        round(false_alarm, 2),
        round(missed, 2),
    )


def _holds(intervals: Sequence[Interval], start: float, end: float) -> bool:
    return any(first <= start and end <= last for first, last in intervals)


def _overlaps(intervals: Sequence[Interval], start: float, end: float) -> bool:
    return any(first < end and start < last for first, last in intervals)


def _intersection(several: Sequence[Sequence[Interval]]) -> list[Interval]:
    if not several:
        return []
    common = list(several[0])
    for other in several[1:]:
        common = [(max(a, c), min(b, d)) for a, b in common for c, d in other if max(a, c) < min(b, d)]
    return common
