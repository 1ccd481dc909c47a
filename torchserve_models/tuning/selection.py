"""The settings that are tried, and the choice among their results."""

from collections.abc import Iterable
from dataclasses import dataclass

from torchserve_models.loadgen import Summary
from torchserve_models.tuning.errors import TuningError

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
WORKER_COUNTS = (1, 2, 4)
MIN_RELATIVE_THROUGHPUT = 0.93
"""Settings with at least this share of the highest throughput count as equally fast."""
MAX_ADDED_LATENCY_MS = 3.0
"""How much longer than the minimum a lone request may take."""
MAX_ADDED_TEXT_LATENCY = 0.25
"""The same for texts, as a share of the minimum, if that is more: medians of few long answers vary by as much."""


@dataclass(frozen=True)
class Setting:
    """A batch size and number of workers; `max_batch` None leaves the handler's own limit as it is."""

    batch_size: int
    workers: int = 1
    max_batch: int | None = None

    def __str__(self) -> str:
        limit = "" if self.max_batch is None else f", max_batch {self.max_batch}"
        return f"batchSize {self.batch_size}, workers {self.workers}{limit}"

    def changes(self) -> dict[str, int]:
        """Return the values of model-config.yaml, those of `handler:` as `handler.KEY`."""
        changes = {"batchSize": self.batch_size, "minWorkers": self.workers, "maxWorkers": self.workers}
        return changes | ({} if self.max_batch is None else {"handler.max_batch": self.max_batch})


@dataclass(frozen=True)
class Trial:
    """The results of a setting by number of clients; `problem` says why there are none."""

    setting: Setting
    closed: dict[int, Summary]
    problem: str | None = None


def list_settings(cores: int) -> list[Setting]:
    """Return the settings to try: every batch size with each number of workers that the CPU cores allow."""
    return [Setting(size, workers) for workers in WORKER_COUNTS if workers <= cores for size in BATCH_SIZES]


def select_best(trials: Iterable[Trial], texts: bool = False) -> Trial:
    """Return the trial with the fewest workers, then the smallest batch, among those that are about as fast.

    Only settings with which a lone request is about as fast as possible are considered.

    Args:
        trials: Trials with the same numbers of clients.
        texts: Whether the model generates text, so that a measurement has only few answers.

    Raises:
        TuningError: No trial was measured without errors.
    """
    measured = [
        trial
        for trial in trials
        if trial.closed and not any(summary.error_count for summary in trial.closed.values())
    ]
    if not measured:
        raise TuningError("no setting could be measured; nothing was changed")
    fewest, most = min(measured[0].closed), max(measured[0].closed)
    min_latency = min(trial.closed[fewest].p50 for trial in measured)
    added = max(MAX_ADDED_LATENCY_MS, MAX_ADDED_TEXT_LATENCY * min_latency) if texts else MAX_ADDED_LATENCY_MS
    quick = [trial for trial in measured if trial.closed[fewest].p50 <= min_latency + added]
    max_rate = max(trial.closed[most].requests_per_second for trial in quick)
    fast = [t for t in quick if t.closed[most].requests_per_second >= MIN_RELATIVE_THROUGHPUT * max_rate]
    return min(fast, key=lambda t: (*_cost(t.setting), -t.closed[most].requests_per_second))


def _cost(setting: Setting) -> tuple[int, int, bool]:
    return setting.workers, setting.batch_size, setting.max_batch is not None
