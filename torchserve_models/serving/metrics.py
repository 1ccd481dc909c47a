"""Metrics of the supervisor process, in a separate registry.

The health server exposes them, together with those of health/metrics.py.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge

REGISTRY = CollectorRegistry()
PREFIX = "torchserve_supervisor"

FRONTEND_RESTARTS = Counter(
    f"{PREFIX}_frontend_restarts",
    "Restarts of the Java front end, by reason: ended, stopped, no_answer, out_of_memory, start_failed.",
    ["reason"],
    registry=REGISTRY,
)
FRONTEND_STARTED = Gauge(
    f"{PREFIX}_frontend_start_time_seconds",
    "Unix time of the last start of the Java front end.",
    registry=REGISTRY,
)
RESTORE_FAILURES = Counter(
    f"{PREFIX}_restore_failures",
    "Model versions that could not be loaded again after a restart.",
    registry=REGISTRY,
)
WATCH_ERRORS = Counter(
    f"{PREFIX}_watch_errors",
    "Unexpected errors in the watch loop, which continues.",
    registry=REGISTRY,
)
STATE_WRITE_ERRORS = Counter(
    f"{PREFIX}_state_write_errors",
    "Failed writes of state.json or of the snapshot.",
    registry=REGISTRY,
)
MESSAGES_LOST = Counter(
    f"{PREFIX}_messages_lost",
    "Log or progress messages that could not be written.",
    registry=REGISTRY,
)
MEMORY_BUDGET = Gauge(
    f"{PREFIX}_memory_budget_bytes",
    "The memory budget by part (docs/operations.md).",
    ["part"],
    registry=REGISTRY,
)

for _reason in ("ended", "stopped", "no_answer", "out_of_memory", "start_failed"):
    FRONTEND_RESTARTS.labels(_reason)  # 0 from the beginning, so that rates see the first one
