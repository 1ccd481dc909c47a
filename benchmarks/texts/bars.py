"""What the project promises of its summaries' speed, line by line: what was measured, and whether it holds here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.bars import NO_ANSWER, Bar
from benchmarks.results import Results
from benchmarks.texts.catalog import IN_PROCESS, LIBRARIES, TUTORIAL
from benchmarks.texts.models import BART_LARGE, MODELS, T5_SMALL
from benchmarks.texts.product import NAME
from benchmarks.texts.systems import MEMORY_AT, row_name
from benchmarks.texts.workloads import WORKLOADS
from torchserve_models.loadgen import Summary

AT = 8
OVER_TUTORIAL = {
    (T5_SMALL.name, "a"): (8.0, 12.0),
    (BART_LARGE.name, "a"): (6.0, 10.0),
    (T5_SMALL.name, "b"): (6.0, None),
    (BART_LARGE.name, "b"): (6.0, None),
    (T5_SMALL.name, "c"): (3.0, None),
    (BART_LARGE.name, "c"): (3.0, None),
}
"""By model and workload: at least so many times the new tokens/s, and what is aimed at."""
OVER_BF16, AIM_OVER_BF16 = 1.8, 3.0
OF_P50 = 0.6
OF_CEILING = 0.9
MEMORY_MB = 4000.0

Verdict = tuple[str, bool | None] | None


@dataclass(frozen=True)
class Found:
    """The results of one model."""

    model: str
    results: Results

    def at(self, server: str, work: str, concurrency: int) -> Summary | None:
        return self.results.at(row_name(server, work), concurrency)


def bars(found: Mapping[str, Results]) -> list[Bar]:
    """Every line, the same ones always; `found` has the results by the models' names."""
    nothing = Results({}, ())
    lines = []
    for name in MODELS:
        lines += _of_model(Found(name, found.get(name, nothing)))
    what = f"{BART_LARGE.title}, most memory of a worker at {MEMORY_AT}"
    large = Found(BART_LARGE.name, found.get(BART_LARGE.name, nothing))
    return [*lines, _bar(what, f"under {MEMORY_MB / 1000:.0f} GB", partial(_memory, large))]


def _of_model(of: Found) -> list[Bar]:
    title = MODELS[of.model].title
    rate, tutorial = f"{title}, new tokens/s at {AT} over", "FastAPI with generate(), fp32"
    lines = []
    for work in WORKLOADS:
        least, aim = OVER_TUTORIAL[of.model, work]
        wanted = f"at least {least:.0f} times" + (f" (aim {aim:.0f})" if aim else "")
        lines.append(_bar(f"{rate} {tutorial}, ({work})", wanted, partial(_tutorial, of, work, least)))
    wanted = f"at least {OVER_BF16} times (aim {AIM_OVER_BF16:.0f})"
    find = partial(_best, of, (IN_PROCESS,), OVER_BF16)
    lines.append(_bar(f"{rate} generate() in process, bf16, (a)", wanted, find))
    lines.append(_bar(f"{title}, p50 at 1 over {tutorial}, (a)", f"at most {OF_P50}", partial(_latency, of)))
    find = partial(_best, of, LIBRARIES, OF_CEILING)
    lines.append(_bar(f"{rate} the best library in process, (a)", f"at least {OF_CEILING}", find))
    return lines


def _bar(what: str, wanted: str, find: Callable[[], Verdict]) -> Bar:
    verdict = find()
    return Bar(what, verdict[0], wanted, verdict[1]) if verdict else Bar(what, "not measured", wanted, None)


def _tutorial(of: Found, work: str, least: float) -> Verdict:
    return _over(of.at(NAME, work, AT), of.at(TUTORIAL, work, AT), least)


def _best(of: Found, others: tuple[str, ...], least: float) -> Verdict:
    """Over the best of the others that there are."""
    measured = {name: summary for name in others if (summary := of.at(name, "a", AT))}
    if not measured:
        return None
    best = max(measured, key=lambda name: measured[name].tokens_per_second)
    verdict = _over(of.at(NAME, "a", AT), measured[best], least)
    missing = [name for name in others if name not in measured]
    if verdict is None or len(others) == 1:
        return verdict
    without = f"; without {', '.join(missing)}" if missing else ""
    return f"{verdict[0]}, {best}{without}", verdict[1]


def _over(ours: Summary | None, theirs: Summary | None, least: float) -> Verdict:
    """Errors of ours break the promise; those of the others leave it open."""
    if ours is None or theirs is None:
        return None
    if ours.errors:
        return f"{ours.error_count} errors", False
    if theirs.errors or not theirs.tokens_per_second:
        return f"{theirs.error_count} errors of the other", None
    ratio = ours.tokens_per_second / theirs.tokens_per_second
    return f"{ratio:.2f} times", ratio >= least


def _latency(of: Found) -> Verdict:
    ours, theirs = of.at(NAME, "a", 1), of.at(TUTORIAL, "a", 1)
    if ours is None or theirs is None:
        return None
    if math.isnan(ours.p50):
        return NO_ANSWER, False
    if math.isnan(theirs.p50):
        return f"{NO_ANSWER} of the other", None
    share = ours.p50 / theirs.p50
    return f"{share:.2f} ({ours.p50:,.0f} and {theirs.p50:,.0f} ms)", share <= OF_P50


def _memory(of: Found) -> Verdict:
    """The most under any load, where that one was among them: some workloads may be too slow for it."""
    found = []
    for work in WORKLOADS:
        row = of.results.rows.get(row_name(NAME, work))
        peaks = row.facts.get("peak_mb", {}) if row else {}
        found += [(peak, work, int(concurrency)) for concurrency, peak in peaks.items() if peak]
    if not any(concurrency == MEMORY_AT for _, _, concurrency in found):
        return None
    most, work, concurrency = max(found)
    return f"{most / 1000:.2f} GB, ({work}) at {concurrency}", most < MEMORY_MB
