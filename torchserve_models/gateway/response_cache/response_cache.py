"""The response cache of one gateway: its parts, and the connections that it opens."""

import httpx
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from torchserve_models.gateway.request_bodies.reader import BodyReader
from torchserve_models.gateway.response_cache.answer_store import AnswerStore
from torchserve_models.gateway.response_cache.cache_metrics import CacheMetrics
from torchserve_models.gateway.response_cache.cached_predictions import MAX_REQUESTS, CachedPredictions
from torchserve_models.gateway.response_cache.get_client import GetClient
from torchserve_models.gateway.response_cache.registrations import Registrations
from torchserve_models.gateway.response_cache.uncached_client import UncachedClient
from torchserve_models.gateway.settings import GatewaySettings

BODY_BUDGET_BYTES = 32 * 2**20
"""Memory for the bodies of requests to the cache, apart from that of other requests (settings.BUDGET_BYTES)."""


class ResponseCache:
    """The cache, which `settings.cache_bytes` must enable."""

    def __init__(
        self, settings: GatewaySettings, registry: CollectorRegistry, transport: httpx.AsyncBaseTransport
    ) -> None:
        """
        Args:
            settings: Sizes, times and addresses.
            registry: Receives the metrics.
            transport: Sends requests to nginx.
        """
        metrics = CacheMetrics(registry)
        self._management = GetClient(settings.management)
        self._predictions = CachedPredictions(
            AnswerStore(settings.cache_bytes, settings.cache_ttl_s, metrics),
            Registrations(self._management.get, settings.cache_check_timeout_s),
            BodyReader(metrics, BODY_BUDGET_BYTES, settings.body_timeout_s, MAX_REQUESTS),
            metrics,
            UncachedClient(transport, settings.uncached, settings.key),
            settings.key,
        )

    def routes(self) -> list[Route]:
        return self._predictions.routes()

    def close(self) -> None:
        """Close the connections to the management API."""
        self._management.close()
