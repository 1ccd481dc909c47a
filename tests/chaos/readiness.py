"""Compares what probes said with what was answered at that time: false alarms, and outages that they missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.outcomes import Category, Record
from tests.chaos.probes import Sample
from torchserve_models.loadgen import percentile

Interval = tuple[float, float]

GAP_S = 1.0
"""A model whose right answers follow each other within this time is answering."""
SETTLE_S = 2.0
"""Readiness may turn true so long before the first answer, as an answer takes its time, or so long after it."""
SILENT_S = 10.0
"""A model that is asked and answers nothing for longer than this cannot answer within its time..."""
SILENT_TIMES = 3.0
"""...if that is so many times as long as nine of ten of its right answers took."""


@dataclass(frozen=True)
class Verdict:
    """Of one probe. Seconds in which it said no to a model that answered, and yes to one that did not.

    The milliseconds are of the time in which nothing was being started again; a probe without an answer then says
    nothing.
    """

    probes: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    false_alarm_s: float
    missed_s: float


def judge(
    samples: Mapping[str, Sequence[Sample]],
    records: Sequence[Record],
    gap: float = GAP_S,
    down: Sequence[Interval] = (),
) -> dict[str, Verdict]:
    """By model, and under "" for the server, which answers when all models do.

    `down`: when something had been killed or stopped: the proxies that answer probes, or workers, which take every
    core to load their models again.
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
    """When a model surely answered: right answers closely one after another, and none lost or refused meanwhile."""
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
    """When a model was asked and had answered nothing for longer than its time."""
    took = [record.ended - record.started for record in records if record.category is Category.RIGHT]
    limit = max(SILENT_S, SILENT_TIMES * percentile(took, 0.9)) if took else SILENT_S
    ends = sorted(record.ended for record in records if record.category is Category.RIGHT)
    starts = sorted(record.started for record in records)
    last = max((record.ended for record in records), default=0.0)
    intervals = []
    for before, after in pairwise([float("-inf"), *ends, last]):
        asked = next((start for start in starts if before <= start < after), None)
        end = after - SETTLE_S if after in ends else after
        if asked is not None and end - asked > limit:
            intervals.append((asked + limit, end))
    return intervals


def _of(records: Sequence[Record], model: str) -> list[Record]:
    return [record for record in records if record.model == model]


def _verdict(
    samples: Sequence[Sample],
    answering: Sequence[Interval],
    silent: Sequence[Interval],
    down: Sequence[Interval],
) -> Verdict:
    false_alarm = missed = 0.0
    times = [
        sample.milliseconds
        for sample in samples
        if not any(start < sample.at + sample.milliseconds / 1000 and sample.at < end for start, end in down)
    ]
    for sample, after in pairwise(samples):
        lasts = min(after.at - sample.at, 1.0)
        # The state is of some moment until the answer: it is false only if it was false all the time.
        end = sample.at + sample.milliseconds / 1000
        is_answer = sample.status in (200, 503) or not _overlaps(down, sample.at, end)
        if is_answer and not sample.ready and _holds(answering, sample.at, end):
            false_alarm += lasts
        if sample.ready and _holds(silent, sample.at, end):
            missed += lasts
    return Verdict(
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
