"""Candidate batch settings, and selection of the best one from measurements."""

from collections.abc import Iterable
from dataclasses import dataclass

from torchserve_models.loadgen import LoadStatistics
from torchserve_models.tuning.errors import TuningError

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
WORKER_COUNTS = (1, 2, 4)
MIN_RELATIVE_THROUGHPUT = 0.93
"""Settings with at least this share of the highest throughput are treated as equally fast."""
MAX_ADDED_LATENCY_MS = 3.0
"""Maximum added latency of a single request over the fastest setting, in milliseconds."""
MAX_ADDED_TEXT_LATENCY = 0.25
"""Maximum added latency for text models as a share of the minimum; medians of few long requests vary this much.

The higher one of the two limits applies.
"""


@dataclass(frozen=True)
class BatchSetting:
    """A batch size and number of workers; `max_batch=None` keeps the handler's default."""

    batch_size: int
    workers: int = 1
    max_batch: int | None = None

    def __str__(self) -> str:
        limit = "" if self.max_batch is None else f", max_batch {self.max_batch}"
        return f"batchSize {self.batch_size}, workers {self.workers}{limit}"

    def changes(self) -> dict[str, int]:
        """Return the new values of model-config.yaml by key; keys of the section `handler:` are `handler.KEY`."""
        changes = {"batchSize": self.batch_size, "minWorkers": self.workers, "maxWorkers": self.workers}
        return changes | ({} if self.max_batch is None else {"handler.max_batch": self.max_batch})


@dataclass(frozen=True)
class Trial:
    """The measurements of a setting by number of clients; `problem` is the error if they failed."""

    setting: BatchSetting
    closed: dict[int, LoadStatistics]
    problem: str | None = None


def list_settings(cores: int) -> list[BatchSetting]:
    """Return the settings to measure: all batch sizes with each number of workers up to the number of cores."""
    return [
        BatchSetting(size, workers) for workers in WORKER_COUNTS if workers <= cores for size in BATCH_SIZES
    ]


def select_best(trials: Iterable[Trial], texts: bool = False) -> Trial:
    """Return the cheapest of the fastest trials: the fewest workers, then the smallest batch size.

    Trials whose single-request latency exceeds the minimum by more than the allowed addition are ignored.

    Args:
        trials: Trials with the same numbers of clients.
        texts: Whether the model generates text; the latencies of few long requests vary more.

    Raises:
        TuningError: Every trial had errors.
    """
    measured = [
        trial
        for trial in trials
        if trial.closed and not any(summary.error_count for summary in trial.closed.values())
    ]
    if not measured:
        raise TuningError("no setting could be measured without errors; model-config.yaml was not changed")
    fewest, most = min(measured[0].closed), max(measured[0].closed)
    min_latency = min(trial.closed[fewest].p50 for trial in measured)
    added = max(MAX_ADDED_LATENCY_MS, MAX_ADDED_TEXT_LATENCY * min_latency) if texts else MAX_ADDED_LATENCY_MS
    quick = [trial for trial in measured if trial.closed[fewest].p50 <= min_latency + added]
    max_rate = max(trial.closed[most].requests_per_second for trial in quick)
    fast = [t for t in quick if t.closed[most].requests_per_second >= MIN_RELATIVE_THROUGHPUT * max_rate]
    return min(fast, key=lambda t: (*_cost(t.setting), -t.closed[most].requests_per_second))


def _cost(setting: BatchSetting) -> tuple[int, int, bool]:
    return setting.workers, setting.batch_size, setting.max_batch is not None
