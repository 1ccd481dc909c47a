"""The result of a measurement, and its arithmetic: percentiles, rates and medians over rounds."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Measurement:
    """Raw results of one server under one load. All times are in seconds.

    Attributes:
        seconds: Length of the measured window.
        completed: Correct answers that arrived within the window.
        latencies: In a closed loop, latencies of the completed requests. In an open loop, latencies of all requests
            that were due within the window, from their due times.
        failures: Time until each error.
        errors: Number of errors by kind.
        cpu: CPU cores that the load generator used.
        tokens: New tokens in the completed answers; 0 if the model does not generate text.
        per_token: For each completed request, its latency divided by its new tokens.
    """

    seconds: float
    completed: int = 0
    latencies: list[float] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    tokens: int = 0
    per_token: list[float] = field(default_factory=list)

    def add_error(self, kind: str, seconds: float) -> None:
        self.failures.append(seconds)
        self.errors[kind] += 1

    def summary(self) -> "LoadStatistics":
        return LoadStatistics(
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
class LoadStatistics:
    """Rates and percentiles of a measurement. Latencies are in milliseconds, NaN if there are no answers.

    `rejected_within` is the 99th percentile of the time until an error, `ms_per_token` the median of a request's
    latency divided by its new tokens.
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

    def __str__(self) -> str:
        latencies = f"p50 {self.p50:7.1f} ms  p99 {self.p99:7.1f} ms"
        tokens = f"  {self.tokens_per_second:7.1f} new tokens/s" if self.tokens_per_second else ""
        errors = "".join(f", {count} x {kind}" for kind, count in self.errors.items())
        return f"{self.requests_per_second:7.1f}/s  {latencies}{tokens}{errors}"

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())

    def as_json(self) -> dict[str, Any]:
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self).items()
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of `values` for the share `share`; NaN if there are no values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def merge_measurements(parts: Sequence[Measurement]) -> Measurement:
    """Return the sum of measurements that ran at the same time and had about the same length."""
    merged = Measurement(statistics.mean(part.seconds for part in parts))
    for part in parts:
        merged.completed += part.completed
        merged.latencies += part.latencies
        merged.failures += part.failures
        merged.errors += part.errors
        merged.cpu += part.cpu
        merged.tokens += part.tokens
        merged.per_token += part.per_token
    return merged


def median_summary(rounds: Sequence[LoadStatistics]) -> LoadStatistics:
    """Return the median of each number over several rounds.

    Errors and samples are sums, so that an error in a single round is not lost. `generator_cores` is the maximum.
    """
    values = {
        field.name: [getattr(summary, field.name) for summary in rounds]
        for field in fields(LoadStatistics)
        if field.name != "errors"
    }
    errors: Counter[str] = Counter()
    for summary in rounds:
        errors.update(summary.errors)
    medians: dict[str, Any] = {name: statistics.median(numbers) for name, numbers in values.items()}
    medians |= {"samples": sum(values["samples"]), "generator_cores": max(values["generator_cores"])}
    return LoadStatistics(**medians, errors=dict(errors))


def relative_spread(rounds: Sequence[LoadStatistics]) -> float:
    """Return (maximum - minimum) / median of the requests/s of several rounds."""
    rates = [summary.requests_per_second for summary in rounds]
    median = statistics.median(rates)
    return (max(rates) - min(rates)) / median if median else 0.0
