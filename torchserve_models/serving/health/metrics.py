"""Supervisor metrics in Prometheus format: observations and repairs."""

from collections.abc import Callable, Iterable, Set

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from torchserve_models.serving.health.observations import ServerObservation
from torchserve_models.serving.metrics import PREFIX, REGISTRY

KILL_REASONS = ("suspended", "unresponsive", "stuck", "starved")
QUESTION_RESULTS = ("answered", "failed", "inconclusive")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class SupervisorMetrics:
    """Metrics of one health monitor, in a separate registry.

    `snapshot` returns the latest observations and the current `time.monotonic()`.
    """

    def __init__(self, snapshot: Callable[[], tuple[ServerObservation, float]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_ObservationCollector(snapshot))
        self.kills = self._counter(
            "worker_kills", "Workers killed because they hung; TorchServe replaces them.", "model", "reason"
        )
        self.replacements = self._counter(
            "worker_replacements",
            "Replaced workers whose end TorchServe had not noticed.",
            "model",
        )
        self.revivals = self._counter(
            "model_revivals", "Restarts of models that TorchServe had given up.", "model"
        )
        self.questions = self._counter(
            "questions",
            "Probes of idle models, by result: answered, failed, inconclusive.",
            "model",
            "result",
        )
        self._models: set[str] = set()

    def keep_models(self, names: Set[str]) -> None:
        """Set the counters of new models to 0, so that rates see the first event; remove those of removed models."""
        series = (
            *((self.kills, (reason,)) for reason in KILL_REASONS),
            (self.replacements, ()),
            (self.revivals, ()),
            *((self.questions, (result,)) for result in QUESTION_RESULTS),
        )
        for counter, labels in series:
            for name in names:
                counter.labels(name, *labels)
            for name in self._models - names:
                counter.remove(name, *labels)
        self._models = set(names)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", description, labels, registry=self.registry)

    def exposition(self) -> bytes:
        """Return the exposition text, including process-wide metrics."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)


class _ObservationCollector(Collector):
    def __init__(self, snapshot: Callable[[], tuple[ServerObservation, float]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[GaugeMetricFamily]:
        snapshot, now = self._snapshot()
        report = snapshot.report(now)
        server = _gauge("server_ready", "1 when /readyz answers 200.")
        server.add_metric([], float(report.problem() is None))
        strict = _gauge("server_strictly_ready", "1 when /readyz?strict=1 answers 200.")
        strict.add_metric([], float(report.problem(strict=True) is None))
        silent_seconds = _gauge("front_end_silent_seconds", "Seconds since the management API last answered.")
        silent_seconds.add_metric([], max(0.0, now - snapshot.front_end_answered))
        ready = _gauge("ready", "1 when the model can answer; without models that are scaled to 0.", "model")
        labels = ("model", "version")
        model_ready = _gauge("model_ready", "1 when this version can answer.", *labels)
        usable_gauge = _gauge("workers_usable", "Workers that can answer.", *labels)
        intended = _gauge("workers_wanted", "Workers that the version should have.", *labels)
        waiting = _gauge("requests_waiting", "Requests in TorchServe's queue.", *labels)
        in_flight = _gauge("requests_in_flight", "Requests in batches that are being computed.", *labels)
        undescribed = _gauge("models_undescribed", "Models that TorchServe lists and cannot describe.")
        undescribed.add_metric([], float(len(snapshot.undescribed)))
        for version, verdict in zip(snapshot.versions, report.versions, strict=True):
            name = version.model.name
            is_ready = float(verdict.problem() is None)
            if version.model.default and version.min_workers:
                ready.add_metric([name], 0.0 if name in report.unavailable else is_ready)
            key = [name, version.model.version]
            model_ready.add_metric(key, is_ready)
            usable_gauge.add_metric(key, float(len(version.usable_workers(now))))
            intended.add_metric(key, float(version.min_workers))
            waiting.add_metric(key, float(version.model.queue_waiting))
            in_flight.add_metric(key, float(version.in_flight))
        return [
            server,
            strict,
            silent_seconds,
            ready,
            model_ready,
            usable_gauge,
            intended,
            waiting,
            in_flight,
            undescribed,
        ]


def _gauge(name: str, description: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", description, labels=labels)
