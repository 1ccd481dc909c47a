"""The metrics of the response cache, which exist only while it is on."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """Metrics of the cache in the registry of the gateway's other metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "gateway_cache_requests_total",
            "Predictions, by what the response cache did: hit, miss, coalesced, bypass.",
            ["result"],
            registry=registry,
        )
        self.evictions = Counter(
            "gateway_cache_evictions_total",
            "Answers removed from the response cache, by reason: size, expired.",
            ["reason"],
            registry=registry,
        )
        self.entries = Gauge("gateway_cache_entries", "Answers in the response cache.", registry=registry)
        self.bytes = Gauge("gateway_cache_bytes", "Bytes of memory of the response cache.", registry=registry)
        self.body_bytes = Gauge(
            "gateway_cache_body_bytes",
            "Bytes of memory reserved for bodies of requests to the response cache.",
            registry=registry,
        )
        for result in ("hit", "miss", "coalesced", "bypass"):
            self.requests.labels(result)
        for reason in ("size", "expired"):
            self.evictions.labels(reason)

    def count_rejected(self, reason: str) -> None:
        """Count nothing: a body that is rejected here bypasses the cache, which `requests` counts."""
