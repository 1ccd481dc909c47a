"""What one measurement gave, and its arithmetic: percentiles, medians over rounds, ratios."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """Of one system under one load, while `seconds` ran. `cpu` is what the load generator used, in cores.

    `completed` are good answers that came within the window. In a closed loop `latencies` are theirs; in an open
    loop they are of the requests that were due in the window, from that moment on, whenever the answer came.
    `failures` are seconds until each error, counted by kind in `errors`. `tokens` are those of the texts that good
    answers hold, `per_token` the seconds a token of each.
    """

    seconds: float
    completed: int = 0
    latencies: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    tokens: int = 0
    per_token: list[float] = field(default_factory=list)

    def summary(self) -> "Summary":
        return Summary(
            requests_per_second=self.completed / self.seconds,
            p50=1000 * percentile(self.latencies, 0.50),
            p90=1000 * percentile(self.latencies, 0.90),
            p99=1000 * percentile(self.latencies, 0.99),
            errors=dict(self.errors),
            rejected_within=1000 * percentile(self.failures, 0.99),
            samples=len(self.latencies),
            generator_cores=self.cpu,
            tokens_per_second=self.tokens / self.seconds,
            ms_per_token=1000 * percentile(self.per_token, 0.50),
        )


@dataclass(frozen=True)
class Summary:
    """Latencies in milliseconds, NaN where nothing was answered; `rejected_within` is the p99 of the errors.

    `ms_per_token` is the median of a request's latency over its new tokens.
    """

    requests_per_second: float
    p50: float
    p90: float
    p99: float
    errors: dict[str, int]
    rejected_within: float
    samples: int
    generator_cores: float
    tokens_per_second: float = 0.0
    ms_per_token: float = math.nan

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())

    def as_json(self) -> dict[str, Any]:
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Of processes that ran side by side, each about as long."""
    whole = Outcome(statistics.mean(part.seconds for part in parts))
    for part in parts:
        whole.completed += part.completed
        whole.latencies += part.latencies
        whole.failures += part.failures
        whole.errors += part.errors
        whole.cpu += part.cpu
        whole.tokens += part.tokens
        whole.per_token += part.per_token
    return whole


def median(rounds: Sequence[Summary]) -> Summary:
    """Number by number; errors are added up, as one in any round counts."""
    return Summary(
        requests_per_second=statistics.median(each.requests_per_second for each in rounds),
        p50=statistics.median(each.p50 for each in rounds),
        p90=statistics.median(each.p90 for each in rounds),
        p99=statistics.median(each.p99 for each in rounds),
        errors=dict(_added(each.errors for each in rounds)),
        rejected_within=statistics.median(each.rejected_within for each in rounds),
        samples=sum(each.samples for each in rounds),
        generator_cores=max(each.generator_cores for each in rounds),
        tokens_per_second=statistics.median(each.tokens_per_second for each in rounds),
        ms_per_token=statistics.median(each.ms_per_token for each in rounds),
    )


def _added(parts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total
